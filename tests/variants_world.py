"""A store whose samples wait for their views, and the views that are there."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.schemas import TASKS
from pipeline.store import Store
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos

TIMES = np.arange(FRAMES) / 2


PEAK = np.exp(-((np.arange(FRAMES) - 13) ** 2) / 4)


def a_store(path: Path) -> Store:
    store = Store(path, create=True)
    add_videos(store, ["v1", "v2"])
    add_videos(store, ["short"], frames=5)
    samples = [a_sample(f"{video}-{task}", video, task) for video in ("v1", "v2", "short") for task in TASKS]
    for row in samples:
        if row["video_id"] == "short" and row["spans"]:
            row["spans"] = [[1.0, 2.0]]
    add_samples(store, [*samples, a_sample("gone", "quarantined"), a_sample("flat", "v1")])
    scores = {row["sample_id"]: PEAK[: 5 if row["video_id"] == "short" else FRAMES] for row in samples}
    add_scores(store, {**scores, "gone": PEAK, "flat": np.full(FRAMES, 0.2)})
    return store


def variants_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in store.table("variants").sort_by("variant").to_pylist():
        grouped.setdefault(row["sample_id"], []).append(row)
    return grouped
