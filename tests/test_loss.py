"""The clipped loss: its values, where its gradient stops, and that micro-batches add up."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from trainer.loss import approx_kl, clip_fraction, ppo_clip, token_mean

seeds = st.integers(0, 2**32 - 1)


def tokens(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, old log-probs and advantages of n tokens, float64."""
    rng = torch.Generator().manual_seed(seed)
    old = -torch.rand(n, generator=rng, dtype=torch.float64) * 3
    new = old + torch.randn(n, generator=rng, dtype=torch.float64) * 0.5
    return new, old, torch.randn(n, generator=rng, dtype=torch.float64)


@given(seeds)
def test_each_token_is_the_textbook_formula(seed: int) -> None:
    new, old, advantages = tokens(seed, 16)
    loss = ppo_clip(new, old, advantages, 0.2, 0.28).tolist()
    for got, n, o, a in zip(loss, new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(n - o)
        assert got == pytest.approx(-min(ratio * a, min(max(ratio, 0.8), 1.28) * a), rel=1e-12)


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    new, _, advantages = tokens(0, 16)
    new.requires_grad_()
    loss = ppo_clip(new, new, advantages)
    assert torch.equal(loss, -advantages)
    loss.sum().backward()
    assert torch.equal(new.grad, -advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.29, 1.0, False),  # already much likelier, and good: no further
        (1.27, 1.0, True),  # the upper bound is 1.28, not 1.2
        (1.29, -1.0, True),  # likelier though bad: pull it back
        (0.79, -1.0, False),
        (0.81, -1.0, True),
        (0.79, 1.0, True),
    ],
)
def test_where_the_gradient_stops(ratio: float, advantage: float, moves: bool) -> None:
    new = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    old, advantages = torch.zeros(1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    ppo_clip(new, old, advantages, 0.2, 0.28).sum().backward()
    assert bool(new.grad.any()) is moves
    assert clip_fraction(new, old, advantages, 0.2, 0.28) == (0.0 if moves else 1.0)


@given(seeds, st.lists(st.integers(0, 24), max_size=5))
def test_micro_batches_add_up_to_one_batch(seed: int, cuts: list[int]) -> None:
    """Loss, gradient, clip fraction and KL do not depend on how a step is cut, whatever the pieces' lengths."""
    n = 24
    new, old, advantages = tokens(seed, n)
    edges = [0, *sorted(cuts), n]

    def step(bounds: list[tuple[int, int]]) -> tuple[float, torch.Tensor, float, float]:
        logp = new.clone().requires_grad_()
        total, clipped, kl = 0.0, 0.0, 0.0
        for a, b in bounds:
            part = logp[a:b], old[a:b], advantages[a:b]
            loss = token_mean(ppo_clip(*part), n)
            loss.backward()
            total += loss.item()
            clipped += (b - a) / n * clip_fraction(*part)
            kl += (b - a) / n * approx_kl(*part[:2])
        assert logp.grad is not None
        return total, logp.grad, clipped, kl

    whole, parts = step([(0, n)]), step(list(pairwise(edges)))
    assert parts[0] == pytest.approx(whole[0], abs=1e-12)
    assert torch.allclose(parts[1], whole[1], atol=1e-14, rtol=0)
    assert parts[2:] == pytest.approx(whole[2:], abs=1e-12)


def test_approx_kl_estimates_the_kl_of_two_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    old = log_softmax(torch.randn(10, generator=rng, dtype=torch.float64), -1)
    new = log_softmax(old + 0.3 * torch.randn(10, generator=rng, dtype=torch.float64), -1)
    drawn = torch.multinomial(old.exp(), 200_000, replacement=True, generator=rng)
    true = (old.exp() * (old - new)).sum().item()
    assert approx_kl(new[drawn], old[drawn]) == pytest.approx(true, rel=0.05)
    assert approx_kl(new, new) == 0.0


@given(seeds)
def test_approx_kl_is_never_negative(seed: int) -> None:
    new, old, _ = tokens(seed, 4)
    assert approx_kl(new, old) >= 0.0


def test_no_tokens() -> None:
    none = torch.empty(0)
    assert clip_fraction(none, none, none) == 0.0
    assert approx_kl(none, none) == 0.0
    with pytest.raises(ValueError, match="live token"):
        token_mean(none, 0)
