"""Time-R1: its training file and its benchmark TVGBench, both temporal grounding (arXiv 2503.13377)."""

from typing import Any

from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import length, part, shown, spans, text


def fits(content: Any, name: str) -> bool:
    return {"video", "timestamp", "sentence", "duration"} <= columns(content)


def draft(row: Any, number: int) -> Draft:
    """A row of the training file. Some are about a cut of a longer video, which may be a file of its own."""
    return make_draft(
        row,
        dataset="time-r1",
        row_id=text(row.get("qid")) or str(number),
        video=text(row.get("video")),
        task="grounding",
        question=text(row.get("sentence")),
        spans=spans(row.get("timestamp")),
        length_s=length(row.get("duration")),
        cut=part(row.get("video_start"), row.get("video_end")),
    )


def fits_tvgbench(content: Any, name: str) -> bool:
    return {"path", "question", "answer", "duration", "question_type", "qsemtype"} <= columns(content)


def draft_tvgbench(row: Any, number: int) -> Draft:
    """A row of TVGBench; the moment is the text "start-end". Rows have no id, and one question
    is asked twice about one video, with two answers."""
    moment = spans(row.get("answer"))
    if len(moment) > 1:
        raise Rejected("unreadable span", f"answer is {shown(row.get('answer'))}")
    return make_draft(
        row,
        dataset="tvgbench",
        row_id=str(number),
        video=text(row.get("path")),
        task="grounding",
        question=text(row.get("question")),
        spans=moment,
        length_s=length(row.get("duration")),
        cut=part(row.get("start"), row.get("end")),
    )


SOURCE = Source("time-r1", "Time-R1 training data, temporal grounding", ("grounding",), fits, draft)
TVGBENCH = Source(
    "tvgbench", "TVGBench, temporal grounding", ("grounding",), fits_tvgbench, draft_tvgbench, default_split="test"
)
