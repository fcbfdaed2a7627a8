"""Rewards of a response: read its answer, compare it with the truth. The benchmarks' metrics use the same functions."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.prompts import LETTERS

Span = tuple[float, float]

_TAG = re.compile(r"<(/?)(think|answer)>")
_WELL_FORMED = [("", "think"), ("/", "think"), ("", "answer"), ("/", "answer")]

# [hh:]mm:ss[.f] or plain seconds; never a piece of a longer word or number.
_TIME = r"(?<![\w.:])(?:(?:[0-9]+:)?[0-9]{1,2}:[0-5][0-9](?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?![0-9:])"
_UNIT = r"(?:\s*(?:s|secs?|seconds?)\b)?"  # one run of spaces is never matched by two parts: no slow backtracking
_SPAN = re.compile(
    rf"[\[(]?({_TIME}){_UNIT}\s*(?:-|–|—|~|,|to|until|and)\s*({_TIME}){_UNIT}(?!\w)(?:\s*[\])])?", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[-+]?[0-9]+)?",
    re.IGNORECASE,
)
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_MARKED_LETTER = re.compile(
    r"[(\[]\s*([A-Za-z])\s*[)\]][.:,]?(?:\s+.*)?|([A-Za-z])\s*[.):,].*|([A-Za-z])",
    re.DOTALL,
)
_LETTER_AND_TEXT = re.compile(r"([A-Za-z])\s+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """What a response answers. A part that the task does not ask for, or that could not be read, is None.

    `span` is (start, end) in seconds with start <= end; `format_ok` says that the response is exactly one
    <think> block followed by one <answer> block; `error` says what could not be read ("" when all could).
    """

    letter: str | None = None
    number: float | None = None
    span: Span | None = None
    text: str | None = None
    format_ok: bool = False
    error: str = ""


@dataclass(frozen=True)
class Reward:
    """The reward parts of one response, each in 0..1; None where the task has no such part.

    `reward` joins accuracy and IoU by the task's rule; format never enters it.
    """

    accuracy: float | None
    iou: float | None
    format: float
    reward: float
    parse_error: str


def normalise(text: str) -> str:
    """Text for comparison: case, repeated spaces and the punctuation around it do not count."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")


def read_format(text: str) -> bool:
    """Whether a response is `<think> ... </think> <answer> ... </answer>`, each tag once, nothing but space outside."""
    tags = list(_TAG.finditer(text))
    if [tag.groups() for tag in tags] != _WELL_FORMED:
        return False
    outside = text[: tags[0].start()] + text[tags[1].end() : tags[2].start()] + text[tags[3].end() :]
    return not outside.strip()


