"""Group statistics: dead is max == min, the variance is the population's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.groups import between_share, is_dead, population_variance

rewards = st.lists(st.floats(0, 1), min_size=1, max_size=32)


@given(rewards)
def test_variance_equals_numpy_with_ddof_0(x: list[float]) -> None:
    assert population_variance(x) == pytest.approx(np.var(x), abs=1e-15)


@given(st.floats(0, 1, width=32), st.integers(1, 64))
def test_equal_rewards_are_dead_and_have_variance_exactly_0(value: float, n: int) -> None:
    x = np.full(n, value, dtype=np.float32)
    assert is_dead(x)
    assert population_variance(x) == 0.0
    assert between_share(x[None]) == 0.0


def test_eight_float32_rewards_of_0_9_are_dead_though_their_std_is_not_0() -> None:
    x = np.full(8, 0.9, dtype=np.float32)
    assert torch.from_numpy(x).std() > 0
    assert is_dead(x)
    assert population_variance(x) == 0.0


@given(rewards)
def test_dead_is_max_equals_min(x: list[float]) -> None:
    assert is_dead(x) == (max(x) == min(x))


@pytest.mark.parametrize(
    ("right", "draws", "variance"), [(1, 8, 0.109375), (4, 8, 0.25), (1, 16, 0.05859375), (1, 10, 0.09)]
)
def test_binary_variances(right: int, draws: int, variance: float) -> None:
    assert population_variance([1.0] * right + [0.0] * (draws - right)) == pytest.approx(variance, abs=1e-12)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_between_share_is_a_share(m: int, g: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 2, (m, g)).astype(float)
    assert 0.0 <= between_share(x) <= 1.0


def test_between_share_values() -> None:
    assert between_share([[1.0, 1.0], [0.0, 0.0]]) == 1.0
    assert between_share([[1.0, 0.0], [0.0, 1.0]]) == 0.0
    assert between_share([[1.0, 0.0, 1.0, 0.0]]) == 0.0


@pytest.mark.parametrize("bad", [[], [float("nan"), 1.0], [float("inf")]])
def test_what_is_no_reward_raises(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        is_dead(bad)
