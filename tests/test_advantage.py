"""Advantages over the pool: GRPO when there is one view, exactly 0 when nothing differs."""

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.advantage import EPSILON, Mode, advantages, joint_advantages, spreads


def grpo(rewards: list[float]) -> list[float]:
    """Plain GRPO of one group, written on its own: no view, no pool, no tensor."""
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    variance = math.fsum((r - mean) ** 2 for r in rewards) / len(rewards)
    return [(r - mean) / (math.sqrt(variance) + EPSILON) for r in rewards]


@st.composite
def pools(draw: st.DrawFn, most_views: int = 6) -> torch.Tensor:
    m, g = draw(st.integers(1, most_views)), draw(st.integers(1, 8))
    values = draw(st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=m * g, max_size=m * g))
    return torch.tensor(values, dtype=torch.float64).reshape(m, g)


MODES: tuple[Mode, ...] = ("joint", "per-view", "hierarchical")
modes = st.sampled_from(MODES)
ragged = st.lists(
    st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=5
)
"""Pools whose views have different numbers of responses."""


@settings(deadline=None)
@given(ragged, modes, st.none() | st.floats(0.01, 2))
def test_every_mode_sums_to_zero_over_its_pool(views: list[list[float]], mode: Mode, scale: float | None) -> None:
    found = advantages(views, mode, scale)
    assert [len(view) for view in found] == [len(view) for view in views]
    assert all(math.isfinite(a) for view in found for a in view)
    assert math.fsum(a for view in found for a in view) == pytest.approx(0.0, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.none() | st.just(1.0))
def test_with_one_view_all_modes_are_grpo_to_the_bit(view: list[float], scale: float | None) -> None:
    assert advantages([view]) == [grpo(view)]
    assert advantages([view], "joint", scale) == advantages([view], "per-view", scale)
    assert advantages([view], "joint", scale) == advantages([view], "hierarchical", scale)


@settings(deadline=None)
@given(st.floats(0, 1), st.lists(st.integers(1, 5), min_size=1, max_size=5), modes, st.none() | st.just(1.0))
def test_a_dead_pool_is_exactly_zero_in_every_mode(
    value: float, sizes: list[int], mode: Mode, scale: float | None
) -> None:
    assert advantages([[value] * n for n in sizes], mode, scale) == [[0.0] * n for n in sizes]
    assert spreads([[value] * n for n in sizes], mode) == []


@settings(deadline=None)
@given(ragged)
def test_per_view_is_grpo_in_each_view(views: list[list[float]]) -> None:
    assert advantages(views, "per-view") == [grpo(view) for view in views]


@settings(deadline=None)
@given(ragged)
def test_hierarchical_adds_a_part_that_is_one_number_a_view(views: list[list[float]]) -> None:
    """Within each view it is GRPO; what is added is the view's mean among the view means, each as often as it has
    responses."""
    within = [grpo(view) for view in views]
    means = [math.fsum(view) / len(view) for view in views]
    between = grpo([m for m, view in zip(means, views, strict=True) for _ in view])
    places = iter(between)
    for found, own in zip(advantages(views, "hierarchical"), within, strict=True):
        for a, b in zip(found, own, strict=True):
            assert a == pytest.approx(b + next(places), abs=1e-9)


@settings(deadline=None)
@given(ragged, modes)
def test_without_a_scale_the_deviation_is_ours(views: list[list[float]], mode: Mode) -> None:
    """`scale` stands for the deviations: with one live part the two ways agree to the bit."""
    live = spreads(views, mode)
    if len(live) == 1 and mode != "hierarchical":
        assert advantages(views, mode, live[0] + EPSILON) == advantages(views, mode)


@settings(deadline=None)
@given(ragged)
def test_undivided_advantages_are_differences(views: list[list[float]]) -> None:
    mean = math.fsum(r for view in views for r in view) / sum(map(len, views))
    for view, found in zip(views, advantages(views, "joint", 1.0), strict=True):
        assert found == pytest.approx([r - mean for r in view], abs=1e-12)
    assert advantages(views, "hierarchical", 1.0) == [
        pytest.approx(view, abs=1e-12) for view in advantages(views, "joint", 1.0)
    ]


def test_the_parts_of_a_pool_that_differs_between_its_views_only() -> None:
    views = [[1.0, 1.0], [0.0, 0.0]]
    one = 0.5 / (0.5 + EPSILON)
    assert advantages(views, "joint") == advantages(views, "hierarchical") == [[one, one], [-one, -one]]
    assert advantages(views, "per-view") == [[0.0, 0.0], [0.0, 0.0]]


