"""Rows of tables that a test fills."""

import pyarrow as pa

from pipeline.schemas import CURATED, FRAMES
from tests.curation_world import statistics


def frames(video: str, n: int, fingerprint: str = "f", start: int = 0) -> pa.Table:
    rows = [
        {
            "video_id": video,
            "index": i,
            "time_s": i / 2,
            "height": 1,
            "width": 1,
            "codec": "raw",
            "checksum": 0,
            "backend": "decord",
            "pixels": f"{video}{i}".encode(),
            "fingerprint": fingerprint,
        }
        for i in range(start, start + n)
    ]
    return pa.Table.from_pylist(rows, schema=FRAMES)


def curated(names: list[str], question: str = "why?", views: int = 2) -> pa.Table:
    view = {
        "kind": "anchor",
        "indices": [1, 2],
        "times": [0.5, 1.0],
        "crop": [0.0, 0.0, 1.0, 1.0],
        "scale": 1.0,
        "seed": 1,
        "coverage": 0.5,
    }
    rows = [
        {
            "sample_id": name,
            "source": "s",
            "split": "train",
            "video_id": "v",
            "task": "choice",
            "question": question,
            "options": ["a", "b"],
            "answer": "A",
            "spans": [[0.0, 1.5], [2.0, 2.5]],
            "variants": [{"variant": i, **view} for i in range(views)],
            "frames_fingerprint": "f",
            "fingerprint": "x",
            **statistics(),
        }
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=CURATED)
