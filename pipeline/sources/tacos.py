"""TACoS: an object keyed by video, with moments in frame numbers (doi 10.1162/tacl_a_00207)."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.sources.activitynet import moments
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, by_video, first_entry
from pipeline.sources.values import seconds, shown, spans, text


def fits(content: Any, name: str) -> bool:
    first = first_entry(content)
    return isinstance(first, dict) and {"timestamps", "sentences", "fps", "num_frames"} <= set(first)


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a moment: video, its place in the video's list, fps, num_frames, timestamp (frames), sentence."""
    return [row for video, entry in by_video(content).items() for row in moments(video, entry, "fps", "num_frames")]


def draft(row: Any, number: int) -> Draft:
    """A moment. Frame numbers become seconds: number / fps. Ids end in .avi, whatever the files end in."""
    if "place" not in row:
        raise Rejected("unexpected entry", f"timestamps and sentences are expected: {shown(row)}")
    video, fps = text(row.get("video")), seconds(row.get("fps"))
    frames = seconds(row.get("num_frames"))
    if not fps:
        raise Rejected("no frame rate", f"fps is {shown(row.get('fps'))}")
    times = [(start / fps, end / fps) for start, end in spans(row.get("timestamp"))[:1]]
    length = frames / fps if frames else None
    if not all(math.isfinite(time) for time in (*(time for span in times for time in span), length or 0.0)):
        raise Rejected("unreadable frame rate", f"fps is {shown(row.get('fps'))}")
    return make_draft(
        row,
        dataset="tacos",
        row_id=f"{video}/{text(row['place'])}",
        video=video,
        task="grounding",
        question=text(row.get("sentence")),
        spans=times,
        length_s=length,
    )


SOURCE = Source("tacos", "TACoS, temporal grounding", ("grounding",), fits, draft, rows)
