"""ms-swift: jsonl with `messages`, a tag for each image or video, and their paths; `solution` reaches the rewards."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.exports.common import (
    CLIPS,
    FRAMES,
    Format,
    Row,
    Sample,
    Shown,
    refuse_one_answer,
    solution,
    tagged_messages,
)
from pipeline.exports.files import write_jsonl


def row(sample: Sample, shown: Shown) -> Row:
    """Frames are images behind their times: a list of frames as a video would be taken as evenly spaced."""
    if shown.view is None:
        media: Row = {"videos": [shown.video]}
    else:
        media = {"images": [str(shown.root / name) for name in shown.frames], "times": list(shown.times)}
    return {
        "messages": tagged_messages(sample, shown),
        **media,
        "solution": solution(sample),
        **{name: sample[name] for name in ("task", "options", "answer", "spans", "sample_id")},
    }


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_jsonl(folder / "train.jsonl", rows)


def usage(root: Path, medium: str) -> str:
    return f"swift rlhf --rlhf_type grpo --dataset {root / 'train.jsonl'}; its paths are absolute"


FORMAT = Format("ms-swift", "ms-swift", (CLIPS, FRAMES), refuse_one_answer, row, write, usage, "train.jsonl")
