"""A small store of toy-world scenes, made without video files: what the trainer's tests stream from."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.checksum import checksum
from pipeline.samplers import uniform
from pipeline.store import Store
from tests.curation_world import statistics, write_tag
from toyworld.questions import ask
from toyworld.scenes import render, scene_of

CACHED = 48  # frames of a clip in the cache, 4 a second
VARIANTS = 4


def a_store(folder: Path, clips: int = 4, name: str = "toy") -> Store:
    """Frames of `clips` scenes and a curated dataset with three questions on each, four views a question."""
    store = Store(folder, create=True)
    frames, rows = [], []
    for clip in range(clips):
        scene, video = scene_of(0, "tests", clip), f"video{clip}"
        for index, pixels in enumerate(render(scene, list(range(0, 2 * CACHED, 2)))):
            data = pixels.tobytes()
            frame = {"video_id": video, "index": index, "time_s": index / 4, "height": 96, "width": 96, "codec": "raw"}
            frames.append(frame | {"checksum": checksum(data), "backend": "test", "pixels": data, "fingerprint": video})
        questions = ask(scene, np.random.default_rng(clip))
        for k in (0, 5, 6):  # a colour (choice), a count (number), a time (grounding)
            q = questions[k]
            rows.append(
                {
                    "sample_id": f"s{clip}{k}",
                    "source": "toy",
                    "dataset": "toy",
                    "split": "train",
                    "video_id": video,
                    "task": q.task,
                    "question": q.question,
                    "options": list(q.options),
                    "answer": q.answer,
                    "spans": [list(s) for s in q.spans],
                    "clip": [],
                    "variants": [variant(v, clip) for v in range(VARIANTS)],
                    "frames_fingerprint": video,
                    "fingerprint": f"{clip}{k}",
                }
                | statistics()
            )
    store.append("frames", pa.Table.from_pylist(frames, schema=schemas.FRAMES))
    curate(store, name, rows)
    return store


def curate(store: Store, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a curated dataset as it is, under the tag v1; columns that it does not have are left out."""
    columns = [{column: row[column] for column in schemas.CURATED.names} for row in rows]
    write_tag(store, name, pa.Table.from_pylist(columns, schema=schemas.CURATED))


def variant(number: int, clip: int) -> dict[str, object]:
    """The anchor, or a random view with a centred crop."""
    indices = uniform(CACHED, 8)
    if number:
        indices = sorted(np.random.default_rng([number, clip]).choice(CACHED, 8, replace=False).tolist())
    crop = [0.0, 0.0, 1.0, 1.0] if number < 3 else [0.05, 0.05, 0.95, 0.95]
    return {
        "variant": number,
        "kind": "importance" if number else "anchor",
        "indices": indices,
        "times": [i / 4 for i in indices],
        "crop": crop,
        "scale": 1.0,
        "overlap": 0.0,
        "seed": number,
        "coverage": 0.2,
    }
