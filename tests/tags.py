"""Tags of a curated dataset made by hand: verdicts, curated rows and facts as a selection would write them."""

import json
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import schemas
from pipeline.store import Store
from tests.curation_world import a_sample, add_samples

TASKS = ("choice", "grounding")


def facts(**changes: str) -> dict[str, str]:
    """What a store remembers of a tag."""
    found = {
        "name": "d",
        "tag": "first",
        "fingerprint": "0123456789abcdef",
        "rule": "variance of the reward >= 0.1 (choice), >= 0.01 (grounding)",
        "min_var": "0.1",
        "thresholds": json.dumps({"choice": 0.1, "grounding": 0.01}),
        "options": json.dumps({"max_blind_acc": 0.5, "min_acc": None, "exclude": ["leaks"], "mode": "cut"}),
        "reward": json.dumps({"accuracy": 1.0, "number": "exact"}),
        "policy": "rules (abc)",
        "policy_fingerprint": "abc",
        "views": "anchor",
        "draws": "8",
        "drawing": "fixed",
        "drawn_now": "0",
        "temperature": "1",
        "max_tokens": "256",
        "seed": "0",
        "scorers": "test",
        "command": "strive-data select",
        "made": "2025-01-01",
    }
    return found | changes


def verdicts(count: int, seed: int = 0, min_var: float = 0.1) -> pl.DataFrame:
    """A pool of `count` samples in two sources, judged; one in ten was never drawn, every other was asked blind."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 9, count)
    mean = right / 8
    var = mean * (1 - mean)
    drawn, blind = np.arange(count) % 10 != 9, np.arange(count) % 2 == 0
    dead = np.where(right == 0, "all wrong", "all right")
    reason = np.where(var >= min_var, "", np.where(var == 0, dead, "below threshold"))

    def known(values: Any, where: Any = True) -> list[Any]:
        return [value if ok else None for value, ok in zip(np.asarray(values).tolist(), drawn & where, strict=True)]

    columns: dict[str, Any] = {
        "sample_id": [f"s{i:07d}" for i in range(count)],
        "source": [f"source{i % 2}" for i in range(count)],
        "dataset": ["nextgqa" if i % 2 else "toyworld" for i in range(count)],
        "split": ["train"] * count,
        "video_id": [f"v{i // 4:07d}" for i in range(count)],
        "task": [TASKS[i % 3 == 0] for i in range(count)],
        "reason": np.where(drawn, reason, "no frames").tolist(),
        "policy": known(["abc"] * count),
        "draws": np.where(drawn, 8, 0).tolist(),
        "reward_mean": known(mean),
        "reward_low": known(mean / 2),
        "reward_high": known((1 + mean) / 2),
        "reward_var": known(var),
        "between_share": [None] * count,
        "format_rate": known(np.full(count, 0.75)),
        "blind_draws": np.where(drawn & blind, 4, 0).tolist(),
        "blind_mean": known(mean / 2, blind),
        "one_frame_draws": [0] * count,
        "one_frame_mean": [None] * count,
        "weight": [1.0] * count,
    }
    return pl.DataFrame(pl.from_arrow(pa.table(columns).cast(schemas.VERDICTS)))


def curated(judged: pl.DataFrame, views: int = 2) -> pa.Table:
    """The curated rows of what the verdicts keep, each with so many views."""
    view = {"variant": 0, "kind": "anchor", "indices": [0, 1], "times": [0.0, 0.5], "crop": [0.0, 0.0, 1.0, 1.0]}
    view |= {"scale": 1.0, "seed": 0, "coverage": 0.5, "overlap": 0.0}
    nested = [view | {"variant": i, "kind": "importance" if i else "anchor"} for i in range(views)]
    rows = []
    for row in judged.filter(pl.col("reason") == "").to_dicts():
        sample = a_sample(row["sample_id"], row["video_id"], row["task"], source=row["source"], dataset=row["dataset"])
        more = {"variants": nested, "frames_fingerprint": row["video_id"], "fingerprint": row["sample_id"]}
        rows.append(sample | row | more)
    return pa.Table.from_pylist(rows, schema=schemas.CURATED)


def add_pool(store: Store, judged: pl.DataFrame) -> None:
    """The samples that the verdicts are about."""
    columns = judged.select("sample_id", "video_id", "task", "source", "dataset").rows()
    add_samples(store, [a_sample(*row[:3], source=row[3], dataset=row[4]) for row in columns])


def add_tag(store: Store, judged: pl.DataFrame, tag: str, name: str = "d", **changes: str) -> None:
    """Write a tag of a curated dataset."""
    about = facts(name=name, tag=tag, **changes)
    store.write_curated(name, curated(judged), judged.to_arrow(), tag, about)
