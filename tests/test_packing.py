"""Packed rows equal full rows, in log-probs, in gradients, and in the whole update of a step."""

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny_policy import exact_policy, full_row, prompts, some_responses, view
from trainer.advantage import EPSILON, joint_advantages
from trainer.config import RunConfig
from trainer.families import Prompt
from trainer.grpo import Trainer
from trainer.packing import Row, Segment, micro_batches, pack
from trainer.policy import Policy
from trainer.pools import live_rows
from trainer.rollout import Sampled

TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def policy() -> Policy:
    return exact_policy()


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    policy.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same_gradients(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Equal within 1e-6 of the largest gradient of the same parameter, or of 1e-6 of the largest of all."""
    assert a.keys() == b.keys()
    assert a
    floor = 1e-6 * max(float(g.abs().max()) for g in b.values())
    for name in a:
        scale = max(float(b[name].abs().max()), floor)
        assert float((a[name] - b[name]).abs().max()) <= 1e-6 * scale, name


def test_packed_rows_equal_full_rows_in_logprobs_and_gradients(policy: Policy) -> None:
    """Two prompts of different lengths, responses of different lengths; the vision tower learns too."""
    both = prompts(policy, view(2, seed=1), view(4, seed=2))
    responses = [some_responses(1, 5, 9, 1), some_responses(2, 3, 7)]
    packed = pack([Row(p, [Segment(r) for r in rs]) for p, rs in zip(both, responses, strict=True)], 0)
    short = policy.logprobs(packed, policy.encode(both), TEMPERATURE)
    plain = torch.cat([full_row(policy, p, r, TEMPERATURE) for p, rs in zip(both, responses, strict=True) for r in rs])
    assert (short - plain).abs().max() < 1e-6
    weights = torch.arange(1, len(plain) + 1)
    short_gradients = gradients(policy, (weights * short).sum())
    assert any("visual" in name for name in short_gradients)
    assert_same_gradients(short_gradients, gradients(policy, (weights * plain).sum()))


def test_tokens_before_the_response_carry_no_loss(policy: Policy) -> None:
    """`skip` leaves out log-probs, not context."""
    [prompt] = prompts(policy, view(2))
    first, second = some_responses(3, 8, 6)
    packed = pack([Row(prompt, [Segment(first, skip=3), Segment(second)])], 0)
    found = policy.logprobs(packed, policy.encode([prompt]), 1.0)
    plain = [full_row(policy, prompt, r, 1.0) for r in (first, second)]
    assert (found - torch.cat([plain[0][3:], plain[1]])).abs().max() < 1e-6
    assert packed.owners.tolist() == [0] * 5 + [1] * 6


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 200))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    none = torch.empty(0, dtype=torch.long)
    rows = [Row(Prompt(torch.zeros(n, dtype=torch.long), none, none, none, none), []) for n in lengths]
    batches = micro_batches(rows, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget for b in batches)


def trainer(policy: Policy, **settings: object) -> Trainer:
    defaults = {"policy": "tiny", "variants": 1, "responses": 4, "temperature": TEMPERATURE, "max_grad_norm": 1e9}
    return Trainer(RunConfig.model_validate({**defaults, **settings}), policy, Accelerator(cpu=True))


def drawn_groups(policy: Policy, counts: list[int]) -> tuple[list[Prompt], list[Tensor], list[list[Tensor]]]:
    """One prompt a view with four responses each, and one pool of rewards [M, 4] for each of the `counts` of views."""
    total = sum(counts)
    group = prompts(policy, *(view(1 + k % 3, seed=k) for k in range(total)))
    rng = torch.Generator().manual_seed(1)
    rewards = [torch.randint(0, 2, (m, 4), generator=rng).double() for m in counts]
    responses = [some_responses(k, 3, 6, 2, 5) for k in range(total)]
    return group, rewards, responses


@pytest.mark.parametrize("counts", [[1, 1, 1], [3], [2, 2]])
@pytest.mark.parametrize("micro_tokens", [1, 10**6])
def test_an_update_has_the_gradient_of_plain_full_rows(policy: Policy, counts: list[int], micro_tokens: int) -> None:
    """One view is GRPO, several are STRIVE; however the step is cut. The reference shares no line with the trainer."""
    group, rewards, responses = drawn_groups(policy, counts)
    rewards[-1] = torch.full_like(rewards[-1], 0.9) if len(counts) > 1 else rewards[-1]
    state = {name: value.clone() for name, value in policy.model.state_dict().items()}
    one = trainer(policy, micro_tokens=micro_tokens, freeze_vision=False)
    with torch.no_grad():
        old = [[full_row(policy, p, r, TEMPERATURE) for r in rs] for p, rs in zip(group, responses, strict=True)]
        sampled = [
            [Sampled(r, o.float()) for r, o in zip(rs, os, strict=True)] for rs, os in zip(responses, old, strict=True)
        ]
        features = policy.encode(group)
    live = live_rows(group, features, sampled, joint_advantages(rewards))
    assert len(live) == sum(m for m, pool in zip(counts, rewards, strict=True) if pool.max() != pool.min())
    found = one.update(live)
    packed_gradients = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.load_state_dict(state)

    pools = [(pool - pool.mean()) / (pool.std(correction=0) + EPSILON) for pool in rewards if pool.max() != pool.min()]
    weights = torch.cat([pool.reshape(-1) for pool in pools]).tolist()
    alive = [m for m, pool in zip(counts, rewards, strict=True) for _ in range(m) if pool.max() != pool.min()]
    rows = [(p, r) for p, rs in zip(group[: len(alive)], responses, strict=False) for r in rs]
    logps = [full_row(policy, p, r, TEMPERATURE) for p, r in rows]
    loss = -sum((a * (x - x.detach()).exp()).sum() for a, x in zip(weights, logps, strict=True)) / sum(map(len, logps))
    plain = gradients(policy, loss)
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert found["approx_kl"] == pytest.approx(0.0, abs=1e-10)
    assert found["clip_fraction"] == 0.0
    norm = torch.stack([g.square().sum() for g in plain.values()]).sum().sqrt()
    assert found["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert packed_gradients.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (packed_gradients[name] - gradient).abs().max() <= 1e-5 * norm, name
