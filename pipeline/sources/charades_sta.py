"""Charades-STA: one line a moment, "VIDEO start end##sentence" (arXiv 1705.02101)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns, list_of_rows, split_in_name
from pipeline.sources.values import length, seconds, shown, text

_LINE = re.compile(r"\s*(\S+)\s+(\S+)\s+(\S+?)\s*##(.*)", re.DOTALL)


def fits(content: Any, name: str) -> bool:
    return bool(content) and isinstance(content, list) and isinstance(content[0], str) and "##" in content[0]


def beside(file: Path, content: Any) -> dict[str, Path]:
    """Charades' own table of the split holds the lengths of the videos; without it they come from the videos."""
    table = file.with_name(f"Charades_v1_{split_in_name(file.stem) or 'train'}.csv")
    return {"lengths": table} if table.is_file() else {}


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """Each line with its number's video, moment and sentence, and with the video's length where the table names it."""
    table = beside.get("lengths", [])
    named = {"id", "length"} <= columns(table)
    lengths = {str(row.get("id")): row.get("length") for row in table if isinstance(row, dict)} if named else {}
    lines = list_of_rows(content, {})
    found = [(line, _LINE.fullmatch(line) if isinstance(line, str) else None) for line in lines]
    return [
        {"video": m[1], "start": m[2], "end": m[3], "sentence": m[4], "length": lengths.get(m[1])}
        if m
        else {"line": line}
        for line, m in found
    ]


def draft(row: Any, number: int) -> Draft:
    """A line; its id is its number, for lines may repeat."""
    if "line" in row:
        raise Rejected("unreadable line", f"VIDEO start end##sentence is expected: {shown(row['line'])}")
    start, end = seconds(row.get("start")), seconds(row.get("end"))
    return make_draft(
        row,
        dataset="charades-sta",
        row_id=str(number),
        video=text(row.get("video")),
        task="grounding",
        question=text(row.get("sentence")),
        spans=[(start, end)] if start is not None and end is not None else [],
        length_s=length(row.get("length")),
    )


SOURCE = Source("charades-sta", "Charades-STA, temporal grounding", ("grounding",), fits, draft, rows, beside)
