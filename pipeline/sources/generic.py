"""The user's own files: columns of our names, or a mapping {our field: their column}."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import UserError
from pipeline.schemas import TASKS
from pipeline.sources.answers import by_place
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source
from pipeline.sources.values import Span, length, spans, text, texts

FIELDS = ("id", "video", "question", "options", "answer", "answer_index", "spans", "task", "split", "duration")
"""What a column mapping may name."""


def fits(content: Any, name: str) -> bool:
    return isinstance(content, list)


def draft(row: Any, number: int, mapping: Mapping[str, str] | None = None) -> Draft:
    """A row of the user's own layout.

    Args:
        mapping: {our field: their column}; a field that is not named is the column of the same name. `options` may name
            several columns, separated by commas. `answer_index` counts options from 0.
    """
    column = {name: (mapping or {}).get(name, name) for name in FIELDS}
    value = {name: row.get(column[name]) for name in FIELDS}
    if "," in column["options"]:
        options = [text(row.get(name)) for name in column["options"].split(",")]
    else:
        options = texts(value["options"])
    moments, answer = spans(value["spans"]), text(value["answer"])
    if text(value["answer_index"]):
        answer = by_place(options, value["answer_index"])
    return make_draft(
        row,
        dataset="generic",
        row_id=text(value["id"]) or str(number),
        video=text(value["video"]),
        task=text(value["task"]) or _guess_task(options, answer, moments),
        question=text(value["question"]),
        options=options,
        answer=answer,
        spans=moments,
        split=text(value["split"]) or None,
        length_s=length(value["duration"]),
    )


def mapped(mapping: Mapping[str, str], rows: Sequence[Any]) -> Source:
    """The generic source under a column mapping.

    Raises:
        UserError: an unknown field, or a column that no row has.
    """
    known = {column for row in rows if isinstance(row, dict) for column in row}
    for ours, theirs in mapping.items():
        if ours not in FIELDS:
            raise UserError(f"--map {ours}={theirs}", f"the fields are {', '.join(FIELDS)}", "name one of them")
        for column in theirs.split(","):
            if column not in known:
                listed = ", ".join(sorted(map(str, known)))
                raise UserError(f"--map {ours}={theirs}", f"the columns are {listed}", "name one of them")
    return replace(SOURCE, draft=partial(draft, mapping=mapping))


def _guess_task(options: list[str], answer: str, moments: Sequence[Span]) -> str:
    if any(options):
        return "grounded_choice" if moments and answer else "choice"
    if moments and not answer:
        return "grounding"
    try:
        float(answer)
    except ValueError:
        return "open"
    return "number"


SOURCE = Source("generic", "your own json, jsonl, csv or parquet", TASKS, fits, draft, paths_count=True)
