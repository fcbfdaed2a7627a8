"""The answer of a response: what it says, or why it cannot be read. Where it stands is told by `statements`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.readers import Span, read_letter, read_number, read_span, span_of
from pipeline.schemas import TASKS
from pipeline.statements import core, find_answer, letter_and_span, lone_letter, stated, unwrapped

_TAG = re.compile(r"<(/?)(think|answer)>")
_WELL_FORMED = [("", "think"), ("/", "think"), ("", "answer"), ("/", "answer")]


@dataclass(frozen=True)
class Parsed:
    """What a response answers. A part that the task does not ask for, or that could not be read, is None.

    `span` is (start, end) in seconds with start <= end; `text` is the piece of the response that was read; `format_ok`
    says that the response is exactly one <think> block followed by one <answer> block; `error` says what could not be
    read ("" when all could): "no answer", "empty answer", "no option", "no number", "no span" or "no option and no
    span".
    """

    letter: str | None = None
    number: float | None = None
    span: Span | None = None
    text: str | None = None
    format_ok: bool = False
    error: str = ""


def read_format(text: str) -> bool:
    """Whether a response is `<think> ... </think> <answer> ... </answer>`, each tag once, nothing but space outside."""
    tags = list(_TAG.finditer(text))
    if [tag.groups() for tag in tags] != _WELL_FORMED:
        return False
    outside = text[: tags[0].start()] + text[tags[1].end() : tags[2].start()] + text[tags[3].end() :]
    return not outside.strip()


def parse_answer(text: str, task: str, options: Sequence[str]) -> Parsed:
    """Read a response's answer for a task. Never raises for any `text`; what cannot be read is named in `error`.

    The answer is looked for as `statements.find_answer` says; how lenient that is never touches `format_ok`.

    Args:
        text: the whole response.
        task: one of schemas.TASKS.
        options: texts of the options, without letters.

    Raises:
        ValueError: the task is unknown (the sample is wrong, not the response).
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}")
    format_ok = read_format(text)
    answer = find_answer(text, task, options)
    if not answer:
        return Parsed(format_ok=format_ok, error="no answer" if answer is None else "empty answer")
    letter: str | None = None
    number: float | None = None
    span: Span | None = None
    missing: list[str] = []
    if task == "choice":
        letter = _letter(answer, options)
    elif task == "number":
        number = read_number(core(answer))
    elif task == "grounding":
        span = read_span(core(answer))
    elif task == "grounded_choice":
        head, found = letter_and_span(answer)
        letter, span = _letter(head, options), span_of(found) if found else None
    if task in ("choice", "grounded_choice") and letter is None:
        missing.append("no option")
    if task == "number" and number is None:
        missing.append("no number")
    if task in ("grounding", "grounded_choice") and span is None:
        missing.append("no span")
    said = core(answer) if task == "open" else answer
    return Parsed(letter, number, span, said, format_ok, " and ".join(missing))


def _letter(answer: str, options: Sequence[str]) -> str | None:
    """The option that an answer names: as it stands, unwrapped, in a statement, or on a line of its own."""
    return (
        read_letter(answer, options)
        or read_letter(unwrapped(answer), options)
        or stated(answer, "choice", options)
        or lone_letter(answer, options)
    )
