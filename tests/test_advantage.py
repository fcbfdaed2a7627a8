"""Advantages over the pool: GRPO when there is one view, exactly 0 when nothing differs."""

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.advantage import EPSILON, joint_advantages


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


@given(pools())
def test_mean_is_zero(rewards: torch.Tensor) -> None:
    advantages = joint_advantages(rewards)
    assert advantages.shape == rewards.shape
    assert abs(advantages.mean().item()) < 1e-6
    assert torch.isfinite(advantages).all()


@given(pools(most_views=1))
def test_one_view_is_grpo_to_the_bit(rewards: torch.Tensor) -> None:
    assert joint_advantages(rewards)[0].tolist() == grpo(rewards[0].tolist())


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
