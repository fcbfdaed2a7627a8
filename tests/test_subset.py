"""PODS: the subset of a pool with the greatest variance is found, exactly."""

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.subset import max_variance_subset

rewards = st.lists(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1), min_size=2, max_size=9)


def spread(values: list[float]) -> Fraction:
    """n^2 times the population variance, exactly."""
    exact = [Fraction(v) for v in values]
    return len(exact) * sum((v * v for v in exact), Fraction(0)) - sum(exact, Fraction(0)) ** 2


@settings(deadline=None)
@given(rewards, st.integers(2, 9), st.integers(0, 99))
def test_it_is_as_good_as_trying_all_subsets(values: list[float], size: int, seed: int) -> None:
    size = min(size, len(values))
    chosen = max_variance_subset(values, size, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == size
    best = max(spread([values[i] for i in c]) for c in combinations(range(len(values)), size))
    assert spread([values[i] for i in chosen]) == best


@settings(deadline=None)
@given(rewards, st.integers(2, 9))
def test_the_order_of_the_pool_does_not_matter_to_the_rewards_kept(values: list[float], size: int) -> None:
    size = min(size, len(values))
    kept = sorted(values[i] for i in max_variance_subset(values, size))
    turned = values[::-1]
    assert sorted(turned[i] for i in max_variance_subset(turned, size)) == kept


@settings(deadline=None)
@given(rewards, st.integers(2, 8), st.integers(0, 99))
def test_a_live_pool_stays_live(values: list[float], size: int, seed: int) -> None:
    kept = [values[i] for i in max_variance_subset(values, size, seed)]
    assert (max(kept) != min(kept)) == (max(values) != min(values))


def test_the_seed_chooses_among_equal_rewards() -> None:
    """Otherwise the lowest would always come from the first views and the highest from the last ones."""
    values = [0.0] * 8 + [1.0] * 8
    found = {tuple(max_variance_subset(values, 4, seed)) for seed in range(20)}
    assert len(found) > 10
    assert all(sum(values[i] for i in chosen) == 2 for chosen in found)
    assert max_variance_subset(values, 4, 3) == max_variance_subset(values, 4, 3)


def test_all_of_a_pool_that_is_small_enough_and_nothing_that_cannot_differ() -> None:
    assert max_variance_subset([0.2, 0.4], 8) == [0, 1]
    with pytest.raises(ValueError, match="at least 2"):
        max_variance_subset([0.0, 1.0], 1)
