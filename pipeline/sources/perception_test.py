"""Perception Test, multiple choice: parquet with a row a question, or json keyed by video (arXiv 2305.13786)."""

from collections.abc import Mapping
from typing import Any

from pipeline.sources.answers import by_place, question_alone
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, by_video, columns, first_entry, split_in_name
from pipeline.sources.values import seconds, shown, text, texts


def fits(content: Any, name: str) -> bool:
    first = first_entry(content)
    keyed = isinstance(first, dict) and "mc_question" in first
    return keyed or {"video_name", "question", "options", "area", "reasoning", "tag"} <= columns(content)


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a question; below a video, its `metadata` goes with each."""
    if isinstance(content, list):
        return content
    return [row for video, entry in by_video(content).items() for row in _questions(video, entry)]


def draft(row: Any, number: int) -> Draft:
    """A row; the answer is a place. Question ids count anew in each video."""
    if "entry" in row:
        raise Rejected("unexpected entry", f"mc_question is expected: {shown(row['entry'])}")
    video, options = text(row.get("video_name")), texts(row.get("options"))
    identity = text(row.get("question_id")) or text(row.get("id")) or str(number)
    metadata = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    return make_draft(
        row,
        dataset="perception-test",
        row_id=f"{video}/{identity}",
        video=video,
        task="choice",
        question=question_alone(text(row.get("question"))),
        options=options,
        answer=by_place(options, row.get("answer_id")),
        split=split_in_name(text(metadata.get("split"))),
        length_s=_length(metadata),
    )


def _questions(video: str, entry: Any) -> list[Any]:
    asked = entry.get("mc_question") if isinstance(entry, dict) else None
    if not isinstance(asked, list):
        return [{"video_name": video, "entry": entry}]
    about = {"video_name": video, "metadata": entry.get("metadata")}
    return [{**about, **item} if isinstance(item, dict) else {**about, "entry": item} for item in asked]


def _length(metadata: Mapping[str, Any]) -> float | None:
    frames, rate = seconds(metadata.get("num_frames")), seconds(metadata.get("frame_rate"))
    length = frames / rate if frames and rate else None
    return length if length and length < float("inf") else None


SOURCE = Source(
    "perception-test", "Perception Test, multiple choice", ("choice",), fits, draft, rows, default_split="val"
)
