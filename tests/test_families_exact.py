"""Every family, loaded from its folder: packing, one encoding a view and text-only prompts equal the stock model.

Random models in float64. Rollouts of every family are compared in tests/test_exactness.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.views import View
from tests.tiny_policy import EVERY, QUESTION, full_row, save, some_responses, stock_video, view
from trainer.families import TEXT, Prompt
from trainer.packing import Row, Segment, pack
from trainer.policy import Policy, load_policy
from trainer.rollout import rollout

TEMPERATURE = 0.7


@pytest.fixture(scope="module", params=EVERY)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Written and read as a user's policy is."""
    loaded = load_policy(save(tmp_path_factory.mktemp("policy"), family=request.param))
    loaded.model.double()
    return loaded


def nothing() -> View:
    return View(np.empty((0, 64, 96, 3), np.uint8), np.empty(0))


def asked(policy: Policy, *views: View) -> list[Prompt]:
    """Prompts in float64; without a video where a view has no frames."""
    heads = policy.family.heads(views)
    out = []
    for head, v in zip(heads, views, strict=True):
        tail = policy.family.tail(*QUESTION, seen=len(v.frames) > 0)
        place = head.next_position + torch.arange(len(tail)).expand(3, -1)
        out.append(
            Prompt(
                torch.cat([head.ids, tail]),
                torch.cat([head.types, torch.full_like(tail, TEXT)]),
                torch.cat([head.positions, place], dim=1),
                head.pixels.double(),
                head.grid,
            )
        )
    return out


def tower(policy: Policy) -> nn.Module:
    """The module that every encoding passes."""
    inner: Any = policy.model.model
    module: nn.Module = inner.vision_model if hasattr(inner, "vision_model") else inner.visual
    return module


@contextmanager
def encodings(policy: Policy) -> Iterator[list[int]]:
    """One entry for each pass of the tower meanwhile."""
    seen: list[int] = []
    hook = tower(policy).register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        yield seen
    finally:
        hook.remove()


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    policy.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def test_packed_rows_equal_full_rows_in_logprobs_and_gradients(policy: Policy) -> None:
    """Videos of different lengths at uneven times, and none; the tower learns too, and runs once."""
    group = asked(policy, view(2, seed=1), nothing(), view(4, 96, 64, seed=2))
    responses = [some_responses(1, 5, 9, 1), some_responses(3, 4), some_responses(2, 3, 7)]
    packed = pack([Row(p, [Segment(r) for r in rs]) for p, rs in zip(group, responses, strict=True)], 0)
    with encodings(policy) as passes:
        short = policy.logprobs(packed, policy.encode(group), TEMPERATURE)
        assert len(passes) == 1
    plain = torch.cat([full_row(policy, p, r, TEMPERATURE) for p, rs in zip(group, responses, strict=True) for r in rs])
    assert (short - plain).abs().max() < 1e-6
    weights = torch.arange(1, len(plain) + 1)
    ours, theirs = gradients(policy, (weights * short).sum()), gradients(policy, (weights * plain).sum())
    assert ours.keys() == theirs.keys()
    learning = {id(p) for p in policy.family.vision(policy.model).parameters()}
    assert any(id(p) in learning and p.grad is not None for p in policy.model.parameters())
    floor = 1e-6 * max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= 1e-6 * max(float(gradient.abs().max()), floor), name


def test_the_language_model_never_runs_the_tower(policy: Policy) -> None:
    """Features, and then none: neither a prefill nor a decoding step encodes."""
    group = asked(policy, view(2, seed=3), nothing(), view(3, seed=4))
    with torch.no_grad():
        features = policy.encode(group)
        with encodings(policy) as passes:
            drawn = rollout(
                policy.model, policy.family, group, features, [[1, 2], [3], [4]], temperature=1.0, max_tokens=6
            )
        assert passes == []
        for prompt, own in zip(group, drawn, strict=True):
            for sampled in own:
                plain = full_row(policy, prompt, sampled.tokens, 1.0)
                assert (sampled.logprobs - plain).abs().max() < 1e-6


def test_features_do_not_depend_on_company(policy: Policy) -> None:
    """Views of different sizes encoded together and alone; nothing for none."""
    group = asked(policy, view(2, seed=3), nothing(), view(3, 96, 160, seed=4))
    with torch.no_grad():
        together = policy.encode(group)
        alone = [policy.encode([p])[0] for p in group]
    assert [len(f.pooled) > 0 for f in together] == [True, False, True]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip((one.pooled, *one.deepstack), (other.pooled, *other.deepstack), strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, rtol=0, atol=1e-12)


def even(frames: int) -> View:
    """Frames half a second apart from 0: the stock model's own positions are right for those, in every family."""
    return View(view(frames).frames, np.arange(frames) / 2)


def test_one_prefill_samples_what_generate_samples(policy: Policy) -> None:
    """The stock loop with the stock positions and processor outputs, one generator: the same tokens."""
    [prompt] = asked(policy, even(3))
    count, length = 8, 24
    inputs: dict[str, Any] = stock_video(policy, prompt)
    if "video_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = prompt.types[None]
    if policy.model.config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor([0.5])
    torch.manual_seed(5)
    stock = policy.model.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        **inputs,
        num_return_sequences=count,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        suppress_tokens=policy.family.banned_ids,
        max_new_tokens=length,
    )[:, len(prompt.ids) :]
    torch.manual_seed(5)
    [ours] = rollout(
        policy.model,
        policy.family,
        [prompt],
        policy.encode([prompt]),
        [[0] * count],
        temperature=TEMPERATURE,
        max_tokens=length,
        choose=lambda p, t: torch.multinomial(p, 1)[:, 0],
    )
    for sampled, row in zip(ours, stock, strict=True):
        assert sampled.tokens.tolist() == row[: len(sampled.tokens)].tolist()


def test_the_stock_forward_agrees_where_its_positions_are_right(policy: Policy) -> None:
    """Ours against none: whole rows with everything left to the model."""
    [prompt] = asked(policy, even(3))
    inputs: dict[str, Any] = stock_video(policy, prompt)
    if "video_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([prompt.types, torch.zeros(6, dtype=torch.long)])[None]
    if policy.model.config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor([0.5])
    [response] = some_responses(7, 6)
    with torch.no_grad():
        ids = torch.cat([prompt.ids, response])[None]
        logits = policy.model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0]
        logits = logits[len(prompt.ids) - 1 : -1] / TEMPERATURE
        logits[:, policy.family.banned_ids] = -torch.inf
        stock = logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]
        packed = pack([Row(prompt, [Segment(response)])], 0)
        ours = policy.logprobs(packed, policy.encode([prompt]), TEMPERATURE)
    assert (ours - stock).abs().max() < 1e-6
