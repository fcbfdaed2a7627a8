"""Answers that a format gives by an option's place or by its text, as letters; questions without what wraps them."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pipeline.prompts import LETTERS
from pipeline.readers import normalise
from pipeline.sources.draft import Rejected
from pipeline.sources.values import letters_of, shown, text, whole_number

# A sentence that says how to answer has no other words than these: "Please give the length in metres" is a question.
_VERBS = {"answer", "select", "choose", "pick", "give", "provide", "respond", "reply", "write"}
_BEFORE = {"please", "only", "just", "now", "then", "directly"}
_OTHERS = (
    "letter letters option options option's choice choices multiple-choice a b c d e yes no or and the an your one "
    "single short word words phrase best correct right most of to with using by from in on is as appropriate "
    "given provided listed following above below based video question"
)
_HOW = _VERBS | _BEFORE | set(_OTHERS.split())
_WORD = re.compile(r"[\w'’-]+")
_END = re.compile(r"(?<=[.?!])\s+|\s*\n\s*")
_LABEL = re.compile(
    r"\s*(?:(?:caption|option|sentence|description)\s+)?\(?([A-Z]|[1-9][0-9]?)[.):]\)?\s*(\S.*?)\s*", re.IGNORECASE
)


def by_place(options: Sequence[str], place: Any) -> str:
    """The letter of the option at a place, counted from 0, as a number or as text.

    Raises:
        Rejected: there is no answer, or no option at its place.
    """
    if not text(place):
        raise Rejected("no answer", "the row has no answer")
    number = whole_number(place)
    if number is None or number >= min(len(options), len(LETTERS)) or not options[number]:
        raise Rejected("answer is none of the options", f"answer is {shown(place)}, a place from 0 is expected")
    return _letter(options, number)


def by_text(options: Sequence[str], answer: str) -> str:
    """The letter of the first option that is the answer, by its text alone: "A" may be what an option says.

    Raises:
        Rejected: there is no answer, or no option says it.
    """
    if not answer:
        raise Rejected("no answer", "the row has no answer")
    for said, wanted in ((list(options), answer), ([normalise(option) for option in options], normalise(answer))):
        if wanted and wanted in said[: len(LETTERS)]:
            return _letter(options, said.index(wanted))
    raise Rejected("answer is none of the options", f"answer is {answer!r} of {list(options)!r}")


def question_alone(question: str) -> str:
    """A question without the sentences around it that say how to answer: with a letter, yes or no, a single word."""
    parts = [(0, 0), *(match.span() for match in _END.finditer(question)), (len(question), len(question))]
    sentences = [question[end:start] for (_, end), (start, _) in pairwise(parts)]
    asks = [number for number, sentence in enumerate(sentences) if sentence and not _says_how(sentence)]
    if not asks:
        return question
    return question[parts[asks[0]][1] : parts[asks[-1] + 1][0]].strip()


def apart(question: str) -> tuple[str, list[tuple[str, str]]]:
    """A question whose last lines are its options, and those: [(the whole line, its text without the label)].

    The labels are A, B, C, ... or 1, 2, 3, ...: "A. red", "Caption B: red", "Option 2: red". Without at least two such
    lines the question is as it was.
    """
    lines = [line.strip() for line in question.strip().splitlines()]
    found = [_LABEL.fullmatch(line) for line in lines]
    first = next((place for place in range(len(lines)) if all(found[place:])), len(lines))
    for begin in range(first, len(lines) - 1):
        labels = [match[1] for match in found[begin:] if match]
        if labels in ([*LETTERS[: len(labels)]], [str(number + 1) for number in range(len(labels))]):
            options = [(line, match[2]) for line, match in zip(lines[begin:], found[begin:], strict=True) if match]
            return "\n".join(lines[:begin]).strip(), options
    return question, []


def _says_how(sentence: str) -> bool:
    words = [word.replace("’", "'").casefold() for word in _WORD.findall(sentence)]
    return bool(words) and words[0] in _VERBS | _BEFORE and bool(_VERBS & set(words)) and _HOW.issuperset(words)


def _letter(options: Sequence[str], place: int) -> str:
    carried = letters_of(options)
    return carried[sum(map(bool, options[:place]))] if carried else LETTERS[place]
