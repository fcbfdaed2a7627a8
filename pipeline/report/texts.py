"""Texts of users on their way into a page: shortened, and unable to be anything but text there."""

import json
import math
from html import escape
from typing import Any

# What could end a script element, begin markup or end a line of a script; JSON reads the escapes back as they were.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script_json(value: Any) -> str:
    """JSON that may stand inside a <script type="application/json"> element whatever the texts in it are.

    Raises:
        ValueError: a number is not finite; see `number`.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    return text


def html(text: str) -> str:
    """A text that may stand in an element or in a quoted attribute; its direction stays inside `<bdi>`."""
    return f"<bdi>{escape(text)}</bdi>"


def cut(text: str, longest: int) -> str:
    """The text, or its beginning and its end (a third of what is shown) with a note of how much is left out between."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    head = longest - tail
    return f"{text[:head]} … [{len(text) - longest:,} characters left out] … {text[-tail:] if tail else ''}"


def number(value: float | None, digits: int = 4) -> float | None:
    """A number for the page: rounded, and None where there is none or it is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
