"""Annotation formats: rows of a file to drafts of samples. Pure functions; no file is opened except by `read_rows`."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.prompts import LETTERS
from pipeline.rewards import normalise, read_letter, read_number
from pipeline.schemas import TASKS

FORMATS = ("video-r1", "generic")
FIELDS = ("id", "video", "question", "options", "answer", "answer_index", "spans", "task", "split")
"""What a column mapping may name."""

_LETTERED = re.compile(r"\(?([A-Z])[.):]\)?\s*(.*)", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_SPAN_TEXT = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*")
_PROBLEM_TYPES = {
    "multiple choice": "choice",
    "numerical": "number",
    "regression": "number",
    "ocr": "open",
    "free-form": "open",
}


class Rejected(Exception):  # noqa: N818 - an outcome of a row, not a fault of the program
    """A row that cannot become a sample. `reason` is a short class for counting."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Draft:
    """A sample before its video is known. `row_id` is the source's own id of the row, or its number."""

    row_id: str
    video: str
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    spans: tuple[tuple[float, float], ...]
    split: str | None
    origin: str
    repairs: tuple[str, ...] = field(default=())


def read_rows(file: Path) -> list[Any]:
    """All rows of a json list, jsonl, csv or parquet file, by its ending.

    Raises:
        UserError: there is no such file, it is empty, unreadable, or of another kind.
    """
    name = str(file)
    if not file.is_file():
        raise UserError(name, "there is no such file", "check the path of the annotation file")
    try:
        rows = _read(file)
    except (ValueError, csv.Error, OSError) as error:
        raise UserError(
            name, f"not readable as {file.suffix[1:] or 'annotations'} ({error})", "repair the file"
        ) from error
    if not rows:
        raise UserError(name, "the file holds no rows", "check the path of the annotation file")
    return rows


def guess_format(rows: Sequence[Any]) -> str:
    """video-r1 when the first row has that layout's columns, else generic."""
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    return "video-r1" if {"problem", "problem_type", "solution"} <= set(first) else "generic"


def check_mapping(mapping: Mapping[str, str], rows: Sequence[Any]) -> None:
    """Whether a column mapping {our field: their column} fits the rows of a file.

    Raises:
        UserError: an unknown field, or a column that no row has.
    """
    columns = {column for row in rows if isinstance(row, dict) for column in row}
    for ours, theirs in mapping.items():
        if ours not in FIELDS:
            raise UserError(f"--map {ours}={theirs}", f"the fields are {', '.join(FIELDS)}", "name one of them")
        for column in theirs.split(","):
            if column not in columns:
                known = ", ".join(sorted(map(str, columns)))
                raise UserError(f"--map {ours}={theirs}", f"the columns are {known}", "name one of them")


def draft_video_r1(row: Any, number: int) -> Draft:
    """A row of the Video-R1 layout.

    Args:
        number: of the row in its file, from 0; its id when it has none of its own.

    Raises:
        Rejected: an image row, an unknown kind of problem, or an unusable question, option list or answer.
    """
    _need_object(row)
    if row.get("data_type", "video") != "video":
        raise Rejected("not a video row", f"data_type is {row['data_type']!r}")
    kind = str(row.get("problem_type", "")).strip().lower()
    if kind not in _PROBLEM_TYPES:
        raise Rejected("unknown problem_type", f"problem_type is {row.get('problem_type')!r}")
    solution = _text(row.get("solution"))
    tagged = _ANSWER.search(solution)
    return _draft(
        row,
        row_id=_text(row.get("problem_id")) or str(number),
        video=_text(row.get("path")) or _text(row.get("video")),
        task=_PROBLEM_TYPES[kind],
        question=_text(row.get("problem")),
        options=_texts(row.get("options")) if _PROBLEM_TYPES[kind] == "choice" else [],
        answer=tagged[1].strip() if tagged else solution,
        spans=(),
        split=None,
    )


def draft_generic(row: Any, number: int, mapping: Mapping[str, str] | None = None) -> Draft:
    """A row of the user's own layout.

    Args:
        mapping: {our field: their column}; a field that is not named is the column of the same name. `options` may name
            several columns, separated by commas. `answer_index` counts options from 0.

    Raises:
        Rejected: the row cannot become a sample.
    """
    _need_object(row)
    column = {name: (mapping or {}).get(name, name) for name in FIELDS}
    value = {name: row.get(column[name]) for name in FIELDS}
    if "," in column["options"]:
        options = [text for name in column["options"].split(",") if (text := _text(row.get(name)))]
    else:
        options = _texts(value["options"])
    spans, answer = _spans(value["spans"]), _text(value["answer"])
    place = _text(value["answer_index"])
    if place:
        if not place.isdecimal() or int(place) >= len(options):
            raise Rejected("answer is none of the options", f"answer_index is {place!r} with {len(options)} options")
        answer = LETTERS[int(place)] if len(options) <= len(LETTERS) else answer
    return _draft(
        row,
        row_id=_text(value["id"]) or str(number),
        video=_text(value["video"]),
        task=_text(value["task"]) or _guess_task(options, answer, spans),
        question=_text(value["question"]),
        options=options,
        answer=answer,
        spans=spans,
        split=_text(value["split"]) or None,
    )


