"""Temporal-R1: a yaml that lists json files, each with a sampling strategy and a video folder (arXiv 2506.01908).

The moments are shares of the video's length. A json file of this layout is also read on its own.
"""

import math
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.answers import question_alone
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns, list_of_rows, split_in_name
from pipeline.sources.values import length, shown, spans, text

SEED = 0
"""Of the strategy `random`: the same rows every time."""

_STRATEGY = re.compile(r"(first|end|random):([0-9]{1,12})(%?)|([0-9]{1,3})%")
_QUERY = re.compile(r'[^"“”]*\b(?:query|event|when)\b[^"“”]*["“]([^"“”]+)["”][^"“”]*', re.IGNORECASE)


def fits(content: Any, name: str) -> bool:
    listed = content.get("datasets") if isinstance(content, dict) else None
    found = columns(content)
    return "json_path" in columns(listed) or (
        {"dataset", "video", "problem", "solution"} <= found and "problem_type" not in found
    )


def beside(file: Path, content: Any) -> dict[str, Path]:
    """The json files that a yaml lists: absolute, or relative to its own folder."""
    listed = content.get("datasets") if isinstance(content, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    paths = [entry["json_path"] for entry in entries if isinstance(entry.get("json_path"), str)]
    return {path: file.parent / path for path in paths}


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """The chosen rows of each listed file, with its `data_folder`. Only these count as questions."""
    if isinstance(content, list):
        return content
    listed = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise Rejected("unexpected layout", "a list of rows, or a yaml with `datasets`, is expected")
    return [row for entry in listed for row in _chosen(entry, beside)]


def sample(rows: list[Any], strategy: str) -> list[Any]:
    """The rows that a strategy chooses, in their order; a share counts up to the next whole row.

    Args:
        strategy: all, first:N, end:N, random:N, with N a count or a percentage ("10%"); "10%" alone is first:10%.

    Raises:
        Rejected: another strategy.
    """
    if strategy == "all":
        return rows
    found = _STRATEGY.fullmatch(strategy)
    percent = found is not None and bool(found[3] or found[4])
    number = int(found[2] or found[4]) if found else -1
    if found is None or (percent and number > 100):
        raise Rejected("unexpected layout", f"sampling_strategy is {strategy!r}; all, first:N, end:N, random:N or N%")
    count = min(math.ceil(number * len(rows) / 100) if percent else number, len(rows))
    if found[1] == "end":
        return rows[len(rows) - count :]
    if found[1] == "random":
        return [rows[place] for place in sorted(random.Random(SEED).sample(range(len(rows)), count))]  # noqa: S311 - as they draw
    return rows[:count]


def draft(row: Any, number: int) -> Draft:
    """A row. Its `dataset` names the set it was taken from, often with the split; rows have no ids."""
    folder, video = text(row.get("data_folder")), text(row.get("video"))
    problem = text(row.get("problem"))
    query = _QUERY.fullmatch(problem)
    return make_draft(
        row,
        dataset="temporal-r1",
        row_id=str(number),
        video=f"{folder.rstrip('/')}/{video}" if folder and video else video,
        task="grounding",
        question=query[1].strip() if query else question_alone(problem),
        spans=spans(row.get("solution")),
        split=split_in_name(text(row.get("dataset"))),
        shares=True,
        length_s=length(row.get("video_length")),
    )


def _chosen(entry: Any, beside: Mapping[str, Any]) -> list[Any]:
    path = entry.get("json_path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or path not in beside:
        raise Rejected("unexpected layout", f"an entry names no json_path: {shown(entry)}")
    strategy = entry.get("sampling_strategy", "all")
    if not isinstance(strategy, str):
        raise Rejected("unexpected layout", f"sampling_strategy is {shown(strategy)}; all, first:N, end:N, random:N")
    folder = entry.get("data_folder")
    found = sample(list_of_rows(beside[path], {}), strategy.replace(" ", ""))
    return [{**row, "data_folder": folder} if isinstance(row, dict) and folder else row for row in found]


SOURCE = Source("temporal-r1", "Temporal-R1, temporal grounding", ("grounding",), fits, draft, rows, beside)
