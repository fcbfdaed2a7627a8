"""A small store with a curated dataset of every task, for the tests of exports, and what they all ask of one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schemas
from pipeline.exports.export import ExportReport, export
from pipeline.fingerprint import fingerprint
from pipeline.store import Store
from tests.curation_world import a_sample, add_videos

LENGTH_S = 12.0
TASKS = {"c": "choice", "g": "grounding", "gc": "grounded_choice", "n": "number", "o": "open"}


def a_view(number: int, kind: str, indices: list[int]) -> dict[str, Any]:
    view = {"variant": number, "kind": kind, "indices": indices, "times": [i / 2 for i in indices], "scale": 1.0}
    return view | {"crop": [0.0, 0.0, 1.0, 1.0], "seed": number, "coverage": 0.2, "overlap": 0.0}


def curated_row(key: str, video: str = "v1", task: str = "choice", **columns: Any) -> dict[str, Any]:
    """A row of `curated` with an anchor and one importance view; other columns as given."""
    row: dict[str, Any] = dict.fromkeys(schemas.CURATED.names)
    row |= {name: value for name, value in a_sample(key, video, task).items() if name != "origin"}
    row |= {"variants": [a_view(0, "anchor", [2, 10, 18]), a_view(1, "importance", [6, 7, 9])], "policy": "p"}
    row |= {"frames_fingerprint": fingerprint(video, "2 fps"), "draws": 8, "reward_mean": 0.5, "reward_low": 0.2}
    row |= {"reward_high": 0.8, "reward_var": 0.25, "format_rate": 1.0, "blind_draws": 0, "one_frame_draws": 0}
    return row | {"weight": 1.0} | columns


def all_tasks() -> list[dict[str, Any]]:
    return [curated_row(key, task=task) for key, task in TASKS.items()]


def a_store(folder: Path, *rows: dict[str, Any], tag: str = "v1") -> Store:
    """One video of 24 cached frames, its file, and a curated dataset of these rows; a second call adds a version."""
    store = Store(folder / "s", create=True)
    if not store.count("frames"):
        add_videos(store, ["v1"])
        clip = folder / "clips" / "AB 1.mp4"
        clip.parent.mkdir()
        clip.write_bytes(b"a video file")
        add_file(store, clip, LENGTH_S)
    pool = [{name: row[name] for name in schemas.VERDICTS.names[:6]} | {"reason": ""} for row in rows]
    store.write_curated(
        "default",
        pa.Table.from_pylist(list(rows), schema=schemas.CURATED),
        pa.Table.from_pylist(pool, schema=schemas.VERDICTS),
        tag,
        {"name": "default", "tag": tag, "fingerprint": "abc"},
    )
    return store


def add_file(store: Store, clip: Path, length_s: float) -> None:
    """The file of the store's video."""
    row = {"video_id": "v1", "path": str(clip), "duration_s": length_s, "fingerprint": "f"}
    store.append("videos", pa.Table.from_pylist([row], schema=schemas.VIDEOS))


def run(store: Store, format: str, out: Path, **options: Any) -> ExportReport:
    return export(store, "default", format, out, **options)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
