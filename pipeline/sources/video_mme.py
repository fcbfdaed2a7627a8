"""Video-MME: parquet with a row a question, or json with the questions below each video (arXiv 2405.21075)."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.sources.answers import question_alone
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, columns, list_of_rows
from pipeline.sources.values import text, texts

_YOUTUBE = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")


def fits(content: Any, name: str) -> bool:
    found = columns(content)
    if "questions" in found:
        return isinstance(content[0]["questions"], list) and bool({"videoID", "video_id", "url"} & found)
    return {"videoID", "question_id", "question", "answer"} <= found and bool({"options", "choices"} & found)


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a question, with the facts about its video."""
    return [row for entry in list_of_rows(content, {}) for row in _questions(entry)]


def draft(row: Any, number: int) -> Draft:
    """A row. `duration` is a class, not a length: short, medium or long."""
    options = row.get("choices") if row.get("options") is None else row.get("options")
    return make_draft(
        row,
        dataset="video-mme",
        row_id=text(row.get("question_id")) or str(number),
        video=_video(row),
        task="choice",
        question=question_alone(text(row.get("question"))),
        options=texts(options),
        answer=text(row.get("answer")),
    )


def _questions(entry: Any) -> list[Any]:
    asked = entry.get("questions") if isinstance(entry, dict) else None
    if not isinstance(asked, list):
        return [entry]
    about = {name: value for name, value in entry.items() if name != "questions"}
    return [{**about, **(item if isinstance(item, dict) else {"entry": item})} for item in asked]


def _video(row: Mapping[str, Any]) -> str:
    """The YouTube id, which names the file: `videoID`, or from the address; `video_id` alone is a running number."""
    address = _YOUTUBE.search(text(row.get("url")))
    return text(row.get("videoID")) or (address[1] if address else text(row.get("video_id")))


SOURCE = Source("video-mme", "Video-MME, multiple choice", ("choice",), fits, draft, rows, default_split="test")
