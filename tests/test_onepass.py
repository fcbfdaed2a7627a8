"""One prompt pass for rollout and loss equals packed and full rows, in log-probs and in every gradient.

Random models of each family in float64: a difference is an error and not rounding.
"""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from benchmarks.prefill import counted
from tests.tiny_policy import EVERY, exact_policy, full_row, prompts, some_responses, view
from trainer.families import Prompt, VisionFeatures
from trainer.onepass import lay_out, states_behind
from trainer.packing import Row, Segment, pack
from trainer.passes import Passes
from trainer.policy import Policy
from trainer.pools import LiveRow
from trainer.rollout import prefill
from trainer.textmodel import text_model

TEMPERATURE = 0.7
LENGTHS = [(5, 9, 1), (3, 7)]


@pytest.fixture(scope="module", params=EVERY)
def policy(request: pytest.FixtureRequest) -> Policy:
    return exact_policy(request.param)


@pytest.fixture(scope="module")
def qwen() -> Policy:
    return exact_policy()


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    """Every gradient of a loss."""
    policy.model.zero_grad()
    loss.backward()
    return collected(policy)


def collected(policy: Policy) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], within: float = 1e-9) -> None:
    """Equal within this part of the largest gradient of the same parameter, or of 1e-6 of the largest of all."""
    assert a.keys() == b.keys()
    assert a
    floor = 1e-6 * max(float(g.abs().max()) for g in b.values())
    for name in a:
        scale = max(float(b[name].abs().max()), floor)
        assert float((a[name] - b[name]).abs().max()) <= within * scale, name


def views_of(policy: Policy) -> tuple[list[Prompt], list[list[Tensor]]]:
    """Two prompts of different lengths with responses of different lengths, one of a single token."""
    return prompts(policy, view(2, seed=1), view(4, seed=2)), [some_responses(i, *n) for i, n in enumerate(LENGTHS)]


def weighted(logp: Tensor) -> Tensor:
    return (torch.arange(1, len(logp) + 1) * logp).sum()


def segments(responses: list[list[Tensor]]) -> list[list[Segment]]:
    return [[Segment(r) for r in group] for group in responses]


def test_behind_one_prompt_pass_as_in_full_and_packed_rows(policy: Policy) -> None:
    """The vision tower learns too."""
    both, responses = views_of(policy)
    groups = segments(responses)
    ready = policy.prompt_pass(both, policy.encode(both))
    short = policy.logprobs_behind(ready, lay_out(groups, 0), TEMPERATURE)
    plain = torch.cat([full_row(policy, p, r, TEMPERATURE) for p, rs in zip(both, responses, strict=True) for r in rs])
    assert (short - plain).abs().max() < 1e-9
    packed = policy.logprobs(
        pack([Row(p, g) for p, g in zip(both, groups, strict=True)], 0), policy.encode(both), TEMPERATURE
    )
    found = gradients(policy, weighted(short))
    assert any("vision" in name or "visual" in name for name in found)
    assert_same(found, gradients(policy, weighted(packed)))
    # Each full row runs the vision tower anew, whose norms round to float32.
    assert_same(found, gradients(policy, weighted(plain)), within=1e-6)


