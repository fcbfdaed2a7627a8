"""The clipped loss: its values, where its gradient stops, and that micro-batches add up."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from trainer.loss import Level, Objective, Ratio, Size, approx_kl, clip_fraction, k3, log_ratios, ppo_clip, token_mean

seeds = st.integers(0, 2**32 - 1)


def tokens(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, old log-probs and advantages of n tokens, float64."""
    rng = torch.Generator().manual_seed(seed)
    old = -torch.rand(n, generator=rng, dtype=torch.float64) * 3
    new = old + torch.randn(n, generator=rng, dtype=torch.float64) * 0.5
    return new, old, torch.randn(n, generator=rng, dtype=torch.float64)


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


lengths = st.lists(st.integers(1, 7), min_size=1, max_size=8)
levels, ratios = st.sampled_from(["token", "sequence", "constant"]), st.sampled_from(["token", "sequence"])


def owners_of(sizes: list[int], first: int = 0) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(first, first + len(sizes)), torch.tensor(sizes))


@settings(deadline=None)
@given(seeds, lengths, st.lists(st.integers(0, 8), max_size=4), levels, ratios, st.sampled_from([0.0, 0.3]))
def test_every_objective_adds_up_over_micro_batches(
    seed: int, sizes: list[int], cuts: list[int], level: Level, ratio: Ratio, kl: float
) -> None:
    """Loss and gradient do not depend on how whole responses are dealt to micro-batches."""
    new, old, advantages = tokens(seed, sum(sizes))
    reference = tokens(seed + 1, sum(sizes))[1]
    objective = Objective(level=level, ratio=ratio, kl=kl, longest=9)
    size = Size(sum(sizes), len(sizes))
    ends = [0, *torch.tensor(sizes).cumsum(0).tolist()]

    def step(edges: list[int]) -> tuple[float, torch.Tensor]:
        logp, total = new.clone().requires_grad_(), 0.0
        for a, b in pairwise(edges):
            if a < b:
                part = slice(ends[a], ends[b])
                start = reference[part] if kl else None
                loss = objective.loss(logp[part], old[part], advantages[part], owners_of(sizes[a:b]), size, start)
                loss.backward()
                total += loss.item()
        assert logp.grad is not None
        return total, logp.grad

    n = len(sizes)
    whole, parts = step([0, n]), step([0, *sorted(min(c, n) for c in cuts), n])
    assert parts[0] == pytest.approx(whole[0], abs=1e-12)
    assert torch.allclose(parts[1], whole[1], atol=1e-13, rtol=0)


@settings(deadline=None)
@given(seeds, lengths)
def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens_ratios(seed: int, sizes: list[int]) -> None:
    new, old, _ = tokens(seed, sum(sizes))
    found = log_ratios(new, old, owners_of(sizes, 3)).exp()
    for n, part_new, part_old, part in zip(sizes, new.split(sizes), old.split(sizes), found.split(sizes), strict=True):
        mean = math.prod((part_new - part_old).exp().tolist()) ** (1 / n)
        assert part.tolist() == pytest.approx([mean] * n, rel=1e-9)


@settings(deadline=None)
@given(seeds, lengths)
def test_the_sequence_level_of_sequence_ratios_is_gspo(seed: int, sizes: list[int]) -> None:
    """Written on its own: the mean over responses of min(s A, clip(s) A), s the geometric mean; and its gradient."""
    new, old, _ = tokens(seed, sum(sizes))
    each = torch.randn(len(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    owners = owners_of(sizes)
    size = Size(sum(sizes), len(sizes))
    logp = new.clone().requires_grad_()
    found = Objective(0.2, 0.28, level="sequence", ratio="sequence").loss(logp, old, each[owners], owners, size)
    found.backward()
    plain = new.clone().requires_grad_()
    s = torch.stack([(a - b).mean().exp() for a, b in zip(plain.split(sizes), old.split(sizes), strict=True)])
    expected = -torch.minimum(s * each, s.clamp(0.8, 1.28) * each).mean()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(logp.grad, plain.grad, atol=1e-12, rtol=0)  # type: ignore[arg-type]


def test_what_weighs_the_same_at_each_level() -> None:
    """A response of 1 token with loss 1, one of 3 tokens with loss 0; the longest may have 4."""
    owners, zero = owners_of([1, 3]), torch.zeros(4, dtype=torch.float64)
    advantages = torch.tensor([-1.0, 0, 0, 0], dtype=torch.float64)
    found = {
        level: Objective(level=level, longest=4).loss(zero, zero, advantages, owners, Size(4, 2)).item()
        for level in ("token", "sequence", "constant")
    }
    assert found == {"token": 1 / 4, "sequence": 1 / 2, "constant": 1 / 8}


@settings(deadline=None)
@given(seeds)
def test_the_default_objective_is_the_token_mean_of_the_clipped_loss_to_the_bit(seed: int) -> None:
    new, old, advantages = (t.float() for t in tokens(seed, 12))
    found = Objective().loss(new, old, advantages, owners_of([5, 7]), Size(30, 4))
    assert torch.equal(found, token_mean(ppo_clip(new, old, advantages), 30))
    assert Objective().clipped(new, old, advantages, owners_of([5, 7])) == clip_fraction(new, old, advantages)


@settings(deadline=None)
@given(seeds)
def test_the_penalty_is_zero_at_the_reference_and_pulls_back_to_it(seed: int) -> None:
    new, reference, _ = tokens(seed, 8)
    assert torch.equal(k3(new, new), torch.zeros(8, dtype=torch.float64))
    assert (k3(new, reference) >= 0).all()
    logp = new.clone().requires_grad_()
    k3(logp, reference).sum().backward()
    assert torch.allclose(logp.grad, 1 - (reference - new).exp(), atol=1e-12)  # type: ignore[arg-type]


def test_k3_estimates_the_kl_of_two_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    start = log_softmax(torch.randn(10, generator=rng, dtype=torch.float64), -1)
    new = log_softmax(start + 0.3 * torch.randn(10, generator=rng, dtype=torch.float64), -1)
    drawn = torch.multinomial(new.exp(), 200_000, replacement=True, generator=rng)
    true = (new.exp() * (new - start)).sum().item()
    assert k3(new[drawn], start[drawn]).mean().item() == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("size", [(0, 1), (1, 0)])
def test_a_step_of_nothing_has_no_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="live token"):
        Size(*size)