def _draft(
    row: dict[str, Any],
    *,
    row_id: str,
    video: str,
    task: str,
    question: str,
    options: list[str],
    answer: str,
    spans: Sequence[tuple[float, float]],
    split: str | None,
) -> Draft:
    """Check what all formats have in common, and bring it into one form."""
    if task not in TASKS:
        raise Rejected("unknown task", f"task is {task!r}; the tasks are {', '.join(TASKS)}")
    if not video:
        raise Rejected("no video named", "the row names no video")
    if not question:
        raise Rejected("no question", "the row asks nothing")
    repairs: list[str] = []
    if task in ("choice", "grounded_choice"):
        options = _without_letters(options, repairs)
        answer = _choice(answer, options)
    elif task == "number" and read_number(answer) is None:
        raise Rejected("answer is not a number", f"answer is {answer!r}")
    elif task == "open" and not answer:
        raise Rejected("no answer", "the row has no answer")
    if task == "grounding":
        answer = ""
    if task in ("grounding", "grounded_choice") and not spans:
        raise Rejected("no span", "a question about a moment needs at least one span")
    ordered = tuple((min(span), max(span)) for span in spans)
    if ordered != tuple(spans):
        repairs.append("span ends swapped")
    origin = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str)
    try:
        origin.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell and no file can hold
        raise Rejected("broken text", f"the row holds text that is not Unicode ({error})") from error
    options = options if task in ("choice", "grounded_choice") else []
    return Draft(row_id, video, task, question, tuple(options), answer, ordered, split, origin, tuple(repairs))


def _without_letters(options: list[str], repairs: list[str]) -> list[str]:
    """Texts of options, in the order of their letters when all of them carry one."""
    if not 2 <= len(options) <= len(LETTERS):
        raise Rejected("fewer than two options" if len(options) < 2 else "too many options", f"{len(options)} options")
    found = [_LETTERED.fullmatch(option) for option in options]
    letters = [match[1] for match in found if match]
    texts = [match[2].strip() for match in found if match]
    if sorted(letters) == list(LETTERS[: len(options)]) and all(texts):
        pairs = sorted(zip(letters, texts, strict=True))
        if letters != sorted(letters):
            repairs.append("options put in order")
        options = [text for _, text in pairs]
    return options


def _choice(answer: str, options: list[str]) -> str:
    texts = [normalise(option) for option in options]
    letter = read_letter(answer, options) if answer else None
    if letter is None and normalise(answer) in texts:  # a text of one character, such as a digit
        letter = LETTERS[texts.index(normalise(answer))]
    if letter is None:
        raise Rejected("answer is none of the options", f"answer is {answer!r} of {options!r}")
    if texts.count(texts[LETTERS.index(letter)]) > 1:
        raise Rejected("two options are the answer", f"{options[LETTERS.index(letter)]!r} stands twice in {options!r}")
    return letter


def _guess_task(options: list[str], answer: str, spans: Sequence[Any]) -> str:
    if options:
        return "grounded_choice" if spans and answer else "choice"
    if spans and not answer:
        return "grounding"
    try:
        float(answer)
    except ValueError:
        return "open"
    return "number"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _texts(value: Any) -> list[str]:
    """Options as a list, a {letter: text} object, a JSON text of either, or a text with bars between them."""
    if isinstance(value, str):
        loaded = _json(value)
        value = loaded if isinstance(loaded, list | dict) else value.split("|")
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if not isinstance(value, list | tuple):
        raise Rejected("unreadable options", f"options are {value!r}")
    return [text for item in value if (text := _text(item))]


def _spans(value: Any) -> tuple[tuple[float, float], ...]:
    """Spans as [[s, e], ...], one [s, e], a JSON text of either, or "s-e"."""
    if isinstance(value, str):
        match = _SPAN_TEXT.fullmatch(value)
        value = [match[1], match[2]] if match else _json(value) if value.strip() else None
        if value is None and not match:
            return ()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    try:
        pairs = value if not len(value) or isinstance(value[0], list | tuple) else [value]
        spans = tuple((float(start), float(end)) for start, end in pairs)
    except (TypeError, ValueError, KeyError) as error:
        raise Rejected("unreadable span", f"spans are {value!r}") from error
    for start, end in spans:
        if not (math.isfinite(start) and math.isfinite(end) and min(start, end) >= 0):
            raise Rejected("unreadable span", f"spans are {value!r}")
        if start == end:
            raise Rejected("span without length", f"spans are {value!r}")
    return spans


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _need_object(row: Any) -> None:
    if not isinstance(row, dict):
        raise Rejected("not an object", f"the row is {row!r:.80}")


def _read(file: Path) -> list[Any]:
    kind = file.suffix.lower()
    if kind == ".json":
        rows = json.loads(file.read_text(encoding="utf-8-sig") or "[]")
        if not isinstance(rows, list):
            raise ValueError("a list of rows is expected")
        return rows
    if kind == ".jsonl":
        return list(_lines(file))
    if kind == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    if kind == ".parquet":
        rows = pq.read_table(file).to_pylist()
        return list(rows)
    raise ValueError("the kinds are .json, .jsonl, .csv and .parquet")


def _lines(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
