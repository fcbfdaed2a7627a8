"""The evidence's formulas: bootstrap intervals, figures of runs and answers, verdicts."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toyworld.reproduce.bootstrap import Interval, interval
from toyworld.reproduce.claims import FAILS, HOLDS, claims, shown
from toyworld.reproduce.figures import (
    ANSWERED,
    answer_table,
    arm_figures,
    differences,
    matrix,
    ratios,
    seed_differences,
    training_figures,
)
from toyworld.reproduce.plan import ARMS, STRIVE, TABLES

tables = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.floats(-1, 1, width=32))


@given(tables, st.floats(-2, 2), st.floats(0.1, 3))
def test_an_interval_moves_and_scales_with_its_values(values: np.ndarray, shift: float, scale: float) -> None:
    one = interval(values, draws=200)
    assert values.min() - 1e-9 <= one.low <= one.high <= values.max() + 1e-9
    other = interval(scale * values + shift, draws=200)
    for name in ("mean", "low", "high"):
        assert getattr(other, name) == pytest.approx(scale * getattr(one, name) + shift, abs=1e-6)
    assert interval(values, draws=200) == one


def test_an_interval_of_equal_values_is_a_point_and_excludes_zero_by_its_sign() -> None:
    up = interval(np.full((3, 50), 0.25))
    assert (up.mean, up.low, up.high) == pytest.approx((0.25, 0.25, 0.25))
    assert up.above and not up.below and interval(-np.full((3, 50), 0.25)).below
    assert not interval(np.zeros((3, 5))).above


def test_an_interval_has_the_known_width() -> None:
    """Of n samples alone it is that of the mean, of seeds alone too; of both, variances add up."""
    rng = np.random.default_rng(0)
    n, seeds = 400, 40
    samples, trained = rng.normal(size=n), rng.normal(size=seeds)

    def deviation(values: np.ndarray) -> float:
        found = interval(values, draws=8000)
        return (found.high - found.low) / (2 * 1.96)

    assert deviation(samples[None]) == pytest.approx(samples.std() / math.sqrt(n), rel=0.05)
    assert deviation(trained[:, None]) == pytest.approx(trained.std() / math.sqrt(seeds), rel=0.05)
    both = math.sqrt(samples.var() / n + trained.var() / seeds)
    assert deviation(trained[:, None] + samples[None]) == pytest.approx(both, rel=0.05)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, math.nan]])])
def test_what_is_no_table_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a table"):
        interval(values)


def answers(right: dict[str, float], view: str = "anchor", task: str = "choice") -> list[dict[str, Any]]:
    rows = [{"sample_id": key, "view": view, "task": task, "accuracy": v, "iou": None} for key, v in right.items()]
    return [*rows, {"sample_id": "g", "view": "importance", "task": "grounded_choice", "accuracy": 1.0, "iou": 0.5}]


def test_answers_stand_by_view_and_part() -> None:
    table = answer_table(answers({"a": 1.0, "b": 0.0}))
    assert table["accuracy_anchor"] == {"a": 1.0, "b": 0.0}
    assert table["accuracy_importance"] == table["accuracy_grounded"] == {"g": 1.0}
    assert table["miou_importance"] == table["miou_grounded"] == {"g": 0.5} and not table["miou_anchor"]
    assert set(table) == set(ANSWERED)


def test_arms_are_compared_sample_by_sample() -> None:
    """Two arms that are right on the same samples differ by nothing for certain; unpaired they would not."""
    rng = np.random.default_rng(0)
    right = {f"s{i}": float(rng.random() < 0.5) for i in range(200)}
    table = answer_table(answers(right))
    found = differences([table, table], [table, table])["accuracy_anchor"]
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    better = answer_table(answers({key: max(value, float(i < 40)) for i, (key, value) in enumerate(right.items())}))
    assert differences([better, better], [table, table])["accuracy_anchor"].above


def test_answers_to_other_samples_are_refused() -> None:
    one, other = answer_table(answers({"a": 1.0})), answer_table(answers({"b": 1.0}))
    with pytest.raises(ValueError, match="not to the same samples"):
        matrix([one, other], "accuracy_anchor")


def row(**values: Any) -> dict[str, Any]:
    base = {"rollouts": 4, "reward_std": 0.2, "dead_group_share": 0.5, "between_share": None, "grad_norm": 1.0}
    return base | {"seconds": {"update": 1.0}} | values


def test_figures_of_steps() -> None:
    found = training_figures([row(grad_norm=1.0), row(grad_norm=3.0, between_share=0.25), row(grad_norm=None)])
    assert found == {
        "grad_norm_cv": pytest.approx(0.5),
        "rollouts": 12.0,
        "reward_std": pytest.approx(0.2),
        "dead_group_share": 0.5,
        "between_share": 0.25,
    }
    assert training_figures([{"grad_norm": 1.0, "loss": 2.0, "seconds": {}}]) == {"grad_norm_cv": 0.0}
    table = answer_table(answers({"a": 1.0, "b": 0.0}))
    arm = arm_figures([[row()], [row(dead_group_share=0.0)]], [table, table])
    assert arm["dead_group_share"] == {"mean": 0.25, "spread": 0.25, "seeds": [0.5, 0.0]}
    assert arm["accuracy_anchor"]["mean"] == 0.5 and "miou_anchor" not in arm


def test_ratios_of_nothing() -> None:
    assert ratios([1.0, 0.0, 2.0], [2.0, 0.0, 0.0]) == [0.5, 1.0, math.inf]
    assert seed_differences([2.0, 3.0], [1.0, 2.0]) == Interval(1.0, 1.0, 1.0)


def judged(**changes: Any) -> dict[str, str]:
    """Verdicts by claim when everything holds, but for the changes: "arm.measure" to values of the seeds."""
    values = {"reward_std": [0.3], "dead_group_share": [0.1], "grad_norm_cv": [0.2]}
    control = {"reward_std": [0.2], "dead_group_share": [0.2], "grad_norm_cv": [0.3]}
    arms = {arm: {name: {"seeds": list(v)} for name, v in control.items()} for arm in ARMS}
    arms[STRIVE] = {name: {"seeds": list(v)} for name, v in values.items()}
    against = {
        table.subject: {other: {name: [0.05, 0.01, 0.09] for name in ANSWERED} for other in ARMS} for table in TABLES
    }
    for name, value in changes.items():
        part, other, measure = name.split("__")
        if part == "arms":
            arms[other.replace("_", "-")][measure]["seeds"] = value
        else:
            against[STRIVE][other.replace("_", "-")][measure] = value
    return {claim.text: claim.verdict for claim in claims({"arms": arms, "against": against})}


def test_verdicts_hold_fail_and_name_the_control() -> None:
    assert set(judged().values()) == {HOLDS}
    dead = next(text for text in judged() if "dead" in text)
    assert judged(arms__grpo_anchor__dead_group_share=[0.15])[dead] == "holds against GRPO on one importance view only"
    assert judged(arms__strive__dead_group_share=[0.19])[dead] == FAILS
    std = next(text for text in judged() if "standard deviation" in text)
    assert judged(arms__strive__reward_std=[0.22])[std] == FAILS
    accurate = next(text for text in judged() if "on anchor views" in text)
    found = judged(against__grpo_importance__accuracy_anchor=[0.02, -0.01, 0.05])
    assert found[accurate] == "holds against GRPO on the anchor only"
    blind = next(text for text in judged() if "question-blind" in text)
    found = judged(against__strive_phase_shifts__accuracy_importance=[-0.05, -0.09, -0.01])
    assert found[blind] == f"{FAILS}: it is the other way round"


def test_a_difference_is_written_with_signs() -> None:
    assert shown([0.0314, -0.01, 0.05]) == shown(Interval(0.0314, -0.01, 0.05)) == "+0.031 (-0.010 to +0.050)"
