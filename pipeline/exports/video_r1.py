"""Video-R1: a json list; videos lie in a folder Video-R1-data where the trainer runs, rows name them from "./" on."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.exports.common import (
    ANSWER_TAG,
    CLIPS,
    PART_OF_A_VIDEO,
    Format,
    Row,
    Sample,
    Shown,
    answer_tag,
    in_part,
    lettered,
    solution,
)
from pipeline.exports.files import write_json

PROBLEM_TYPES = {"choice": "multiple choice", "number": "numerical", "open": "free-form"}
"""Its rewards know these, and none of them knows spans."""


def refuse(sample: Sample, medium: str) -> str:
    if sample["task"] not in PROBLEM_TYPES:
        return f"no problem_type for {sample['task']}"
    if in_part(sample, medium):
        return PART_OF_A_VIDEO
    return ANSWER_TAG if answer_tag(sample) else ""


def row(sample: Sample, shown: Shown) -> Row:
    return {
        "problem_id": sample["sample_id"],
        "problem": sample["question"],
        "data_type": "video",
        "problem_type": PROBLEM_TYPES[sample["task"]],
        "options": lettered(sample["options"]),
        "process": "",
        "solution": solution(sample),
        "path": f"./{shown.video}",
        "data_source": sample["dataset"],
    }


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_json(folder / "train.json", rows)


def usage(root: Path, medium: str) -> str:
    return f"ln -s {root} Video-R1-data, where the trainer runs, and --dataset_name ./Video-R1-data/train.json"


FORMAT = Format("video-r1", "Video-R1", (CLIPS,), refuse, row, write, usage, "train.json", links=True)
