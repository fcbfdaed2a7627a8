"""Gradient checkpointing: the same log-probs and gradients, at a lower peak of memory, in each kind of pass."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests import tiny_policy
from tests.tiny_policy import EVERY, QUESTION, some_responses, view
from trainer.onepass import lay_out
from trainer.packing import Row, Segment, pack
from trainer.policy import Policy


class Peak(TorchDispatchMode):
    """Bytes of all tensors that are made within it and live at a time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                key = storage._cdata
                if key not in before | self.known:
                    self.known.add(key)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.gone, key, storage.nbytes())
        return out

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def one_pass(policy: Policy, row: Row) -> Tensor:
    """A prompt pass and its responses behind it, as `run` computes a loss."""
    ready = policy.prompt_pass([row.prompt], policy.encode([row.prompt]))
    return policy.logprobs_behind(ready, lay_out([row.segments], 0), 1.0)


def packed_row(policy: Policy, row: Row) -> Tensor:
    """The model's own forward over a packed row, as `sft` computes a loss."""
    return policy.logprobs(pack([row], 0), policy.encode([row.prompt]), 1.0)


@pytest.mark.parametrize("compute", [one_pass, packed_row])
@pytest.mark.parametrize("family", EVERY)
def test_layers_are_computed_again_and_not_kept(family: str, compute: Callable[[Policy, Row], Tensor]) -> None:
    """The tower learns too. In float32, in which all of a model computes."""
    model, processor = tiny_policy.BUILDERS[family](0)
    policy = Policy(model, processor, "tiny")
    [prompt] = policy.prompts([view(12)], [QUESTION])
    row = Row(prompt, [Segment(r) for r in some_responses(0, 30, 40, 50)])

    def run() -> tuple[Tensor, dict[str, Tensor], int]:
        model.zero_grad(set_to_none=True)
        with Peak() as peak:
            logp = compute(policy, row)
            logp.sum().backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return logp.detach(), found, peak.most

    kept, expected, most = run()
    policy.recompute_layers()
    again, found, less = run()
    assert torch.equal(again, kept)
    assert found.keys() == expected.keys()
    assert any("vision" in name or "visual" in name for name in found)
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name
    assert less < 0.7 * most, (less, most)
    assert not any(module.training for module in model.modules()), "a layer was left in training"


def test_a_cache_is_filled_all_the_same() -> None:
    """transformers empties it where a layer is in training; responses would miss their prompt."""
    model, processor = tiny_policy.build()
    policy = Policy(model, processor, "tiny")
    prompts = policy.prompts([view(2)], [QUESTION])
    with torch.no_grad():
        features = policy.encode(prompts)
    from trainer.rollout import decode, prefill

    def answers() -> list[list[int]]:
        out = []
        for stock in (False, True):
            ready = prefill(model, policy.family, prompts, features, stock=stock)
            [drawn] = decode(model, policy.family, ready, [0], [[1, 2]], temperature=1.0, max_tokens=6)
            out += [s.tokens.tolist() for s in drawn]
        return out

    plain = answers()
    policy.recompute_layers()
    assert answers() == plain
