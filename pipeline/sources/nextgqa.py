"""NExT-GQA: NExT-QA questions with the moments that show the answer, joined from a second file (arXiv 2309.01327)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.answers import by_text
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.nextqa import OPTIONS
from pipeline.sources.source import Source, by_video, columns, list_of_rows
from pipeline.sources.values import length, spans, text


def fits(content: Any, name: str) -> bool:
    return {"video_id", "question", "answer", "qid", *OPTIONS} <= columns(content)


def beside(file: Path, content: Any) -> dict[str, Path]:
    """val.csv and gsub_val.json, test.csv and gsub_test.json."""
    return {"gsub": file.with_name(f"gsub_{file.stem}.json")}


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """Each question with its `duration` and `location` from the file of moments."""
    moments = by_video(beside.get("gsub"))
    return [_joined(row, moments) for row in list_of_rows(content, {})]


def draft(row: Any, number: int) -> Draft:
    """A row. The answer is the option's text."""
    video = text(row.get("video_id"))
    options = [text(row.get(column)) for column in OPTIONS]
    return make_draft(
        row,
        dataset="nextgqa",
        row_id=f"{video}/{text(row.get('qid')) or number}",
        video=video,
        task="grounded_choice",
        question=text(row.get("question")),
        options=options,
        answer=by_text(options, text(row.get("answer"))),
        spans=spans(row.get("location")),
        length_s=length(row.get("duration")),
    )


def _joined(row: Any, moments: Mapping[str, Any]) -> Any:
    if not isinstance(row, dict):
        return row
    video, question = row.get("video_id"), row.get("qid")
    about = moments.get(str(video)) if isinstance(video, str | int) else None
    about = about if isinstance(about, dict) else {}
    places = about.get("location")
    location = places.get(str(question)) if isinstance(places, dict) and isinstance(question, str | int) else None
    return {**row, "location": location, "duration": about.get("duration")}


SOURCE = Source(
    "nextgqa",
    "NExT-GQA, grounded multiple choice",
    ("grounded_choice",),
    fits,
    draft,
    rows,
    beside,
    default_split="test",
)
