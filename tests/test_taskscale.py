"""The usual spread of a task: an exponential mean of live pools only, and a pool far out goes by its own."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.advantage import EPSILON, advantages
from trainer.taskscale import FAR, TaskScale

pools = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=4)
HALF, FAINT, DEAD = [[0.0, 1.0], [0.0, 1.0]], [[0.4, 0.6]], [[0.3, 0.3]]  # deviations 0.5, 0.1, none


def test_the_first_step_counts_in_full_and_later_ones_by_the_decay() -> None:
    scale = TaskScale(decay=0.9)
    scale.observe(["choice"], [HALF], "joint")
    assert scale["choice"] == pytest.approx(0.5)
    scale.observe(["choice", "choice"], [HALF, FAINT], "joint")  # their mean is 0.3
    assert scale["choice"] == pytest.approx((0.09 * 0.5 + 0.1 * 0.3) / 0.19)


def test_dead_pools_and_other_tasks_leave_a_task_alone() -> None:
    scale = TaskScale()
    scale.observe(["choice", "grounding"], [HALF, FAINT], "joint")
    before = scale["choice"]
    scale.observe(["choice", "grounding"], [DEAD, HALF], "joint")
    assert scale["choice"] == before
    assert 0.1 < scale["grounding"] < 0.5
    with pytest.raises(KeyError):
        scale["number"]


def test_a_task_s_pools_share_their_scale() -> None:
    scale = TaskScale()
    scale.observe(["t", "t"], [HALF, FAINT], "joint")
    usual = 0.3 + EPSILON
    assert scale.advantages("t", HALF, "joint") == [[pytest.approx(-0.5 / usual), pytest.approx(0.5 / usual)]] * 2
    assert scale.advantages("t", FAINT, "joint") == [[pytest.approx(-0.1 / usual), pytest.approx(0.1 / usual)]]
    assert scale.advantages("t", DEAD, "joint") == [[0.0, 0.0]]


def test_a_pool_far_from_what_its_task_does_goes_by_its_own_spread() -> None:
    scale = TaskScale()
    scale.observe(["t"], [[[0.50, 0.52]]], "joint")
    assert 0.5 / (scale["t"] + EPSILON) > FAR
    assert scale.advantages("t", HALF, "joint") == advantages(HALF)


@settings(deadline=None)
@given(st.lists(pools, min_size=1, max_size=4), st.sampled_from(["joint", "per-view"]))
def test_advantages_sum_to_zero_and_state_comes_back(step: list[list[list[float]]], mode: str) -> None:
    scale = TaskScale()
    scale.observe(["t"] * len(step), step, mode)  # type: ignore[arg-type]
    again = TaskScale()
    again.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    for pool in step:
        found = scale.advantages("t", pool, mode)  # type: ignore[arg-type]
        assert sum(a for view in found for a in view) == pytest.approx(0.0, abs=1e-9)
        assert again.advantages("t", pool, mode) == found  # type: ignore[arg-type]
        assert all(abs(a) <= FAR for view in found for a in view) or found == advantages(pool, mode)  # type: ignore[arg-type]
