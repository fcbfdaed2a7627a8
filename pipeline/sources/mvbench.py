"""MVBench: twenty tasks, a json file each; the answer is an option's text (arXiv 2311.17005)."""

from typing import Any

from pipeline.sources.answers import by_text, question_alone
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import part, text, texts


def fits(content: Any, name: str) -> bool:
    return {"video", "question", "candidates", "answer"} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row. Some tasks are about a part of the video: `start` and `end`, in seconds. Rows have no ids."""
    options = texts(row.get("candidates"))
    return make_draft(
        row,
        dataset="mvbench",
        row_id=str(number),
        video=text(row.get("video")),
        task="choice",
        question=question_alone(text(row.get("question"))),
        options=options,
        answer=by_text(options, text(row.get("answer"))),
        cut=part(row.get("start"), row.get("end")),
    )


SOURCE = Source("mvbench", "MVBench, multiple choice", ("choice",), fits, draft, default_split="test")
