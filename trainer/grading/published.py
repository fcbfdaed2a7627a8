"""Predictions that others published, laid beside the annotations they answer: rows that are graded like our own.

A predictions file is a JSON object {key: prediction} or a list, or lines, of objects with an `id`. A key is the row's
id; where that has two parts, as "video/question", they may also be joined by "_". A prediction is an answer or an
object with one:

- `response`: a whole response, read as a policy's is;
- `prediction` (or `pred`): a letter, a text or a number; for choices a whole number is an option's place, from 0;
- `span`: [start_s, end_s], alone or beside a prediction.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline import sources
from pipeline.errors import UserError
from pipeline.prompts import LETTERS
from pipeline.readers import normalise
from pipeline.sources import Draft, Rejected
from pipeline.sources.draft import CHOICES
from pipeline.sources.files import read_content
from pipeline.sources.values import texts, unlettered, whole_number
from pipeline.spans import place

MISSING = "no prediction"
VIEW = "published"

_ANSWERS = ("prediction", "pred")
_LISTS = ("options", "candidates", "choices", "option")
_SERIES = (tuple(f"a{n}" for n in range(5)), tuple(f"option {n}" for n in range(5)))
_NEXT = "docs/evaluation.md has the layouts; strive-train eval --help"


def published(
    predictions: Path, annotations: Path, format: str = "auto"
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every question of an annotation file with what a file predicts for it.

    A question without a prediction is a failure and counts as wrong. True spans are those of the annotation, uncut, as
    published scripts take them; a predicted one begins at 0 s at the earliest.

    Args:
        annotations: in any layout that `strive-data ingest` reads. format: its name, or auto.

    Returns:
        Rows as `trainer.predictions.read` gives them, and counts: rows that cannot be graded, by reason, and
        predictions for no question.

    Raises:
        UserError: a file cannot be read, or no key of the predictions is a question's.
    """
    source, rows = sources.read(annotations, format)
    given = _by_key(predictions)
    counts: dict[str, int] = {}
    out: list[dict[str, Any]] = []
    used: set[str] = set()
    for draft in source.drafts(rows):
        if isinstance(draft, Rejected):
            counts[draft.reason] = counts.get(draft.reason, 0) + 1
            continue
        key = next((name for name in (draft.row_id, draft.row_id.replace("/", "_")) if name in given), None)
        if key is not None:
            used.add(key)
        stem = annotations.name.split(".")[0]
        dataset = source.dataset(stem) or draft.dataset
        out.append(_row(draft, dataset, f"{source.name}-{stem}", None if key is None else given[key], predictions))
    if not used:
        example = next(iter(given), "")
        wanted = out[0]["sample_id"] if out else "none"
        raise UserError(
            str(predictions), f"none of its {len(given)} keys ({example!r}) is a question's id ({wanted!r})", _NEXT
        )
    strangers = len(given) - len(used)
    return out, counts | ({"predictions for no question": strangers} if strangers else {})


def response_of(entry: Any, draft: Draft) -> str:
    """A prediction as a response that is read like a policy's. Raises ValueError where nothing is predicted."""
    if not isinstance(entry, Mapping):
        entry = {"span": entry} if isinstance(entry, list | tuple) else {"prediction": entry}
    if "response" in entry:
        return str(entry["response"])
    said = next((entry[name] for name in _ANSWERS if entry.get(name) is not None), None)
    span = entry.get("span")
    if said is None and span is None:
        raise ValueError(f"expected a response, a prediction or a span, got {dict(entry)}")
    parts: list[str] = []
    if said is not None:
        number = whole_number(said) if draft.task in CHOICES else None
        parts.append(str(said) if number is None else letter_at(number, draft))
    if span is not None:
        start, end = (max(float(moment), 0.0) for moment in span)
        parts.append(f"{plain(start)} - {plain(end)}")
    return f"<answer> {' '.join(parts)} </answer>"


def plain(moment: float) -> str:
    """A moment in seconds, all its digits, without an exponent. Raises ValueError where it is no number."""
    if not math.isfinite(moment):
        raise ValueError(f"expected moments in seconds, got {moment}")
    return format(Decimal(repr(moment)), "f")


def letter_at(number: int, draft: Draft) -> str:
    """The letter of the option at a place of the original row, from 0; what names no option where there is none.

    A draft may have joined or dropped options, so a place is looked up by its text.
    """
    original = original_options(json.loads(draft.origin)) or list(draft.options)
    if number >= len(original):
        return f"place {number}"
    wanted = normalise(original[number])
    said = [normalise(option) for option in draft.options]
    bare = normalise(unlettered(original[number]))
    found = next((text for text in (wanted, bare) if text in said), None)
    return f"place {number}" if found is None else LETTERS[said.index(found)]


def original_options(origin: Mapping[str, Any]) -> list[str]:
    """The options of an original row, at the places they had there; none where it names them otherwise."""
    for name in _LISTS:
        if origin.get(name):
            return texts(origin[name])
    for names in _SERIES:
        if all(name in origin for name in names):
            return [str(origin[name]) for name in names]
    return []


def _row(draft: Draft, dataset: str, source: str, entry: Any, file: Path) -> dict[str, Any]:
    try:
        response = None if entry is None else response_of(entry, draft)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}, prediction for {draft.row_id}", str(error), _NEXT) from error
    spans: Sequence[Sequence[float]] = place(draft, None).spans if draft.shares else draft.spans
    return {
        "sample_id": draft.row_id,
        "dataset": dataset,
        "source": source,
        "video_id": draft.video,
        "task": draft.task,
        "options": list(draft.options),
        "answer": draft.answer,
        "spans": [list(span) for span in spans],
        "origin": draft.origin,
        "view": VIEW,
        "duration_s": None,
        "response": response,
        "failure": MISSING if entry is None else "",
    }


def _by_key(file: Path) -> dict[str, Any]:
    content = read_content(file)
    if isinstance(content, list):
        return dict(_listed(file, content))
    if isinstance(content, dict):
        return {str(key): entry for key, entry in content.items()}
    raise UserError(str(file), "expected a JSON object of predictions, or a list of them", _NEXT)


def _listed(file: Path, rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows):
        name = row.get("id", row.get("sample_id")) if isinstance(row, dict) else None
        if name is None:
            raise UserError(f"{file}, entry {number}", "expected an object with an id", _NEXT)
        yield str(name), row
