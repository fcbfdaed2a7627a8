"""A sample before its video is known: what every annotation format has in common, checked and in one form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.prompts import LETTERS
from pipeline.readers import normalise, read_letter, read_number
from pipeline.schemas import TASKS
from pipeline.sources.values import LETTERED, Span, letters_of, plain

CHOICES = ("choice", "grounded_choice")
GROUNDED = ("grounding", "grounded_choice")


class Rejected(Exception):  # noqa: N818 - an outcome of a row, not a fault of the program
    """A row that cannot become a sample. `reason` is a short class for counting."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Draft:
    """A sample before its video is known.

    Attributes:
        row_id: the source's own id of the row, or its number.
        video: path or id of the video, as the row names it.
        task, question, options, answer: as in the `samples` table.
        spans: ascending [(start, end)], start < end; in seconds, or with `shares` in shares of the video's length.
        dataset: the dataset or benchmark that the row belongs to.
        split: that the row itself names; None where it names none.
        length_s: the video's length in seconds by the annotation; None where it does not say.
        cut: (start, end), seconds: the part of a longer video that the row is about; spans count from its start.
        origin: the original row, as JSON.
        repairs: what was put right, a short class each.
    """

    row_id: str
    video: str
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    spans: tuple[Span, ...]
    dataset: str
    split: str | None
    origin: str
    shares: bool = False
    length_s: float | None = None
    cut: Span | None = None
    repairs: tuple[str, ...] = ()


def make_draft(
    row: Any,
    *,
    dataset: str,
    row_id: str,
    video: str,
    task: str,
    question: str,
    options: Sequence[str] = (),
    answer: str = "",
    spans: Sequence[Span] = (),
    split: str | None = None,
    shares: bool = False,
    length_s: float | None = None,
    cut: Span | None = None,
) -> Draft:
    """Check what all formats have in common, and bring it into one form.

    Args:
        row: the original row, for `origin`.
        options: texts, with or without letters; "" where a place is empty; ignored where the task has none.
        answer: a letter, an option's text, a number or a text, by the task; ignored for grounding.
        spans: in any order, with ends in any order.

    Raises:
        Rejected: the row cannot become a sample.
    """
    if task not in TASKS:
        raise Rejected("unknown task", f"task is {task!r}; the tasks are {', '.join(TASKS)}")
    if not video:
        raise Rejected("no video named", "the row names no video")
    if not question:
        raise Rejected("no question", "the row asks nothing")
    repairs: list[str] = []
    chosen: tuple[str, ...] = ()
    if task in CHOICES:
        if not answer:
            raise Rejected("no answer", "the row has no answer")
        chosen, answer = _choices(options, answer, repairs)
    elif task == "number":
        number = read_number(answer)
        if number is None:
            raise Rejected("answer is not a number" if answer else "no answer", f"answer is {answer!r}")
        answer = str(int(number)) if number == int(number) else repr(number)
    elif task == "open" and not answer:
        raise Rejected("no answer", "the row has no answer")
    elif task == "grounding":
        answer = ""
    ordered = _in_order(spans, repairs)
    if task in GROUNDED and not ordered:
        raise Rejected("no span", "a question about a moment needs at least one span")
    if cut is not None and not cut[0] < cut[1]:
        raise Rejected("unreadable cut", f"the row is about [{cut[0]}, {cut[1]}] of its video")
    return Draft(
        row_id=row_id,
        video=video,
        task=task,
        question=question,
        options=chosen,
        answer=answer,
        spans=ordered,
        dataset=dataset,
        split=split,
        origin=origin_of(row),
        shares=shares,
        length_s=length_s,
        cut=cut,
        repairs=tuple(repairs),
    )


def origin_of(row: Any) -> str:
    """A row as JSON.

    Raises:
        Rejected: it holds text that no file can hold, or it is nested too deeply.
    """
    try:
        text = json.dumps(plain(row), ensure_ascii=False, sort_keys=True, default=str)
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell and no file can hold
        raise Rejected("broken text", f"the row holds text that is not Unicode ({error})") from error
    except RecursionError as error:
        raise Rejected("nested too deeply", "the row's lists and objects are nested too deeply") from error
    return text


def _in_order(spans: Sequence[Span], repairs: list[str]) -> tuple[Span, ...]:
    if not spans:
        return ()
    ordered = [(min(span), max(span)) for span in spans]
    if ordered != list(spans):
        repairs.append("span ends swapped")
    solid = [(start, end) for start, end in ordered if start < end]
    if not solid:
        raise Rejected("span without length", f"spans are {list(spans)}")
    if len(solid) < len(ordered):
        repairs.append("span without length dropped")
    if solid != sorted(solid):
        repairs.append("spans put in order")
    return tuple(sorted(solid))


def _choices(options: Sequence[str], answer: str, repairs: list[str]) -> tuple[tuple[str, ...], str]:
    """The options that hold something, in the order of their letters, and the letter of the answer among them."""
    if len(options) > len(LETTERS):
        raise Rejected("too many options", f"{len(options)} options")
    places = _by_letter(options, answer, repairs)
    filled = [place for place, option in enumerate(places) if option]
    if len(filled) < 2:
        raise Rejected("fewer than two options", f"{len(filled)} options")
    if len(filled) < len(places):
        repairs.append("empty options dropped")
    right = _place(answer, places)
    same = [place for place in filled if normalise(places[place]) == normalise(places[right])]
    if len(same) > 1:  # the answer's text stands twice: both are right, and the later one goes
        right, filled = same[0], [place for place in filled if place not in same[1:]]
        if len(filled) < 2:
            raise Rejected("fewer than two options", f"all options are {places[right]!r}")
        repairs.append("equal options joined")
    return tuple(places[place] for place in filled), LETTERS[filled.index(right)]


def _by_letter(options: Sequence[str], answer: str, repairs: list[str]) -> list[str]:
    """Options at the places of their letters, without them, where all carry one; as they are where they do not."""
    filled = {LETTERS[place]: option for place, option in enumerate(options) if option}
    carried = letters_of(options)
    if carried is None:
        found = [LETTERED.fullmatch(option) for option in filled.values()]
        letters = [match[1] for match in found if match]
        bare = answer.strip("(). :").upper()
        each = len(letters) == len(found) == len(set(letters))
        if each and bare in letters and bare != list(filled)[letters.index(bare)]:
            raise Rejected("letters of the options have gaps", f"answer is {answer!r} of {list(options)!r}")
        return list(options)
    if carried != sorted(carried):
        repairs.append("options put in order")
    texts = {letter: LETTERED.fullmatch(option) for letter, option in zip(carried, filled.values(), strict=True)}
    last = max(LETTERS.index(letter) for letter in carried)
    return [match[2].strip() if (match := texts.get(letter)) else "" for letter in LETTERS[: last + 1]]


def _place(answer: str, places: list[str]) -> int:
    """Where the answer stands, given as a letter, as an option's text, or as both."""
    texts = [normalise(option) for option in places]
    letter = read_letter(answer, places)
    if letter is not None and places[LETTERS.index(letter)]:
        return LETTERS.index(letter)
    if normalise(answer) in texts and normalise(answer):  # a text of one character, such as a digit
        return texts.index(normalise(answer))
    raise Rejected("answer is none of the options", f"answer is {answer!r} of {places!r}")
