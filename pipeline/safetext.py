"""Text of unknown origin on its way out: what would steer a terminal is made visible, secrets are left out."""

import re

HIDDEN = "***"

# C0 and C1 controls but tab and newline, marks that turn the direction of writing, and halves of surrogate pairs.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
_NAMES = "secret|token(?!s)|password|passwd|credential|signature|api[_-]?key|access[_-]?key|account[_-]?key"
_NAMED = re.compile(rf"((?<![\w-])[\w-]*(?:{_NAMES})[\w-]*['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&}}]+", re.IGNORECASE)


def visible(text: str) -> str:
    """A text that a terminal can only show: control characters other than tab and newline as Python writes them."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_json(text: str) -> str:
    """JSON that means the same and that a terminal can only show."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def redacted(text: str) -> str:
    """A text without the secrets that it tells by their form, each of them replaced by `***`.

    They are users and passwords of addresses, and values whose name says that they are a password, a token, a key.
    """
    return _NAMED.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN + "@", text))
