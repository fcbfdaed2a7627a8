"""Values of annotation rows as they come: numbers as text, lists as JSON text, NaN for nothing. Pure functions."""

import json
import math
import re
import reprlib
from collections.abc import Sequence
from typing import Any

from pipeline.prompts import LETTERS

Span = tuple[float, float]

LETTERED = re.compile(r"\(?([A-Z])[.):]\)?\s*(.*)", re.DOTALL)
"""An option that carries its letter: "A. red", "(A) red", "A: red"."""

_SHOWN = reprlib.Repr()  # short, and safe for lists that are nested without end
_SHOWN.maxstring = _SHOWN.maxother = 200

_SPAN_TEXT = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Unreadable(ValueError):  # noqa: N818 - an outcome of a row, not a fault of the program
    """A value that is there but cannot be read. `what`: the kind of value."""

    def __init__(self, what: str, value: Any) -> None:
        self.what = what
        super().__init__(f"{what} is {shown(value)}")


def missing(value: Any) -> bool:
    """None, NaN: what tables hold where there is nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def shown(value: Any) -> str:
    """A value for a message: cut where it is long or nested."""
    return _SHOWN.repr(value)


def text(value: Any) -> str:
    """A text, a number or a date as stripped text; "" where there is nothing.

    Raises:
        Unreadable: a list, an object, bytes.
    """
    if isinstance(value, list | tuple | dict | bytes):
        raise Unreadable("text", value)
    return "" if missing(value) else str(value).strip()


def texts(value: Any) -> list[str]:
    """Options as a list, a {letter: text} object, a JSON text of either, or a text with bars between them.

    An empty one keeps its place as "", for answers may count places.

    Raises:
        Unreadable: anything else.
    """
    if isinstance(value, str):
        loaded = loads(value)
        value = loaded if isinstance(loaded, list | dict) else value.split("|") if value.strip() else None
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str)]
    if missing(value):
        return []
    if not isinstance(value, list | tuple):
        raise Unreadable("options", value)
    return [text(item) for item in value]


def moment(value: Any) -> float | None:
    """A moment in seconds, negative ones too: some annotations begin a tenth early. None where there is nothing.

    Raises:
        Unreadable: no number, or not finite.
    """
    if missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable("time", value) from error
    if not math.isfinite(number) or isinstance(value, bool):
        raise Unreadable("time", value)
    return number


def letters_of(options: Sequence[str]) -> list[str] | None:
    """The letters that options carry, "" options aside; None where they do not.

    They count where each option has one and a text, and they are A, B, C, ... in some order, or those of their places.
    """
    filled = [(place, LETTERED.fullmatch(option)) for place, option in enumerate(options) if option]
    letters = [match[1] for _, match in filled if match and match[2].strip()]
    places = [LETTERS[place] for place, _ in filled if place < len(LETTERS)]
    counts = len(letters) == len(filled) and (letters == places or sorted(letters) == list(LETTERS[: len(letters)]))
    return letters if counts and letters else None


def seconds(value: Any) -> float | None:
    """A time in seconds from the start, or a length; None where there is nothing.

    Raises:
        Unreadable: no number, negative, or not finite.
    """
    number = moment(value)
    if number is not None and number < 0:
        raise Unreadable("time", value)
    return number


def length(value: Any) -> float | None:
    """The length of a video in seconds; None where there is none or it is 0.

    Raises:
        Unreadable: as `seconds`.
    """
    return seconds(value) or None


def spans(value: Any) -> tuple[Span, ...]:
    """Spans as [[s, e], ...], one [s, e], a JSON text of either, or "s-e". Not ordered, not checked for their length.

    Raises:
        Unreadable: anything else, or an endless moment.
    """
    given = value
    if isinstance(value, str):
        match = _SPAN_TEXT.fullmatch(value)
        value = [match[1], match[2]] if match else loads(value) if value.strip() else None
    if missing(value):
        return ()
    if not isinstance(value, list | tuple):
        raise Unreadable("span", given)
    pairs = value if not value or isinstance(value[0], list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) for pair in pairs):
        raise Unreadable("span", given)
    try:
        moments = [(moment(start), moment(end)) for start, end in pairs]
    except ValueError as error:  # not two, or one of them no moment
        raise Unreadable("span", given) from error
    if any(start is None or end is None for start, end in moments):
        raise Unreadable("span", given)
    return tuple((start, end) for start, end in moments if start is not None and end is not None)


def part(start: Any, end: Any) -> Span | None:
    """A part of a longer video by its two ends; None where one is missing.

    Raises:
        Unreadable: as `seconds`.
    """
    begin, stop = seconds(start), seconds(end)
    return None if begin is None or stop is None else (begin, stop)


def whole_number(value: Any) -> int | None:
    """A whole number >= 0, as a number or as text ("3", 3, 3.0); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value >= 0 and value == int(value) else None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and len(value) < 10 and value.strip().isdecimal() else None


def unlettered(option: str) -> str:
    """An option's text without the letter that it carries: "B. red" -> "red"."""
    found = LETTERED.fullmatch(option)
    return found[2].strip() if found else option


def untagged(solution: str) -> str:
    """What stands in the first <answer> block; the text itself without one."""
    found = _ANSWER.search(solution)
    return found[1].strip() if found else solution


def loads(value: str) -> Any:
    """A JSON text's value; the text itself when it is not JSON."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def plain(value: Any) -> Any:
    """A value that JSON can hold: numbers that are not finite become None, keys become text, bytes their count."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return None if isinstance(value, float) and not math.isfinite(value) else value
