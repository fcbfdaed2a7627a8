"""The parts of the rollout engine: sampling, decoding behind shared prompts, attention kernels, logits in portions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention as flex_operator
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from benchmarks.prefill import counted
from tests.tiny_policy import EVERY, exact_policy, prompts, some_responses, view
from trainer import attention
from trainer.attention import grouped
from trainer.families import Prompt
from trainer.logits import target_logprobs
from trainer.onepass import Behind, lay_out, states_behind
from trainer.packing import Segment
from trainer.patches import product
from trainer.policy import Policy
from trainer.rollout import decode, joined, prefill, rollout
from trainer.sampling import Sampled, token_logprobs, truncated
from trainer.textmodel import Cache


@pytest.fixture(scope="module", params=EVERY)
def policy(request: pytest.FixtureRequest) -> Policy:
    return exact_policy(request.param)


@pytest.fixture(scope="module")
def qwen() -> Policy:
    return exact_policy()


def assert_alike(a: list[list[Sampled]], b: list[list[Sampled]]) -> None:
    """The same tokens, and log-probs to the rounding of float32."""
    assert [[s.tokens.tolist() for s in group] for group in a] == [[s.tokens.tolist() for s in group] for group in b]
    for x, y in zip([s for g in a for s in g], [s for g in b for s in g], strict=True):
        assert (x.logprobs - y.logprobs).abs().max() < 1e-6


# Decoding


def test_shared_keys_sample_what_the_models_own_forward_samples(policy: Policy) -> None:
    """Prompts and groups of different lengths, longer than the first room for keys, responses that leave early."""
    three = prompts(policy, view(2, seed=3), view(4, seed=4), view(1, seed=5))
    seeds = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]
    with torch.no_grad():
        features = policy.encode(three)
    ready = prefill(policy.model, policy.family, three, features)
    assert isinstance(ready.cache, Cache)
    ours = decode(policy.model, policy.family, ready, range(3), seeds, temperature=1.0, max_tokens=80)
    stock = prefill(policy.model, policy.family, three, features, stock=True)
    assert_alike(ours, decode(policy.model, policy.family, stock, range(3), seeds, temperature=1.0, max_tokens=80))
    lengths = [len(s.tokens) for group in ours for s in group]
    assert min(lengths) < 40
    assert max(lengths) > 64, "no response outgrew the first room: the test shows less than it says"


def test_rows_in_any_order_and_more_than_once(qwen: Policy) -> None:
    """What the ledger does: draws on some of the prompts that were prefilled together, again and again."""
    three = prompts(qwen, view(2, seed=3), view(4, seed=4), view(1, seed=5))
    with torch.no_grad():
        ready = prefill(qwen.model, qwen.family, three, qwen.encode(three))
    whole = decode(qwen.model, qwen.family, ready, [0, 1, 2], [[1], [2], [3]], temperature=1.0, max_tokens=9)
    turned = decode(qwen.model, qwen.family, ready, [2, 0, 2], [[3], [1], [3]], temperature=1.0, max_tokens=9)
    assert_alike(turned, [whole[2], whole[0], whole[2]])
    assert decode(qwen.model, qwen.family, ready, [1], [[]], temperature=1.0, max_tokens=9) == [[]]


def test_prompts_of_several_passes_decode_together(qwen: Policy) -> None:
    three = prompts(qwen, view(2, seed=3), view(4, seed=4), view(1, seed=5))
    with torch.no_grad():
        features = qwen.encode(three)
    parts = [prefill(qwen.model, qwen.family, three[i : i + 2], features[i : i + 2]) for i in (0, 2)]
    one = prefill(qwen.model, qwen.family, three, features)
    seeds = [[1, 2], [3], [4, 5, 6]]
    drawn = [
        decode(qwen.model, qwen.family, r, range(3), seeds, temperature=1.0, max_tokens=9) for r in (joined(parts), one)
    ]
    assert_alike(*drawn)


def test_finished_responses_leave_the_batch(qwen: Policy) -> None:
    """With an end token made likely, about as many tokens run as the responses have, not as many as the longest."""
    [prompt] = prompts(qwen, view(2))
    with torch.no_grad():
        ready = prefill(qwen.model, qwen.family, [prompt], qwen.encode([prompt]))
    hot = 3.0
    with counted(qwen) as counts:
        [drawn] = decode(qwen.model, qwen.family, ready, [0], [list(range(64))], temperature=hot, max_tokens=100)
    used = sum(len(s.tokens) - 1 for s in drawn)
    longest = max(len(s.tokens) for s in drawn)
    assert used <= counts["tokens"] < 1.34 * used + 64
    assert counts["tokens"] < 0.9 * 64 * longest


def test_log_probs_are_the_trained_ones_and_those_drawn_from(qwen: Policy) -> None:
    [prompt] = prompts(qwen, view(2))
    with torch.no_grad():
        features = qwen.encode([prompt])
    [drawn] = rollout(
        qwen.model, qwen.family, [prompt], features, [[1, 2, 3]], temperature=0.8, max_tokens=9, top_p=0.5, top_k=20
    )
    laid = lay_out([[Segment(s.tokens) for s in drawn]], 0)
    with torch.no_grad():
        states = states_behind(qwen.model, prefill(qwen.model, qwen.family, [prompt], features), laid)
        logp = token_logprobs(qwen.model.lm_head(states), qwen.family.banned_ids, 0.8)
    for name, table in (("logprobs", logp), ("drawn", truncated(logp, 0.5, 20))):
        expected = table.gather(-1, laid.targets[:, None])[:, 0]
        assert (torch.cat([getattr(s, name) for s in drawn]) - expected).abs().max() < 1e-6
    assert all(s.drawn is not None and bool((s.drawn > s.logprobs).all()) for s in drawn)


# Truncation


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=12).filter(any),
    st.floats(0.05, 1.0),
    st.integers(0, 12),
)
def test_truncation_keeps_the_fewest_likeliest_tokens(weights: list[int], top_p: float, top_k: int) -> None:
    """Against the words of the definition, token by token."""
    p = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    among = order[: top_k or None]
    mass = float(sum(p[i] for i in among))
    kept, total = [], 0.0
    for i in among:
        if total >= top_p - 1e-12:
            break
        kept.append(i)
        total += float(p[i]) / mass
    found = truncated(p.log()[None], top_p, top_k)[0].exp()
    expected = torch.zeros_like(p)
    expected[kept] = p[kept] / p[kept].sum()
    close = torch.allclose(found, expected)
    # A cumulative sum that meets top_p to the last bit may fall on either side.
    edge = any(math.isclose(float(p[among[:n]].sum()) / mass, top_p, rel_tol=1e-9) for n in range(1, len(among)))
    assert close or edge
    assert float(found.sum()) == pytest.approx(1.0)


def test_truncation_without_limits_is_nothing_and_wrong_limits_are_refused() -> None:
    logp = torch.randn(3, 9).log_softmax(-1)
    assert truncated(logp, 1.0, 0) is logp
    assert (truncated(logp, 1.0, 1).exp().max(-1).values == 1).all()
    for top_p, top_k in ((0.0, 0), (1.1, 0), (1.0, -1)):
        with pytest.raises(ValueError, match="top_p"):
            truncated(logp, top_p, top_k)


# Logits


@pytest.mark.parametrize("positions", [1, 3, 7, 50])
def test_logits_in_portions_change_no_value_and_no_gradient(positions: int) -> None:
    """Of a vocabulary of 1,000 at most a portion of positions exists, and none of it is kept for the backward pass."""
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 1000, dtype=torch.float64)
    states = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(5, 1000, (20,))
    plain = token_logprobs(head(states), [1, 2], 0.7).gather(-1, targets[:, None])[:, 0]
    inputs = [states, *head.parameters()]
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    kept: list[int] = []

    def note(x: Tensor) -> Tensor:
        kept.append(x.numel() if x.shape[-1:] == (1000,) else 0)
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        short = target_logprobs(head, states, targets, [1, 2], 0.7, elements=1000 * positions)
    assert (sum(kept) > 0) == (positions >= 20)
    assert (short - plain).abs().max() < 1e-12
    for a, b in zip(torch.autograd.grad(short.square().sum(), inputs), expected, strict=True):
        assert (a - b).abs().max() < 1e-12
    with torch.no_grad():
        assert torch.equal(target_logprobs(head, states, targets, [1, 2], 0.7, elements=1000 * positions), short)


# Attention kernels


def test_shared_key_heads_are_those_repeated() -> None:
    torch.manual_seed(0)
    query, keys, values = (torch.randn(2, h, 7, 4, dtype=torch.float64) for h in (6, 2, 2))
    repeated = keys.repeat_interleave(3, 1), values.repeat_interleave(3, 1)
    mask = torch.rand(2, 1, 7, 7) < 0.7
    mask |= torch.eye(7, dtype=torch.bool)
    for m, causal in ((None, True), (None, False), (mask, False)):
        plain = F.scaled_dot_product_attention(query, *repeated, attn_mask=m, is_causal=causal)
        assert (grouped(query, keys, values, m, causal=causal) - plain).abs().max() < 1e-12


@contextmanager
def in_float32(policy: Policy) -> Iterator[tuple[list[Prompt], Behind]]:
    """flex_attention wants float32. Two prompts, and responses behind them."""
    policy.model.float()
    try:
        both = [replace(p, pixels=p.pixels.float()) for p in prompts(policy, view(2, seed=1), view(4, seed=2))]
        groups = [[Segment(r) for r in some_responses(i, *n)] for i, n in enumerate([(5, 9, 1), (3, 7)])]
        yield both, lay_out(groups, 0)
    finally:
        policy.model.double()


def test_flex_attention_equals_sdpa_and_refuses_a_gradient_without_a_gpu(qwen: Policy) -> None:
    with in_float32(qwen) as (both, laid):
        with torch.no_grad():
            features = qwen.encode(both)
            ready = prefill(qwen.model, qwen.family, both, features)
            plain = states_behind(qwen.model, ready, laid)
            assert (states_behind(qwen.model, ready, laid, "flex") - plain).abs().max() < 1e-4 * plain.abs().max()
        with pytest.raises(ValueError, match="no backward on this device"):
            states_behind(qwen.model, ready, laid, "flex")


def test_gradients_of_flex_attention_are_those_of_sdpa(qwen: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the operator behind flex_attention, whose own definition of the backward pass runs anywhere.

    flex_attention itself refuses a CPU, and the kernels that it compiles for a GPU are not run here.
    """

    def operator(query: Tensor, keys: Tensor, values: Tensor, block_mask: BlockMask, enable_gqa: bool) -> Tensor:
        options = {"PRESCALE_QK": False, "ROWS_GUARANTEED_SAFE": False, "BLOCKS_ARE_CONTIGUOUS": False}
        options |= {"WRITE_DQ": True, "OUTPUT_LOGSUMEXP": True, "OUTPUT_MAX": False}
        blocks = block_mask.as_tuple()
        out: Tensor = flex_operator(
            query, keys, values, lambda score, *_: score, blocks, query.shape[-1] ** -0.5, options
        )[0]
        return out

    monkeypatch.setattr(attention, "_flex", lambda compiled: operator)
    monkeypatch.setattr(attention, "has_backward", lambda device: True)
    with in_float32(qwen) as (both, laid):
        found = []
        for kind in ("sdpa", "flex"):
            states = states_behind(qwen.model, qwen.prompt_pass(both, qwen.encode(both)), laid, kind)  # type: ignore[arg-type]
            qwen.model.zero_grad()
            (states * torch.linspace(-1, 1, states.shape[-1])).sum().backward()
            grads = {n: p.grad.clone() for n, p in qwen.model.named_parameters() if p.grad is not None}
            found.append((states.detach(), grads))
    (plain, expected), (states, grads) = found
    assert (states - plain).abs().max() < 1e-5 * plain.abs().max()
    floor = 1e-3 * max(float(g.abs().max()) for g in expected.values())
    assert grads.keys() == expected.keys()
    for name, g in grads.items():
        assert (g - expected[name]).abs().max() < 1e-4 * max(float(expected[name].abs().max()), floor), name


# Vision


def test_as_products_are_the_convolution(policy: Policy) -> None:
    """Features of `Policy.encode` and of the tower as it is; afterwards the tower is as it was."""
    two = prompts(policy, view(2, seed=1), view(3, seed=2))
    with torch.no_grad():
        plain, short = policy.family.encode(policy.model, two), policy.encode(two)
    for a, b in zip(plain, short, strict=True):
        assert (a.pooled - b.pooled).abs().max() < 1e-6 * a.pooled.abs().max()
    tower = policy.family.vision(policy.model)
    assert not [m for m in tower.modules() if "forward" in vars(m)]
    conv = torch.nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4), dtype=torch.float64)
    for shape in ((7, 3, 2, 4, 4), (2, 3, 4, 8, 4)):
        x = torch.randn(shape, dtype=torch.float64)
        assert (product(conv, x) - conv(x)).abs().max() < 1e-12