def test_questions_before_responses_carry_no_loss(qwen: Policy) -> None:
    """`skip`, as supervised lessons have it; and segments of which nothing runs behind the prompt."""
    both, responses = views_of(qwen)
    features = qwen.encode(both)
    for groups in (
        [[Segment(r, skip=len(r) // 2) for r in group] for group in responses],
        [[Segment(torch.tensor([4])), Segment(torch.tensor([5]))], [Segment(torch.tensor([6]))]],
    ):
        packed = pack([Row(p, g) for p, g in zip(both, groups, strict=True)], 0)
        laid = lay_out(groups, 0)
        assert torch.equal(laid.owners, packed.owners)
        assert torch.equal(laid.targets, packed.targets)
        ready = qwen.prompt_pass(both, features)
        short = qwen.logprobs_behind(ready, laid, TEMPERATURE)
        assert (short - qwen.logprobs(packed, features, TEMPERATURE)).abs().max() < 1e-9


def test_gradient_checkpointing_changes_nothing(policy: Policy) -> None:
    """Under the model's own flag our passes compute again what they did not keep; the cache stays whole."""
    both, responses = views_of(policy)
    laid = lay_out(segments(responses), 0)

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        ready = policy.prompt_pass(both, policy.encode(both))
        logp = policy.logprobs_behind(ready, laid, TEMPERATURE)
        return logp.detach(), gradients(policy, weighted(logp))

    plain, plain_gradients = run()
    policy.model.activation_checkpointing_enable()
    try:
        with kept_bytes() as checkpointed:
            again, again_gradients = run()
    finally:
        policy.model.activation_checkpointing_disable()
    with kept_bytes() as whole:
        run()
    assert torch.equal(plain, again)
    assert_same(again_gradients, plain_gradients)
    assert sum(checkpointed) < 0.7 * sum(whole), "checkpointing kept as much as none"


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Bytes of each tensor that the graph keeps for the backward pass."""
    kept: list[int] = []

    def count(x: Tensor) -> Tensor:
        kept.append(x.numel() * x.element_size())
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        yield kept


def test_stock_prefill_under_checkpointing_in_training_is_refused(qwen: Policy) -> None:
    """transformers would hand back an empty cache."""
    [prompt] = prompts(qwen, view(2))
    qwen.model.train()
    qwen.model.activation_checkpointing_enable()
    try:
        with pytest.raises(ValueError, match="leaves no cache"):
            prefill(qwen.model, qwen.family, [prompt], qwen.encode([prompt]), stock=True)
    finally:
        qwen.model.activation_checkpointing_disable()
        qwen.model.eval()


# Passes: a step's prompts


def live(drawn: dict[int, list[Tensor]], prompts: list[Prompt], features: list[VisionFeatures]) -> list[LiveRow]:
    return [
        LiveRow(Row(prompts[i], [Segment(r) for r in rs]), torch.ones(len(rs)), None, features[i])
        for i, rs in drawn.items()
    ]


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (500, 2), (10**6, 6)])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_with_kept_and_repeated_passes_equals_packed_rows(
    qwen: Policy, budget: int, kept: int, frozen: bool
) -> None:
    """Three pools of two views, of which the second is dead: whatever was kept, the same numbers."""
    six = prompts(qwen, *[view(1 + i % 3, seed=i) for i in range(6)])
    qwen.family.vision(qwen.model).requires_grad_(not frozen)
    try:
        with torch.no_grad():
            features = qwen.encode(six)
        passes = Passes(qwen, budget, frozen, nullcontext)
        seeds = [[10 * i, 10 * i + 1] for i in range(6)]
        drawn = passes.draw(six, features, seeds, together=2, side_by_side=6, temperature=TEMPERATURE, max_tokens=6)
        assert len(passes.held) == kept
        rows = live({i: [s.tokens for s in drawn[i]] for i in (0, 1, 4, 5)}, six, features)
        old = {
            id(r.row.prompt): torch.cat([s.logprobs for s in drawn[i]]) for r, i in zip(rows, (0, 1, 4, 5), strict=True)
        }
        qwen.model.zero_grad()
        seen = []
        for part, logp, owners in passes.logprobs(rows, 100, TEMPERATURE):
            assert (logp - torch.cat([old[id(r.row.prompt)] for r in part])).abs().max() < 1e-5
            assert int(owners.max()) + 1 == sum(len(r.row.segments) for r in part)
            logp.sum().backward()
            seen += part
        assert sorted(map(id, seen)) == sorted(map(id, rows))
        found = collected(qwen)
        again = [r.features for r in rows] if frozen else qwen.encode([r.row.prompt for r in rows])
        whole = qwen.logprobs(pack([r.row for r in rows], 0), again, TEMPERATURE)
        assert_same(found, gradients(qwen, whole.sum()))
    finally:
        qwen.family.vision(qwen.model).requires_grad_(True)


def test_a_step_runs_each_prompt_once_and_lets_dead_graphs_go(qwen: Policy) -> None:
    """Tokens: prompts once, each response once token by token and once with gradient; nothing for the dead pool."""
    two = prompts(qwen, view(2, seed=1), view(3, seed=2))
    with torch.no_grad():
        features = qwen.encode(two)
    passes = Passes(qwen, 10**6, True, nullcontext)
    with counted(qwen) as counts:
        drawn = passes.draw(two, features, [[1, 2], [3, 4]], together=1, side_by_side=2, temperature=1.0, max_tokens=4)
    tokens = sum(2 * (max(len(s.tokens) for s in group) - 1) for group in drawn)
    assert counts == {"tokens": sum(len(p.ids) for p in two) + tokens, "patches": 0}
    graphs = [weakref.ref(passes.held[id(p)].ready.hidden) for p in two]
    rows = live({0: [s.tokens for s in drawn[0]]}, two, features)
    with counted(qwen) as counts:
        for _, logp, _ in passes.logprobs(rows, 10**6, 1.0):
            gc.collect()
            assert graphs[1]() is None, "the dead pool's graph is still there"
            logp.sum().backward()
    assert counts["tokens"] == sum(len(s.tokens) - 1 for s in drawn[0])
    assert not passes.held


def test_layers_of_another_kind_take_the_models_own_forward() -> None:
    """A model that computes something else than `TextModel` is noticed, and equals its own packed rows."""
    other = exact_policy()
    assert other.layered
    changed = exact_policy()
    changed.model.get_decoder().layers[1].self_attn.scaling *= 1.5
    assert text_model(changed.model) is None
    both = prompts(changed, view(2, seed=1), view(3, seed=2))
    with torch.no_grad():
        features = changed.encode(both)
    with pytest.raises(ValueError, match="layers that `text_model` knows"):
        changed.prompt_pass(both, features)
    passes = Passes(changed, 10**6, True, nullcontext)
    drawn = passes.draw(both, features, [[1], [2]], together=1, side_by_side=2, temperature=1.0, max_tokens=5)
    rows = live({i: [s.tokens for s in g] for i, g in enumerate(drawn)}, both, features)
    [(part, logp, _)] = passes.logprobs(rows, 10**6, 1.0)
    place = {id(p): torch.cat([s.logprobs for s in g]) for p, g in zip(both, drawn, strict=True)}
    assert (logp - torch.cat([place[id(r.row.prompt)] for r in part])).abs().max() < 1e-5
    ready = prefill(changed.model, changed.family, both, features)
    with pytest.raises(ValueError, match="layers that `text_model` knows"):
        states_behind(changed.model, ready, lay_out([[Segment(torch.tensor([1]))]] * 2, 0))
