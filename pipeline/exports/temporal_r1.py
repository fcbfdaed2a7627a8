"""Temporal-R1: a yaml that lists one json file a dataset, each with the folder of its videos. Temporal grounding only.

A span is a pair of shares of the video's length, and the reward reads the answer as JSON.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from pipeline.exports.common import (
    CLIPS,
    PART_OF_A_VIDEO,
    SEVERAL_SPANS,
    Format,
    LeftOut,
    Row,
    Sample,
    Shown,
    in_part,
    many_spans,
    safe_name,
)
from pipeline.exports.files import write_json


def refuse(sample: Sample, medium: str) -> str:
    if sample["task"] != "grounding":
        return f"no place for {sample['task']}"
    if many_spans(sample):
        return SEVERAL_SPANS
    return PART_OF_A_VIDEO if in_part(sample, medium) else ""


def problem(question: str) -> str:
    """The question with what the reward expects of an answer.

    It holds no other quotation marks than those around the question: they tell where it begins and ends.
    """
    return (
        f'When does the event "{question}" happen in the video? Answer with one JSON object of the keys start_time '
        "and end_time; each value is a number of seconds, written in quotation marks."
    )


def row(sample: Sample, shown: Shown) -> Row:
    """The row. Raises LeftOut: the video has no length to take shares of."""
    length = shown.duration_s
    if not length:
        raise LeftOut("no video length")
    return {
        "dataset": f"{sample['dataset']}_{sample['split']}",
        "video": Path(shown.video).name,
        "problem": problem(sample["question"]),
        "solution": [min(float(moment) / length, 1.0) for moment in sample["spans"][0]],
        "video_length": length,
        "sample_id": sample["sample_id"],
    }


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    """One json file a dataset: the trainer takes a file's video folder by the dataset of the file's first row."""
    by_dataset: dict[str, list[Row]] = {}
    for entry in rows:
        by_dataset.setdefault(entry["dataset"], []).append(entry)
    listed = []
    (folder / "data").mkdir()
    for dataset, entries in sorted(by_dataset.items()):
        name = f"data/{safe_name(dataset)}.json"
        write_json(folder / name, entries)
        listed.append({"json_path": str(root / name), "data_folder": str(root / "videos"), "sampling_strategy": "all"})
    (folder / "train.yaml").write_text(yaml.safe_dump({"datasets": listed}, sort_keys=False), encoding="utf-8")


def usage(root: Path, medium: str) -> str:
    return f"data.train_files={root / 'train.yaml'}; its paths are absolute, so the folder stays where it is"


FORMAT = Format("temporal-r1", "Temporal-R1", (CLIPS,), refuse, row, write, usage, "data/*.json", links=True)