def test_an_empty_view_is_no_view() -> None:
    with pytest.raises(ValueError, match="at least one"):
        advantages([[0.0, 1.0], []], "per-view")


@settings(deadline=None)
@given(pools())
def test_mean_is_zero(rewards: torch.Tensor) -> None:
    advantages = joint_advantages(rewards)
    assert advantages.shape == rewards.shape
    assert abs(advantages.mean().item()) < 1e-6
    assert torch.isfinite(advantages).all()


@settings(deadline=None)
@given(pools(most_views=1))
def test_one_view_is_grpo_to_the_bit(rewards: torch.Tensor) -> None:
    assert joint_advantages(rewards)[0].tolist() == grpo(rewards[0].tolist())


@settings(deadline=None)
@given(pools(), st.randoms(use_true_random=False))
def test_the_layout_in_views_does_not_matter(rewards: torch.Tensor, random: Random) -> None:
    """Joint means joint: M x G rewards dealt to the views in another way get the same advantages, to the bit."""
    order = list(range(rewards.numel()))
    random.shuffle(order)
    dealt = rewards.reshape(-1)[order].reshape(rewards.shape)
    assert torch.equal(joint_advantages(dealt).reshape(-1), joint_advantages(rewards).reshape(-1)[order])


def test_a_pool_is_normalised_over_its_views_not_in_each() -> None:
    """Views that are each all right or all wrong are dead to GRPO; their pool is not."""
    advantages = joint_advantages(torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
    one = 0.5 / (0.5 + EPSILON)
    assert advantages.tolist() == [[one, one], [-one, -one]]


@settings(deadline=None)
@given(st.floats(0, 1, width=32), st.integers(1, 6), st.integers(1, 8))
def test_equal_rewards_get_exactly_zero(value: float, m: int, g: int) -> None:
    advantages = joint_advantages(torch.full((m, g), value, dtype=torch.float32))
    assert torch.equal(advantages, torch.zeros(m, g))


def test_eight_float32_rewards_of_0_9_get_exactly_zero_though_their_std_is_not_0() -> None:
    rewards = torch.full((2, 4), 0.9, dtype=torch.float32)
    assert rewards.std() > 0
    assert torch.equal(joint_advantages(rewards), torch.zeros(2, 4))


def test_a_spread_near_rounding_is_not_blown_up() -> None:
    rewards = torch.tensor([[0.5, 0.5, 0.5, 0.5 + 1e-9]], dtype=torch.float64)
    assert joint_advantages(rewards).abs().max() < 1e-4


def test_a_list_of_pools_gives_each_pool_its_own() -> None:
    first, second = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.2], [0.4], [0.9]])
    both = joint_advantages([first, second])
    assert torch.equal(both[0], joint_advantages(first))
    assert torch.equal(both[1], joint_advantages(second))
    assert both[0].dtype == torch.float32


@pytest.mark.parametrize("bad", [torch.empty(0, 4), torch.tensor([[1.0, float("nan")]])])
def test_what_is_no_pool_raises(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="finite"):
        joint_advantages(bad)


def dead_rate(success: np.ndarray, responses: int, rng: np.random.Generator) -> float:
    """Share of dead pools among draws [Q, M, G] of binary rewards with success probabilities [Q, M]."""
    rewards = rng.random((*success.shape, responses)) < success[..., None]
    pools = torch.from_numpy(rewards.astype(np.float64))
    return sum(not a.any() for a in joint_advantages(list(pools))) / len(pools)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_pooling_never_makes_more_dead_pools_at_equal_mean_success(spread: float) -> None:
    """By AM-GM: prod p_m^G + prod (1 - p_m)^G <= p^(MG) + (1 - p)^(MG), with p the mean of the p_m."""
    rng = np.random.default_rng(0)
    logits = rng.normal(1.5, 1.5, (4000, 1)) + spread * rng.normal(size=(4000, 4))
    success = 1 / (1 + np.exp(-logits))
    mean = success.mean(1, keepdims=True)
    pooled = (success**2).prod(1) + ((1 - success) ** 2).prod(1)
    single = mean[:, 0] ** 8 + (1 - mean[:, 0]) ** 8
    assert (pooled <= single + 1e-12).all()
    assert dead_rate(success, 2, rng) == pytest.approx(pooled.mean(), abs=0.02)
    assert dead_rate(mean, 8, rng) == pytest.approx(single.mean(), abs=0.02)
    if spread >= 1:
        assert dead_rate(success, 2, rng) < dead_rate(mean, 8, rng)
