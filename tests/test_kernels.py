"""What a CPU runs in place of PyTorch's own kernels gives their numbers: products, tiles, towers in portions."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.test_onepass import assert_same, gradients, segments, views_of, weighted
from tests.tiny_policy import EVERY, build, exact_policy, prompts, view
from trainer import products, tiles
from trainer.attention import grouped
from trainer.families import base
from trainer.onepass import lay_out
from trainer.packing import Segment
from trainer.policy import Policy
from trainer.rollout import decode
from trainer.tiles import tiled


@pytest.fixture(scope="module", params=EVERY)
def policy(request: pytest.FixtureRequest) -> Policy:
    return exact_policy(request.param)


def differences(out: Tensor, expected: Tensor, inputs: list[Tensor]) -> list[float]:
    """Largest differences of two ways to the same: of values and of each input's gradient, relative to the largest."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    pairs = [(out, expected)]
    pairs += zip(*(torch.autograd.grad((x * weights).sum(), inputs) for x in (out, expected)), strict=True)
    return [((a - b).abs().max() / b.abs().max().clamp(min=0.01)).item() for a, b in pairs]


# Products


@pytest.mark.parametrize(("rows", "inner", "columns"), [(700, 192, 96), (7, 384, 1024), (3, 5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_a_linear_layer(rows: int, inner: int, columns: int, bias: bool) -> None:
    """Values and gradients to the rounding of float32; of many rows, of few rows by a large weight, of small ones."""
    torch.manual_seed(0)
    layer = nn.Linear(inner, columns, bias=bias)
    x = torch.randn(2, inner, rows, requires_grad=True)  # turned: the rows do not lie side by side
    assert products.suits(x, layer.weight) == (rows > 3 and products.available())
    found = differences(products.through(layer, x.mT), layer(x.mT), [x, *layer.parameters()])
    assert max(found) < 1e-5


def test_other_types_and_layers_keep_their_own_product() -> None:
    layer = nn.Linear(512, 1024)
    x = torch.randn(64, 512)
    assert not products.suits(x.double(), layer.double().weight)
    assert not products.suits(x.bfloat16(), layer.bfloat16().weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not products.suits(x, layer.float().weight)

    class Other(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    other = Other(512, 1024)
    assert torch.equal(products.through(other, x), other(x))


# Attention in tiles


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "ROWS", 1)  # 16 queries
    monkeypatch.setattr(tiles, "COLUMNS", 24)


def heads(rows: int, queries: int, keys: int, shared: int) -> list[Tensor]:
    """Queries, keys and values, with queries as layers have them: heads beside each other."""
    query = torch.randn(rows, queries, 2 * shared, 8, dtype=torch.float64).transpose(1, 2)
    return [x.requires_grad_() for x in (query, *(torch.randn(rows, 2, keys, 8, dtype=torch.float64) for _ in "kv"))]


def stock(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 2), st.integers(1, 90), st.integers(1, 3), st.booleans(), st.integers(0, 9))
@pytest.mark.usefixtures("small_tiles")
def test_tiles_are_scaled_dot_product_attention(rows: int, n: int, shared: int, causal: bool, seed: int) -> None:
    """In float64, values and gradients: causal, and behind a mask with closed, open and mixed tiles."""
    torch.manual_seed(seed)
    query, keys, values = heads(rows, n, n if causal else n + 40, shared)
    mask = None
    if not causal:
        mask = torch.rand(rows, 1, n, n + 40) < 0.5
        mask[..., 24:48] = False  # a closed tile
        mask[..., :24] |= torch.rand(rows, 1, 1, 1) < 0.5  # an open one
        mask[..., -1] = True  # every query sees something, and some see it last
    inputs = [query, keys, values]
    assert max(differences(tiled(*inputs, mask, causal), stock(*inputs, mask, causal), inputs)) < 1e-12


def test_long_prompts_run_in_tiles_in_float32() -> None:
    torch.manual_seed(0)
    query, keys, values = [x.detach().float().requires_grad_() for x in heads(1, 1700, 1700, 3)]
    assert tiles.suit(query, keys)
    exact = [x.detach().double().requires_grad_() for x in (query, keys, values)]
    out, expected = grouped(query, keys, values, causal=True), stock(*exact, None, True)
    assert (out - expected).abs().max() < 1e-5
    found = torch.autograd.grad(out.square().sum(), [query, keys, values])
    for a, b in zip(found, torch.autograd.grad(expected.square().sum(), exact), strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    assert not tiles.suit(query[:, :, :100], keys[:, :, :100])
    assert not tiles.suit(query.bfloat16(), keys.bfloat16())


@pytest.mark.usefixtures("small_tiles")
def test_a_step_in_tiles_is_a_step_without(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of different lengths, packed responses behind them, and every gradient."""
    both, responses = views_of(policy)
    found = []
    for least in (10**6, 1):
        monkeypatch.setattr(tiles, "LEAST", least)
        ready = policy.prompt_pass(both, policy.encode(both))
        logp = policy.logprobs_behind(ready, lay_out(segments(responses), 0), 0.7)
        found.append((logp.detach(), gradients(policy, weighted(logp))))
    (plain, expected), (logp, short) = found
    assert (logp - plain).abs().max() < 1e-6
    assert_same(short, expected, within=1e-6)  # norms round to float32, and may fall on either side


# The tower in portions


@pytest.mark.parametrize("most", [1, 40_000, 10**9])
def test_a_tower_in_portions_gives_the_same_features(
    policy: Policy, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame at a time, several views cut anywhere, and all at once: each frame is looked at alone."""
    four = prompts(policy, view(3, seed=1), view(1, 32, 32, seed=2), view(5, 32, 64, seed=3))
    whole = policy.encode(four)
    monkeypatch.setitem(base.PIXELS, "cpu", most)
    passes: list[int] = []
    plain = policy.family.encode_videos  # type: ignore[attr-defined]
    monkeypatch.setattr(policy.family, "encode_videos", lambda m, ps: passes.append(len(ps)) or plain(m, ps))
    with torch.no_grad():
        parts = policy.encode(four)
    assert {1: sum(passes) == 9, 40_000: len(passes) > 1, 10**9: passes == [3]}[most]
    for a, b in zip(parts, whole, strict=True):
        for x, y in zip((a.pooled, *a.deepstack), (b.pooled, *b.deepstack), strict=True):
            assert x.shape == y.shape
            assert (x - y).abs().max() < 1e-6 * y.abs().max()  # norms of the towers round to float32


# Logits


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in _tensors(out):
            self.elements = max(self.elements, x.numel())
        return out


def _tensors(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, list | tuple):
        for x in out:
            yield from _tensors(x)


def test_no_logits_of_all_positions_with_a_vocabulary_of_152000() -> None:
    """Prompt, rollout, loss and backward: nothing is larger than a portion; all logits would be 2.5 times it."""
    model, processor = build(0)
    model.resize_token_embeddings(151_936)
    policy = Policy(model, processor, "wide")
    policy.family.eos_id = -1  # responses end at their longest
    [prompt] = policy.prompts([view(2)], [("what is it ?", ["red", "blue"])])
    with torch.no_grad():
        features = policy.encode([prompt])
    with Largest() as largest:
        ready = policy.prompt_pass([prompt], features)
        [drawn] = decode(model, policy.family, ready, [0], [list(range(14))], temperature=1.0, max_tokens=20)
        laid = lay_out([[Segment(s.tokens) for s in drawn]], 0)
        logp = policy.logprobs_behind(ready, laid, 1.0)
        logp.sum().backward()
    assert len(logp) == 14 * 20
    assert largest.elements <= 2**24
    assert largest.elements * 2.5 < len(logp) * 151_936
    assert (logp - torch.cat([s.logprobs for s in drawn])).abs().max() < 1e-4
