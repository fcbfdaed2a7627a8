"""Short runs of the trainer on a small store of the toy world, with the toy world's policy."""

from pathlib import Path
from typing import Any

from toyworld import POLICY
from trainer import train
from trainer.config import RunConfig
from trainer.metrics import read_rows

SETTINGS: dict[str, Any] = {
    "dataset": "toy",
    "policy": str(POLICY),
    "variants": 2,
    "responses": 4,
    "groups": 3,
    "steps": 2,
    "lr": 1e-4,
    "max_tokens": 20,
    "device": "cpu",
}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what is measured by a clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(out / "metrics.jsonl")]


def a_run(store: Path, out: Path, *, resume: bool = False, **changes: Any) -> list[dict[str, Any]]:
    """Train two steps, or what is changed, and return the metrics."""
    train.run(RunConfig.model_validate(SETTINGS | {"store": store, "out": out} | changes), resume=resume)
    return rows_of(out)