def read_answer(text: str) -> str | None:
    """What stands in the last closed <answer> block, stripped; None without one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if 0 <= start < end else None


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
        if word in _NUMBER_WORDS:
            return float(_NUMBER_WORDS.index(word))
    return None


def _seconds(text: str) -> float:
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def _span(found: re.Match[str]) -> Span | None:
    a, b = _seconds(found[1]), _seconds(found[2])
    if not (math.isfinite(a) and math.isfinite(b)):
        return None
    return (a, b) if a <= b else (b, a)


def read_span(text: str) -> Span | None:
    """The one span of a text, in seconds: "3.2 - 4.5", "3.2 to 4.5", "[3.2, 4.5]", "3.2s - 4.5s", "0:03 - 0:05".

    Swapped ends are put in order. Several spans, or none, give None: an answer cannot hedge.
    """
    found = list(_SPAN.finditer(text))
    return _span(found[0]) if len(found) == 1 else None


def parse_answer(text: str, task: str, options: Sequence[str]) -> Parsed:
    """Read a response's answer for a task. Never raises for any `text`; what cannot be read is named in `error`.

    Args:
        text: the whole response.
        task: one of schemas.TASKS.
        options: texts of the options, without letters.

    Raises:
        ValueError: the task is unknown (the sample is wrong, not the response).
    """
    format_ok = read_format(text)
    answer = read_answer(text)
    if answer is None:
        return Parsed(format_ok=False, error="no <answer> block")
    if not answer:
        return Parsed(format_ok=format_ok, error="empty answer")
    if task == "choice":
        letter = read_letter(answer, options)
        return Parsed(letter=letter, text=answer, format_ok=format_ok, error="" if letter else "no option")
    if task == "number":
        number = read_number(answer)
        return Parsed(number=number, text=answer, format_ok=format_ok, error="no number" if number is None else "")
    if task == "open":
        return Parsed(text=answer, format_ok=format_ok)
    if task == "grounding":
        span = read_span(answer)
        return Parsed(span=span, text=answer, format_ok=format_ok, error="" if span else "no span")
    if task == "grounded_choice":
        found = list(_SPAN.finditer(answer))
        span, head = None, answer
        if found and not answer[found[-1].end() :].strip(" .)]"):
            # The last span is the answer's; an option's own text may hold one before it.
            span, head = _span(found[-1]), answer[: found[-1].start()].strip(" \t\r\n,;:-–—@") or "?"
        letter = read_letter(head, options)
        missing = [name for name, part in (("option", letter), ("span", span)) if part is None]
        error = "no " + " and no ".join(missing) if missing else ""
        return Parsed(letter=letter, span=span, text=answer, format_ok=format_ok, error=error)
    raise ValueError(f"unknown task {task!r}")


def temporal_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Temporal intersection over union of two spans, in [0, 1], symmetric, and 1 only when they are equal.

    Args:
        a, b: (start, end), finite, both in one unit; swapped ends are put in order.
    """
    (a0, a1), (b0, b1) = sorted(map(float, a)), sorted(map(float, b))
    if not all(map(math.isfinite, (a0, a1, b0, b1))):
        raise ValueError(f"spans must be finite, got {a} and {b}")
    if (a0, a1) == (b0, b1):
        return 1.0
    inside = min(a1, b1) - max(a0, b0)
    if inside <= 0:
        return 0.0
    # The union of overlapping spans is their hull. Differences below float precision still are differences.
    return min(inside / (max(a1, b1) - min(a0, b0)), math.nextafter(1.0, 0.0))


def _choice_accuracy(letter: str | None, answer: str, options: Sequence[str]) -> float:
    true = answer.strip().upper()
    letters = LETTERS[: len(options)] if options else LETTERS
    if len(true) != 1 or true not in letters:
        raise ValueError(f"the true answer {answer!r} is not the letter of one of {len(options)} options")
    if letter is None or letter == true or not options:
        return float(letter == true)
    # Two options with the same text are the same option (it happens in NExT-GQA).
    return float(normalise(options[letters.index(letter)]) == normalise(options[letters.index(true)]))


def _best_iou(span: Span | None, spans: Sequence[Sequence[float]]) -> float:
    if not spans:
        raise ValueError("the sample has no true span")
    return 0.0 if span is None else max(temporal_iou(span, true) for true in spans)


def score(text: str, task: str, options: Sequence[str], answer: str, spans: Sequence[Sequence[float]]) -> Reward:
    """Reward parts of one response.

    choice, number, open: reward = accuracy (exact, 0 or 1). grounding: reward = IoU, the best over the true spans.
    grounded_choice: reward = 0.5 * accuracy + 0.5 * IoU. The format is its own part and never enters `reward`.

    Args:
        text: the response.
        task: one of schemas.TASKS.
        options: texts of the options, without letters.
        answer: the true answer; a letter for choices.
        spans: true spans [[start_s, end_s]].

    Raises:
        ValueError: the sample itself cannot be scored (no such letter, no number, no span). A response never raises.
    """
    parsed = parse_answer(text, task, options)
    accuracy: float | None = None
    iou: float | None = None
    if task in ("choice", "grounded_choice"):
        accuracy = _choice_accuracy(parsed.letter, answer, options)
    elif task == "number":
        true = read_number(answer)
        if true is None:
            raise ValueError(f"the true answer {answer!r} is not a number")
        near = parsed.number is not None and math.isclose(parsed.number, true, rel_tol=1e-9, abs_tol=1e-12)
        accuracy = float(near)
    elif task == "open":
        if not normalise(answer):
            raise ValueError("the true answer is empty")
        accuracy = float(parsed.text is not None and normalise(parsed.text) == normalise(answer))
    if task in ("grounding", "grounded_choice"):
        iou = _best_iou(parsed.span, spans)
    parts = [part for part in (accuracy, iou) if part is not None]
    return Reward(accuracy, iou, float(parsed.format_ok), math.fsum(parts) / len(parts), parsed.error)
