"""NExT-QA: multiple choice with five options, the answer given by its place (arXiv 2105.08276)."""

from typing import Any

from pipeline.sources.answers import by_place
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import text

OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def fits(content: Any, name: str) -> bool:
    return {"video", "question", "answer", "qid", *OPTIONS} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row. Question ids repeat across videos: the row's id is video and qid."""
    video = text(row.get("video"))
    options = [text(row.get(column)) for column in OPTIONS]
    return make_draft(
        row,
        dataset="nextqa",
        row_id=f"{video}/{text(row.get('qid')) or number}",
        video=video,
        task="choice",
        question=text(row.get("question")),
        options=options,
        answer=by_place(options, row.get("answer")),
    )


SOURCE = Source("nextqa", "NExT-QA, multiple choice", ("choice",), fits, draft)
