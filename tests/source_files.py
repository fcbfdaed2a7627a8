"""Example files of annotation formats: written to disk, read back, and told in brief."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import sources
from pipeline.sources import Draft, Rejected

Brief = str | tuple[Any, ...]
"""A rejection's reason, or a draft's (row_id, video, task, question, options, answer, spans)."""


@dataclass(frozen=True)
class Example:
    """A file of a format, what lies beside it by file name, and what its rows become."""

    source: str
    file: str
    content: Any
    briefs: list[Brief]
    beside: dict[str, Any] = field(default_factory=dict)


def write(path: Path, content: Any) -> Path:
    """A file of the kind that its ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(content[0]))
            table.writeheader()
            table.writerows(content)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in content) + "\n", encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join(content) + "\n", encoding="utf-8")
    else:
        dump = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
        path.write_text(dump(content), encoding="utf-8")
    return path


def read(example: Example, folder: Path) -> tuple[sources.Source, list[Draft | Rejected]]:
    for name, content in example.beside.items():
        write(folder / name, content)
    source, rows = sources.read(write(folder / example.file, example.content))
    return source, source.drafts(rows)


def brief(outcome: Draft | Rejected) -> Brief:
    if isinstance(outcome, Rejected):
        return outcome.reason
    o = outcome
    return (o.row_id, o.video, o.task, o.question, o.options, o.answer, o.spans)


def rows_of(source: sources.Source, content: Any, beside: dict[str, Any]) -> Any:
    """The rows of a content, or why it has none."""
    try:
        return source.rows(content, beside)
    except Rejected as rejection:
        return rejection.reason
