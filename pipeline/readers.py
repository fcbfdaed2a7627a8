"""Readers of an answer's text: the letter, number or span that it gives. They take an answer, never a response."""

import math
import re
from collections.abc import Sequence

from pipeline.prompts import LETTERS

Span = tuple[float, float]

_HAN = "一-鿿"  # Han characters count as letters for \w, but no space parts them from a time or a unit
# [hh:]mm:ss[.f] or plain seconds; never a piece of a longer word or number.
_CLOCK = r"(?:(?:[0-9]+:)?[0-9]{1,2}:[0-5][0-9](?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?![0-9:])"
_TIME = rf"(?<![^\W{_HAN}])(?<![.:]){_CLOCK}"
# One run of spaces is never matched by two parts: no slow backtracking.
_UNIT = r"(?:\s*(?:(?:s|secs?|seconds?)(?![A-Za-z])\.?|秒))?"
_TO = r"(?:-|–|—|~|～|->|→|,|to|till?|until|through|and|到|至)"
SPAN = re.compile(
    rf"[\[(]?({_TIME}){_UNIT}\s*{_TO}\s*({_TIME}){_UNIT}(?![^\W{_HAN}])(?:\s*[\])])?",
    re.IGNORECASE,
)
_AT = r"(?:s|ing)?(?:[ _]?times?(?:tamp)?)?[\s\"'*_:=]{0,8}(?:(?:at|is|:)\s{0,4})?[\"'*]{0,4}"
NAMED_SPAN = re.compile(
    rf"(?<![A-Za-z])start{_AT}({_CLOCK}){_UNIT}[\s\"'*_,;]{{0,8}}(?:and|it)?\s{{0,4}}[\"'*]{{0,4}}end{_AT}({_CLOCK}){_UNIT}",
    re.IGNORECASE,
)
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
NUMBER = rf"(?<![^\W{_HAN}])(?<!\.)[-+]?{_DIGITS}(?:e[-+]?[0-9]+)?"
_NUMBER = re.compile(NUMBER, re.IGNORECASE)
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_MARKED_LETTER = re.compile(
    r"[(\[]\s*([A-Za-z])\s*[)\]][.:,]?(?:\s+.*)?|([A-Za-z])\s*[.):,].*|([A-Za-z])",
    re.DOTALL,
)
_LETTER_AND_TEXT = re.compile(r"([A-Za-z])\s+(.+)", re.DOTALL)


def normalise(text: str) -> str:
    """Text for comparison: case, repeated spaces and the punctuation around it do not count."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The option that a text names: "B", "(B)", "B.", "B. text", "B text" or the option's text alone.

    A letter that is marked as one wins over what follows it. Without a mark ("A dog") the rest has to be that option's
    text, since a sentence may start with the word "a". A text that several options share names the first of them.
    With no options given, any letter from A to Z counts.
    """
    text = text.strip()
    letters = LETTERS[: len(options)] if options else LETTERS
    texts = [normalise(option) for option in options]
    wanted = normalise(text)
    if len(text) > 1 and wanted and wanted in texts:
        return letters[texts.index(wanted)]
    marked = _MARKED_LETTER.fullmatch(text)
    if marked:
        letter = (marked[1] or marked[2] or marked[3]).upper()
        return letter if letter in letters else None
    pair = _LETTER_AND_TEXT.fullmatch(text)
    if pair and pair[1].upper() in letters and options:
        letter = pair[1].upper()
        if normalise(pair[2]) == texts[letters.index(letter)]:
            return letter
    return None


def read_number(text: str) -> float | None:
    """The first number of a text, in digits ("1,234.5", "-3e2") or, without any, as a word up to twenty."""
    found = _NUMBER.search(text)
    if found:
        value = float(found[0].replace(",", ""))
        return value if math.isfinite(value) else None
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in NUMBER_WORDS:
            return float(NUMBER_WORDS.index(word))
    return None


def _seconds(text: str) -> float:
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def span_of(found: re.Match[str]) -> Span | None:
    """(start, end) in seconds of a match of SPAN or NAMED_SPAN; None when an end is not finite."""
    a, b = _seconds(found[1]), _seconds(found[2])
    if not (math.isfinite(a) and math.isfinite(b)):
        return None
    return (a, b) if a <= b else (b, a)


def spans_in(text: str) -> list[re.Match[str]]:
    """The spans that a text writes: of those with named ends ("start: 3, end: 5") if it has any, else of all others."""
    return list(NAMED_SPAN.finditer(text)) or list(SPAN.finditer(text))


def read_span(text: str) -> Span | None:
    """The one span of a text, in seconds, by its two times or by names of its ends.

    "3.2 - 4.5", "3.2 to 4.5", "[3.2, 4.5]", "3.2s - 4.5s", "0:03 - 0:05", "starts at 3 and ends at 5",
    '{"start_time": "3.2", "end_time": "4.5"}'. Swapped ends are put in order. Several spans, or none, give None: an
    answer cannot hedge.
    """
    found = spans_in(text)
    return span_of(found[0]) if len(found) == 1 else None
