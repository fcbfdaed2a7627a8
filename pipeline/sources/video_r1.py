"""Video-R1 layout: its training files, and its evaluation files for six benchmarks (arXiv 2503.21776)."""

import re
from typing import Any

from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import shown, text, texts, untagged

PROBLEM_TYPES = {
    "multiple choice": "choice",
    "numerical": "number",
    "regression": "number",
    "ocr": "open",
    "free-form": "open",
}
_BENCHMARK = re.compile(r"eval[_-](\w+)")


def fits(content: Any, name: str) -> bool:
    return {"problem", "problem_type", "solution"} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row; image rows of the mixed set are rejected."""
    if text(row.get("data_type")) not in ("", "video"):
        raise Rejected("not a video row", f"data_type is {shown(row['data_type'])}")
    kind = text(row.get("problem_type")).lower()
    if kind not in PROBLEM_TYPES:
        raise Rejected("unknown problem_type", f"problem_type is {shown(row.get('problem_type'))}")
    task = PROBLEM_TYPES[kind]
    return make_draft(
        row,
        dataset="video-r1",
        row_id=text(row.get("problem_id")) or str(number),
        video=text(row.get("path")) or text(row.get("video")),
        task=task,
        question=text(row.get("problem")),
        options=texts(row.get("options")) if task == "choice" else [],
        answer=untagged(text(row.get("solution"))),
    )


def dataset(stem: str) -> str | None:
    """The evaluation files are one a benchmark, eval_<benchmark>.json."""
    found = _BENCHMARK.fullmatch(stem.lower())
    return found[1] if found else None


SOURCE = Source(
    "video-r1",
    "Video-R1 training and evaluation files",
    ("choice", "number", "open"),
    fits,
    draft,
    dataset=dataset,
    paths_count=True,
)
