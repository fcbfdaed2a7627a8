"""Verdicts: variance, the dead, certainty, and that stricter thresholds keep a subset."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.groups import is_dead, population_variance
from pipeline.rewards import RewardRule
from pipeline.verdicts import Draws, Rule, certain, chance_kept, judge, thresholds

GRADED = st.floats(0, 1, allow_nan=False, width=32).map(float)
BINARY = st.sampled_from([0.0, 1.0])


def draws(*groups: list[float]) -> Draws:
    """The arrays of some samples' rewards."""
    arrays = [np.asarray(g, np.float64) for g in groups]
    return Draws(
        np.array([len(a) for a in arrays]),
        np.array([a.sum() for a in arrays]),
        np.array([((a - a.mean()) ** 2).sum() if len(a) else 0.0 for a in arrays]),
        np.array([a.min() if len(a) else 0.0 for a in arrays]),
        np.array([a.max() if len(a) else 0.0 for a in arrays]),
    )


def kept(rewards: list[float], threshold: float | None, rule: Rule) -> bool:
    return judge(draws(rewards), threshold, rule)[0] == ""


@given(st.lists(GRADED, min_size=1, max_size=16))
def test_variance_is_the_population_variance(rewards: list[float]) -> None:
    assert draws(rewards).variance[0] == pytest.approx(population_variance(rewards), abs=1e-12)
    assert bool(draws(rewards).dead[0]) == is_dead(rewards)


@given(GRADED, st.integers(1, 64), st.floats(1e-12, 0.25))
def test_float_noise_never_makes_a_dead_group_alive(value: float, n: int, threshold: float) -> None:
    total = math.fsum([value] * n) * (1 + 1e-15)  # sums of equal rewards are off in their last digits
    noisy = Draws(np.array([n]), np.array([total]), np.array([n * 1e-15]), np.array([value]), np.array([value]))
    assert judge(noisy, threshold, Rule(None))[0] in ("all wrong", "all right", "below threshold")


bound = st.none() | st.floats(0, 1)


@given(st.lists(GRADED, min_size=1, max_size=8), st.floats(0, 0.25), st.floats(0, 0.25), bound, bound)
def test_a_stricter_threshold_keeps_a_subset(
    rewards: list[float], a: float, b: float, low: float | None, high: float | None
) -> None:
    lax, strict = sorted((a, b))
    assert kept(rewards, lax, Rule(None)) or not kept(rewards, strict, Rule(None))
    if low is not None and high is not None and low > high:
        low, high = high, low
    bounded = Rule(None, min_acc=low, max_acc=high)
    assert kept(rewards, strict, Rule(None)) or not kept(rewards, strict, bounded)


@given(st.integers(1, 8), st.data(), st.floats(0.001, 0.25), bound, bound)
@settings(max_examples=200)
def test_exact_certainty_is_what_all_completions_say(
    planned: int, data: st.DataObject, threshold: float, low: float | None, high: float | None
) -> None:
    """Binary rewards: brute force over all completions."""
    if low is not None and high is not None and low > high:
        low, high = high, low
    rule = Rule(None, min_acc=low, max_acc=high)
    sofar = data.draw(st.lists(BINARY, max_size=planned))
    ends = {
        kept([*sofar, *rest], threshold, rule) for rest in itertools.product([0.0, 1.0], repeat=planned - len(sofar))
    }
    chance = chance_kept(draws(sofar), planned, threshold, rule, binary=True)
    stands = bool(certain(chance, planned, True, stop_error=0.5)[0])  # 8 draws or fewer: the error is not used
    assert stands == (len(ends) == 1)
    if stands:
        assert chance[0] == float(ends.pop())


