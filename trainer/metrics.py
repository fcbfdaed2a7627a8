"""What a training run records: one JSON line a step, and the figures of a step's pools."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from pipeline.errors import UserError
from pipeline.groups import between_share, is_dead, population_variance


class MetricsLog:
    """A JSON-lines file, flushed row by row, so that a killed run loses at most the line it was writing.

    The row with `step` = n belongs to the n-th update, counted from 1. Values that are not finite are written as null,
    because JSON has no NaN.
    """

    def __init__(self, path: Path, steps_done: int = 0) -> None:
        """Open for appending, keeping only the rows of the first `steps_done` steps.

        A run that resumes from a checkpoint repeats the steps after it: their rows are dropped here, as is a last line
        that a kill left torn.

        Raises:
            UserError: an earlier line of the file is not JSON, or has no step.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _keep_steps(path, steps_done)
        self.path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row. Raises KeyError when it has no `step`, TypeError when a value is not JSON-like."""
        ordered = {"step": int(row["step"]), **{name: value for name, value in row.items() if name != "step"}}
        self._file.write(json.dumps(_finite(ordered), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a metrics file; a torn last line (no newline at its end) is left out.

    Raises:
        UserError: a whole line is not a JSON object with an integer `step`.
    """
    text = path.read_bytes().decode("utf-8", errors="replace")
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            int(row["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}, line {number}",
                "is not a JSON object with a step",
                "move the file away, or start in another --out",
            ) from error
        rows.append(row)
    return rows


def pool_metrics(rewards: Sequence[Sequence[ArrayLike] | npt.NDArray[np.floating]]) -> dict[str, float | None]:
    """The figures of one step's pools.

    Args:
        rewards: for each sample its rewards in 0..1, [G] for each of its M views; views may differ in G.

    Returns:
        reward_mean: mean over pools of the mean reward.
        reward_std: mean over pools of the population standard deviation (0 for dead pools).
        dead_group_share: share of pools with max == min.
        between_share: mean over live pools of the share of variance that lies between views; None without live pools.

    Raises:
        ValueError: there is no pool.
    """
    pools = [[np.asarray(view, dtype=np.float64) for view in pool] for pool in rewards]
    if not pools:
        raise ValueError("a step has at least one pool")
    whole = [np.concatenate(pool) for pool in pools]
    live = [pool for pool, values in zip(pools, whole, strict=True) if not is_dead(values)]
    return {
        "reward_mean": float(np.mean([values.mean() for values in whole])),
        "reward_std": float(np.mean([math.sqrt(population_variance(values)) for values in whole])),
        "dead_group_share": 1.0 - len(live) / len(pools),
        "between_share": float(np.mean([share_between(pool) for pool in live])) if live else None,
    }


def share_between(views: Sequence[npt.NDArray[np.float64]]) -> float:
    """`between_share` of a pool whose views may have different numbers of responses: a view weighs by its number."""
    if len({len(view) for view in views}) == 1:
        return between_share(np.stack(views))
    total = population_variance(np.concatenate(views))
    means = np.concatenate([np.full(len(view), math.fsum(view) / len(view)) for view in views])
    return min(1.0, population_variance(means) / total) if total else 0.0


def _finite(value: Any) -> Any:
    """The value with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_steps(path: Path, steps_done: int) -> None:
    """Rewrite the file with the rows of steps 1..steps_done: written aside, then renamed."""
    kept = [row for row in read_rows(path) if int(row["step"]) <= steps_done]
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in kept)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
