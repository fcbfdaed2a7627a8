"""Runs and predictions as the trainer leaves them behind, made without training: what the tests of their page show."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.framereader import FrameReader
from pipeline.store import Store

PHASES = {"stream": 0.02, "prompts": 0.1, "vision": 0.4, "rollout": 3.0, "reward": 0.05, "update": 2.0}
PROVENANCE = {"git": {"commit": "abc123", "changed": False}, "versions": {"torch": "2.11"}}


def rows_of(steps: int, seed: int, spikes: float = 1.0, rollouts: int = 64) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that look like a run's; every ninth step has no live pool."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, steps + 1):
        dead = step % 9 == 0
        reward = 0.3 + 0.4 * (1 - math.exp(-step / 60)) + 0.05 * rng.normal()
        row: dict[str, Any] = {
            "step": step,
            "reward_mean": reward,
            "reward_std": 0.0 if dead else 0.1 + 0.2 * rng.random(),
            "dead_group_share": 1.0 if dead else float(rng.integers(0, 7)) / 8,
            "between_share": None if dead else float(rng.random()),
            "loss": None if dead else float(0.01 * rng.normal()),
            "clip_fraction": None if dead else 0.01,
            "approx_kl": None if dead else 0.001,
            "grad_norm": None if dead else float(np.exp(rng.normal()) * spikes ** float(rng.random() > 0.9)),
            "rollouts": rollouts,
            "tokens": int(rollouts * (80 + 20 * rng.random())),
            "seconds": {name: value * (1 + 0.3 * float(rng.random())) for name, value in PHASES.items()},
        }
        rows.append(row)
    return rows


def a_run(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any] | None = None, tail: str = "") -> Path:
    """The folder of a run; `tail` stands behind the last line."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
        dataset = {"name": "toy", "tag": "v1", "fingerprint": "f1", "samples": 12}
        record = {"dataset": dataset, "policy": {"name": "p", "fingerprint": "p1"}, "sessions": [PROVENANCE]}
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def settings_of(**changes: Any) -> dict[str, Any]:
    """Resolved settings, as config.json has them."""
    return {"steps": 200, "variants": 4, "responses": 2, "lr": 1e-6, "out": "runs/x", "tag": None} | changes


def predictions(store: Store, shift: int, view: str = "anchor", **texts: Any) -> list[dict[str, Any]]:
    """Answers to all curated samples of `tests.toy_store`, some right, some wrong: which goes by `shift`.

    Args:
        texts: fields that replace those of every line.
    """
    reader = FrameReader(store)
    number = {"anchor": 0, "importance": 1}[view]
    lines = []
    for place, sample in enumerate(store.curated("toy").to_pylist()):
        variant = sample["variants"][number]
        spans = sample["spans"]
        truth = f"{spans[0][0]:.1f} - {spans[0][1]:.1f}" if sample["task"] == "grounding" else sample["answer"]
        wrong = "0.0 - 0.5" if sample["task"] == "grounding" else "nothing"
        said = truth if (place + shift) % 4 else wrong
        row = {name: sample[name] for name in ("sample_id", "dataset", "source", "split", "video_id", "task")}
        row |= {name: sample[name] for name in ("question", "options", "answer", "spans")}
        row |= {"origin": "{}", "view": view, "variant": number, "duration_s": 12.0, "failure": "", "tokens": 20}
        row |= {"frames": len(variant["indices"]), "indices": variant["indices"], "crop": variant["crop"]}
        row |= {"scale": variant["scale"], "frames_fingerprint": reader.fingerprint(sample["video_id"])}
        row |= {"response": f"<think> look closely </think> <answer> {said} </answer>", "fingerprint": f"{view}{place}"}
        lines.append(row | texts)
    return lines


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON-lines file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
