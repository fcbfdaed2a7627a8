"""ActivityNet Captions: an object keyed by video, with moments and their sentences (arXiv 1705.00754)."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, by_video, first_entry, split_in_name
from pipeline.sources.values import length, shown, spans, text


def fits(content: Any, name: str) -> bool:
    first = first_entry(content)
    return isinstance(first, dict) and {"duration", "timestamps", "sentences"} <= set(first) and "fps" not in first


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a moment: video, its place in the video's list, duration, timestamp, sentence."""
    return [row for video, entry in by_video(content).items() for row in moments(video, entry, "duration")]


def moments(video: Any, entry: Any, *about: str) -> list[Any]:
    """The moments of one video, each with some facts `about` the video. An entry of another form is one row.

    Where timestamps and sentences differ in number, the longer list counts: a row lacks the other part.
    """
    entry = entry if isinstance(entry, dict) else {"entry": entry}
    times, sentences = entry.get("timestamps"), entry.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list):
        return [{"video": video, **entry}]
    facts = {name: entry.get(name) for name in about}
    return [
        {
            "video": video,
            "place": place,
            **facts,
            "timestamp": times[place] if place < len(times) else None,
            "sentence": sentences[place] if place < len(sentences) else None,
        }
        for place in range(max(len(times), len(sentences)))
    ]


def draft(row: Any, number: int) -> Draft:
    """A moment. Two thirds of the sentences begin with a space."""
    if "place" not in row:
        raise Rejected("unexpected entry", f"timestamps and sentences are expected: {shown(row)}")
    video = text(row.get("video"))
    return make_draft(
        row,
        dataset="activitynet",
        row_id=f"{video}/{text(row['place'])}",
        video=video,
        task="grounding",
        question=text(row.get("sentence")),
        spans=spans(row.get("timestamp"))[:1],
        length_s=length(row.get("duration")),
    )


def split(stem: str) -> str | None:
    """val_1 and val_2 are the same videos under two annotators; by custom the first is val and the second test."""
    named = re.fullmatch(r"val_?([12])", stem.lower())
    return {"1": "val", "2": "test"}[named[1]] if named else split_in_name(stem)


SOURCE = Source(
    "activitynet", "ActivityNet Captions, temporal grounding", ("grounding",), fits, draft, rows, split=split
)
