"""VSI-Bench: space seen in indoor videos, choices and numbers mixed (arXiv 2412.14171)."""

from typing import Any

from pipeline.sources.answers import question_alone
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import text, texts


def fits(content: Any, name: str) -> bool:
    return {"dataset", "scene_name", "question_type", "question", "ground_truth"} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row: a number where it has no options. `question_type`, by which results are grouped, stays in the origin."""
    options = texts(row.get("options"))
    dataset, scene = text(row.get("dataset")), text(row.get("scene_name"))
    return make_draft(
        row,
        dataset="vsi-bench",
        row_id=text(row.get("id")) or str(number),
        video=f"{dataset}/{scene}" if dataset and scene else "",
        task="choice" if any(options) else "number",
        question=question_alone(text(row.get("question"))),
        options=options,
        answer=text(row.get("ground_truth")),
    )


SOURCE = Source("vsi-bench", "VSI-Bench, choices and numbers", ("choice", "number"), fits, draft, default_split="test")
