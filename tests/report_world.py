"""A store with a tagged selection made by hand: samples of every task, rollouts with known rewards, verdicts."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import schemas
from pipeline.fingerprint import seed_of
from pipeline.groups import population_variance
from pipeline.rewards import DEFAULT_RULE
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos

THRESHOLDS = {"choice": 0.1, "number": 0.1, "open": 0.01, "grounding": 0.01, "grounded_choice": 0.01}
FACTS = {
    "name": "curated",
    "tag": "v1",
    "fingerprint": "0123456789abcdef",
    "rule": "variance of the reward >= 0.1 (choice, number), >= 0.01 (open, grounding, grounded_choice)",
    "min_var": "0.1",
    "thresholds": json.dumps(THRESHOLDS),
    "options": json.dumps({"max_blind_acc": 0.6, "min_acc": None, "max_acc": None, "exclude": [], "mode": "cut"}),
    "reward": json.dumps(asdict(DEFAULT_RULE)),
    "policy": "rules (0011223344556677)",
    "policy_fingerprint": "0011223344556677",
    "views": "variants",
    "draws": "8",
    "blind_draws": "4",
    "one_frame_draws": "0",
    "drawing": "fixed",
    "drawn_now": "8",
    "temperature": "1",
    "max_tokens": "256",
    "seed": "0",
    "scorers": "test",
    "command": "strive-data select --name curated --views variants",
    "made": "2026-01-02",
}
POLICY = FACTS["policy_fingerprint"]
TASKS = schemas.TASKS
DRAWS, BLIND_DRAWS = 8, 4
VIEWS = BuildVariants(m=4, frames=8)


def rollout(key: str, variant: int, draw: int, task: str, value: float, text: str | None = None) -> dict[str, Any]:
    """A row of the ledger whose reward is `value`, for every task: all the parts that the task has are equal."""
    graded = task in ("grounding", "grounded_choice")
    said = f"<think> draw {draw} </think> <answer> {'B' if value > 0.5 else 'C'} </answer>" if text is None else text
    return {
        "sample_id": key,
        "variant": variant,
        "draw": draw,
        "policy": POLICY,
        "seed": seed_of(key, variant, draw),
        "text": said,
        "tokens": 12,
        "logprob": -3.25,
        "accuracy": None if task == "grounding" else float(value),
        "credit": float(value) if task in ("number", "open") else None,
        "iou": float(value) if graded else None,
        "boundary_iou": float(value) if graded else None,
        "format": 1.0,
        "parse_error": "" if value else "no option",
        "fingerprint": f"{key}{variant}{draw}",
    }


def a_verdict(sample: dict[str, Any], rewards: Sequence[float], blind: Sequence[float], reason: str) -> dict[str, Any]:
    """A row of VERDICTS; nothing was drawn without rewards."""
    row = {name: sample[name] for name in ("sample_id", "source", "dataset", "split", "video_id", "task")}
    row |= {f.name: None for f in schemas.STATISTICS} | {"reason": reason}
    if not rewards:
        return row
    mean = float(np.mean(rewards))
    row |= {"policy": POLICY, "draws": len(rewards), "reward_mean": mean, "reward_var": population_variance(rewards)}
    row |= {"reward_low": max(0.0, mean - 0.2), "reward_high": min(1.0, mean + 0.2), "between_share": 0.25}
    row |= {"format_rate": 1.0, "blind_draws": len(blind), "one_frame_draws": 0, "weight": 1.0}
    return row | {"blind_mean": float(np.mean(blind)) if blind else None}


def a_world(store: Store, samples: int = 30, texts: dict[str, Any] | None = None, facts: Any = None) -> Store:
    """Fill a store: every third sample is kept, every tenth was never drawn; `texts` replaces columns of all samples.

    Returns:
        the store, with the dataset "curated" under the tag "v1".
    """
    videos = [f"v{k}" for k in range(3)]
    add_videos(store, videos)
    rows, rollouts, views, verdicts, kept = [], [], [], [], []
    for k in range(samples):
        task = TASKS[k % len(TASKS)]
        source = ("nextgqa", "charades", "toy")[k % 7 % 3]
        sample = a_sample(f"s{k:04d}", videos[k % 3], task, source=source, question=f"what happens in scene {k}?")
        sample |= texts or {}
        right = 0 if k % 3 == 1 else 8 if k % 3 == 2 else 1 + k % 7
        rewards = [] if k % 10 == 9 else [float(draw < right) for draw in range(DRAWS)]
        blind = [float(draw < k % 4) for draw in range(BLIND_DRAWS)] if rewards else []
        reason = "no rollouts" if not rewards else ("", "all wrong", "all right")[k % 3]
        if not reason and np.mean(blind) > 0.6:
            reason = "answered blind"
        rows.append(sample)
        rollouts += [rollout(sample["sample_id"], d % 4, d, task, value) for d, value in enumerate(rewards)]
        rollouts += [rollout(sample["sample_id"], -1, d, task, value) for d, value in enumerate(blind)]
        peak = np.exp(-((np.arange(FRAMES) / 2 - 4 - k % 3) ** 2))
        drawn = VIEWS.views(sample["sample_id"], task, peak, np.arange(FRAMES) / 2)
        views += [
            v | {"sample_id": sample["sample_id"], "video_id": sample["video_id"], "fingerprint": "v"} for v in drawn
        ]
        verdicts.append(a_verdict(sample, rewards, blind, reason))
        if not reason:
            statistics = {f.name: verdicts[-1][f.name] for f in schemas.STATISTICS}
            kept.append({**sample, **statistics, "variants": drawn, "frames_fingerprint": "f", "fingerprint": f"c{k}"})
    add_samples(store, rows)
    add_scores(store, {row["sample_id"]: np.exp(-((np.arange(FRAMES) / 2 - 4) ** 2)) for row in rows})
    store.append("variants", pa.Table.from_pylist(views, schema=schemas.VARIANTS))
    store.append("rollouts", pa.Table.from_pylist(rollouts, schema=schemas.ROLLOUTS))
    curated = pa.Table.from_pylist(kept, schema=schemas.CURATED)
    store.write_curated(
        "curated", curated, pa.Table.from_pylist(verdicts, schema=schemas.VERDICTS), "v1", facts or FACTS
    )
    return store


def a_pool(pool: int, seed: int = 0) -> pl.DataFrame:
    """A pool with a kept half, some all wrong, some never measured."""
    rng = np.random.default_rng(seed)
    mean = rng.integers(0, 9, pool) / 8
    measured = rng.random(pool) > 0.1
    kept = measured & (mean > 0) & (mean < 1)
    reason = np.where(kept, "", np.where(measured, np.where(mean > 0, "all right", "all wrong"), "no rollouts"))
    return pl.DataFrame(
        {
            "sample_id": [f"s{k:06d}" for k in range(pool)],
            "task": np.array(["choice", "grounding", "open"])[rng.integers(0, 3, pool)],
            "source": np.array([f"source{k}" for k in range(12)])[rng.integers(0, 12, pool)],
            "reason": reason,
            "reward_mean": np.where(measured, mean, np.nan),
            "reward_var": np.where(measured, mean * (1 - mean), np.nan),
            "blind_mean": rng.random(pool),
        }
    ).with_columns(pl.col("reward_mean", "reward_var").fill_nan(None))