@given(st.lists(GRADED, min_size=1, max_size=6), st.lists(GRADED, max_size=6), st.floats(0.001, 0.25), bound, bound)
def test_graded_certainty_is_never_wrong(
    sofar: list[float], rest: list[float], threshold: float, low: float | None, high: float | None
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    rule = Rule(None, min_acc=low, max_acc=high)
    planned = len(sofar) + len(rest)
    chance = chance_kept(draws(sofar), planned, threshold, rule, binary=False)
    if not math.isnan(chance[0]):
        whole = [*sofar, *rest]
        near = abs(population_variance(whole) - threshold) < 1e-6  # the EPSILON of either side
        near |= any(b is not None and abs(np.mean(whole) - b) < 1e-6 for b in (low, high))
        assert near or kept(whole, threshold, rule) == bool(chance[0])


def test_binary_up_to_eight_draws_stops_at_the_first_disagreement() -> None:
    rule = Rule(None)
    for n in range(1, 8):
        same = certain(chance_kept(draws([1.0] * n), 8, 0.1, rule, True), 8, True, 0.01)
        differ = certain(chance_kept(draws([1.0] * n + [0.0]), 8, 0.1, rule, True), 8, True, 0.01)
        assert not same[0]
        assert differ[0]


def test_sixteen_draws_need_more_than_one_disagreement() -> None:
    """1 of 16 has a variance of 0.059: below 0.1, so one disagreement decides nothing."""
    chance = chance_kept(draws([1.0, 0.0], [1.0, 1.0, 0.0, 0.0]), 16, 0.1, Rule(None), True)
    assert 0.5 < chance[0] < 0.99
    assert chance[1] == 1.0


@given(st.integers(9, 40), st.floats(0.01, 0.2), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_sequential_test_errs_as_rarely_as_it_says(planned: int, error: float, seed: int) -> None:
    """Success rates drawn from the prior that the test assumes; every sample is stopped as early as it may be."""
    rng = np.random.default_rng(seed)
    rewards = (rng.random((300, planned)) < rng.random((300, 1))).astype(float)
    rule, wrong = Rule(None), 0
    for row in rewards.tolist():
        final = kept(row, 0.1, rule)
        for n in range(2, planned + 1):
            chance = chance_kept(draws(row[:n]), planned, 0.1, rule, True)
            if certain(chance, planned, True, error)[0]:
                wrong += (chance[0] >= 0.5) != final
                break
    # A bound of `error` at each look holds for the look at which it stops; 4 standard errors of 300 samples on top.
    assert wrong / 300 <= error + 4 * math.sqrt(error / 300)


def test_thresholds_are_scaled_for_graded_rewards_and_named_ones_hold_as_they_are() -> None:
    found = thresholds("0.1")
    assert found == {"choice": 0.1, "grounding": 0.01, "grounded_choice": 0.01, "number": 0.1, "open": 0.01} | {
        "grounding": pytest.approx(0.01),
        "grounded_choice": pytest.approx(0.01),
        "open": pytest.approx(0.01),
    }
    named = thresholds("choice=0.2,grounding=0.05")
    assert (named["choice"], named["grounding"], named["number"]) == (0.2, 0.05, 0.1)
    assert thresholds("0.2,number=0")["number"] == 0
    assert thresholds("0.2", RewardRule(number="mra", text="exact"))["number"] == pytest.approx(0.02)
    assert set(found) == set(schemas.TASKS)


@pytest.mark.parametrize("text", ["0.3", "-0.1", "nan", "x", "choice=", "video=0.1", "=0.1,,", "choice=1e9"])
def test_bad_thresholds_name_the_value(text: str) -> None:
    if text == "=0.1,,":  # no task before the sign
        with pytest.raises(UserError, match="none of"):
            thresholds(text)
        return
    with pytest.raises(UserError, match="--min-var"):
        thresholds(text)


@pytest.mark.parametrize("name", ["min_acc", "max_acc", "max_blind_acc", "stop_error"])
def test_shares_lie_between_0_and_1(name: str) -> None:
    with pytest.raises(UserError, match=name.replace("_", "-")):
        Rule(None, **{name: 1.5})


def test_the_rule_is_one_line() -> None:
    text = Rule(thresholds("0.1"), 0.1, 0.9, 0.5).text()
    assert text == (
        "variance of the reward >= 0.1 (choice, number); variance of the reward >= 0.01 (grounding, grounded_choice, "
        "open); mean reward >= 0.1; mean reward <= 0.9; mean reward without frames <= 0.5"
    )
    assert Rule(None).text() == "no filter: every sample with rollouts is kept"
