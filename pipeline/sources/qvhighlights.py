"""QVHighlights: jsonl, several moments a query; the test file has none (arXiv 2107.09609)."""

from typing import Any

from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import length, spans, text


def fits(content: Any, name: str) -> bool:
    return {"qid", "query", "vid", "duration"} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row. `vid` is a file of its own: a cut of 150 s, its place in the long video is part of the name."""
    return make_draft(
        row,
        dataset="qvhighlights",
        row_id=text(row.get("qid")) or str(number),
        video=text(row.get("vid")),
        task="grounding",
        question=text(row.get("query")),
        spans=spans(row.get("relevant_windows")),
        length_s=length(row.get("duration")),
    )


SOURCE = Source("qvhighlights", "QVHighlights, grounding with several moments", ("grounding",), fits, draft)
