"""From metrics and answers to figures: of each run, of each arm over its seeds, of each arm against a control. Pure."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyworld.demo_figures import column
from toyworld.reproduce.bootstrap import Interval, interval

Rows = Sequence[Mapping[str, Any]]

ANSWERED = (
    *("accuracy_importance", "accuracy_anchor", "miou_importance", "miou_anchor"),
    *("accuracy_grounded", "miou_grounded"),
)
"""Held-out figures: by view, and of grounded choices alone, on the importance view."""

_PART = {"accuracy": "accuracy", "miou": "iou"}


def training_figures(rows: Rows) -> dict[str, float]:
    """Figures of a run's steps; of SFT, which draws nothing, those that it has.

    Returns:
        grad_norm_cv: population standard deviation of the gradient norm over the steps, by its mean. rollouts: in all.
        reward_std, dead_group_share, between_share: means over the steps that have them.
    """
    norms = column(rows, "grad_norm")
    found = {"grad_norm_cv": float(np.nanstd(norms) / np.nanmean(norms))} if not np.isnan(norms).all() else {}
    if "rollouts" not in rows[0]:
        return found
    found["rollouts"] = float(sum(row["rollouts"] for row in rows))
    for name in ("reward_std", "dead_group_share", "between_share"):
        values = column(rows, name)
        if not np.isnan(values).all():
            found[name] = float(np.nanmean(values))
    return found


def seconds_a_step(rows: Rows) -> float:
    """Median wall time of a step."""
    return float(np.median([sum(row["seconds"].values()) for row in rows]))


def answer_table(answers: Rows) -> dict[str, dict[str, float]]:
    """What each held-out sample earned: {"accuracy_anchor": {sample_id: 0.0 or 1.0}, ...} for all of ANSWERED.

    Args:
        answers: rows with sample_id, task, view, and the reward parts accuracy and iou (None where a task has none).
    """
    table: dict[str, dict[str, float]] = {name: {} for name in ANSWERED}
    for row in answers:
        grounded = row["task"] == "grounded_choice" and row["view"] == "importance"
        for name, part in _PART.items():
            if row[part] is not None:
                for group in (row["view"], *(["grounded"] if grounded else [])):
                    table[f"{name}_{group}"][row["sample_id"]] = float(row[part])
    return table


def matrix(tables: Sequence[Mapping[str, Mapping[str, float]]], measure: str) -> NDArray[np.float64]:
    """[S, N] what each seed earned on each sample, samples by id.

    Raises:
        ValueError: the seeds answered different samples, or none.
    """
    keys = sorted(tables[0][measure])
    if not keys or any(sorted(table[measure]) != keys for table in tables):
        raise ValueError(f"the runs' answers are not to the same samples ({measure})")
    return np.array([[table[measure][key] for key in keys] for table in tables])


def arm_figures(runs: Sequence[Rows], tables: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """Mean, spread and each seed's value of every measure of an arm.

    Args:
        runs: metrics of each seed. tables: `answer_table` of each seed.

    Returns:
        {measure: {"mean", "spread" (population standard deviation over the seeds), "seeds"}}.
    """
    each = [training_figures(rows) for rows in runs]
    values = {name: [one[name] for one in each] for name in each[0]}
    values |= {name: [float(row.mean()) for row in matrix(tables, name)] for name in ANSWERED if tables[0][name]}
    return {name: {"mean": fmean(v), "spread": pstdev(v), "seeds": v} for name, v in values.items()}


def differences(
    arm: Sequence[Mapping[str, Mapping[str, float]]], control: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Interval]:
    """By how much an arm's held-out figures exceed a control's, seed by seed and sample by sample, with intervals."""
    return {
        name: interval(matrix(arm, name) - matrix(control, name))
        for name in ANSWERED
        if arm[0][name] and control[0][name]
    }


def seed_differences(arm: Sequence[float], control: Sequence[float]) -> Interval:
    """The same for a figure of which a run has one: only seeds are drawn anew."""
    return interval((np.asarray(arm, float) - np.asarray(control, float))[:, None])


def ratios(arm: Sequence[float], control: Sequence[float]) -> list[float]:
    """Arm over control, seed by seed; infinite where only the control is 0, 1 where both are."""
    return [a / c if c else (math.inf if a else 1.0) for a, c in zip(arm, control, strict=True)]
