"""Runs of the real command, and how far two of them lie apart in what they computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from trainer.checkpoint import newest_whole


def words_of(name: str, settings: dict[str, Any], store: Path, out: Path, *more: str) -> list[str]:
    """A command line of strive-train: `sft` for a name that begins so, else `run`."""
    pairs = settings | {"store": store, "out": out}
    sets = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return ["sft" if name.startswith("sft") else "run", *sets, *more]


def differences(a: Any, b: Any) -> list[float]:
    """How far numbers lie apart, relative to 1 or more; whatever else has to be equal."""
    if isinstance(a, dict):
        assert list(a) == list(b)
        return [d for name in a for d in differences(a[name], b[name])]
    if isinstance(a, float) and isinstance(b, float):
        return [abs(a - b) / max(1.0, abs(a))]
    assert a == b
    return []


def assert_near(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], tolerance: float = 1e-5) -> None:
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert max(differences(row, other)) <= tolerance


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = newest_whole(out)
    assert found
    [file] = found.glob("*.safetensors")
    return load_file(file)


def assert_near_weights(out: Path, other: Path, lr: float) -> None:
    """AdamW divides by the gradient's size, so rounding moves a weight of almost no gradient by up to lr a step."""
    a, b = weights(out), weights(other)
    assert a.keys() == b.keys()
    moved = torch.cat([(a[name] - b[name]).abs().flatten() for name in a])
    assert moved.max() <= lr
    assert moved.mean() <= lr / 1000
