"""The short way equals the plain way: own prompts, positions, one prefill and sampling, against stock transformers.

A random model in float64, a tokenizer of single characters, and the real processor: Qwen3-VL, and every family where
the plain way can be told in a line. What a family's prompts look like is tests/test_families.py.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.prefill import counted
from pipeline.answerer import Request
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View
from tests.tiny_policy import EVERY, QUESTION, TEMPORAL, exact_policy, full_row, prompts, view
from trainer.families import TEXT, VIDEO, Prompt, frame_positions
from trainer.packing import Row, Segment, pack
from trainer.policy import Policy
from trainer.rollout import inverse_cdf, rollout, token_logprobs

TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def policy() -> Policy:
    return exact_policy()


@pytest.fixture(scope="module", params=EVERY)
def each(request: pytest.FixtureRequest) -> Policy:
    """A policy of every family."""
    return exact_policy(request.param)


# Prompts


def without_outer_pair(policy: Policy, ids: Tensor) -> Tensor:
    """Which tokens of a stock prompt are ours, bool [P]: all but the vision tokens around the video as a whole.

    The model was published with `<t seconds><|vision_start|>frame<|vision_end|>` for each frame and nothing around them
    (transformers 4.57); since 5.10 the template's own pair stays around all frames.
    """
    config = policy.model.config
    starts, ends = (ids == config.vision_start_token_id).nonzero(), (ids == config.vision_end_token_id).nonzero()
    kept = torch.ones_like(ids, dtype=torch.bool)
    if ids[starts[0] + 1] != config.video_token_id:
        kept[starts[0]] = kept[ends[-1]] = False
    return kept


def test_a_prompt_is_that_of_the_stock_processor(policy: Policy) -> None:
    """Ids, pixels, grid and types, for a view whose every frame is shown for a whole temporal patch."""
    one = view(5)
    [ours] = policy.prompts([one], [QUESTION])
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question_text(*QUESTION)}]},
    ]
    text = policy.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    shown = np.repeat(one.frames, TEMPORAL, axis=0)
    indices = np.repeat(np.rint(one.times * 24).astype(int), TEMPORAL).tolist()
    stock = policy.processor(
        text=[text],
        videos=[torch.from_numpy(shown).permute(0, 3, 1, 2)],
        video_metadata=[{"fps": 24.0, "frames_indices": indices, "total_num_frames": 600}],
        do_sample_frames=False,
        return_tensors="pt",
    )
    kept = without_outer_pair(policy, stock["input_ids"][0])
    assert torch.equal(ours.ids, stock["input_ids"][0][kept])
    assert torch.equal(ours.pixels, stock["pixel_values_videos"])
    assert torch.equal(ours.grid, stock["video_grid_thw"])
    assert torch.equal(ours.types, stock["mm_token_type_ids"][0][kept])


def test_true_times_reach_the_model_as_text(policy: Policy) -> None:
    [prompt] = policy.prompts([View(np.zeros((3, 64, 64, 3), np.uint8), np.array([0.04, 3.25, 11.96]))], [QUESTION])
    text = policy.processor.decode(prompt.ids).replace(" ", "")
    assert [f"<{t}seconds>" in text for t in ("0.0", "3.2", "12.0")] == [True] * 3


def test_golden_positions() -> None:
    """Three words, a frame of 2 x 3 patches, two words, another frame, a word."""
    types = torch.tensor([TEXT] * 3 + [VIDEO] * 6 + [TEXT] * 2 + [VIDEO] * 6 + [TEXT])
    assert frame_positions(types, 2, 3).tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 8, 8, 8, 8, 8, 11],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 8, 8, 9, 9, 9, 11],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10, 8, 9, 10, 11],
    ]


def test_golden_positions_of_a_large_view() -> None:
    """16 frames of 10 x 18 merged patches between texts: where the first frame starts and where the prompt ends."""
    row = [TEXT] * 15
    for _ in range(16):
        row += [TEXT] * 4 + [VIDEO] * 180 + [TEXT]
    positions = frame_positions(torch.tensor([*row, *[TEXT] * 40]), 10, 18)
    assert positions[:, 19].tolist() == [19, 19, 19]
    assert positions[:, 19 + 179].tolist() == [19, 28, 36]
    assert positions[:, -1].tolist() == [422, 422, 422]


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (4, 64, 96), (7, 96, 64), (3, 32, 160)])
def test_positions_are_those_of_the_stock_model(policy: Policy, frames: int, height: int, width: int) -> None:
    [prompt] = prompts(policy, view(frames, height, width))
    stock, _ = policy.model.model.get_rope_index(
        input_ids=prompt.ids[None],
        mm_token_type_ids=prompt.types[None],
        video_grid_thw=prompt.grid,
        attention_mask=torch.ones_like(prompt.ids)[None],
    )
    assert torch.equal(prompt.positions, stock[:, 0])
    assert prompt.next_position == int(stock[:, 0, -1].max()) + 1


def test_video_tokens_that_are_no_frame_raise() -> None:
    with pytest.raises(ValueError, match="do not form one frame"):
        frame_positions(torch.tensor([TEXT, *[VIDEO] * 5, TEXT]), 2, 3)
    with pytest.raises(ValueError, match="do not form one frame"):
        frame_positions(torch.tensor([TEXT, *[VIDEO] * 7, TEXT]), 2, 3)


# Rollouts


def test_one_prefill_samples_what_generate_samples(policy: Policy) -> None:
    """Prompts of different lengths, several responses each, some ending early: one generator, the same tokens."""
    both = prompts(policy, view(2, seed=3), view(3, seed=4))
    family, count, length = policy.family, 8, 40
    longest = max(len(p.ids) for p in both)

    def left(rows: list[Tensor], fill: int) -> Tensor:
        return torch.stack([torch.cat([torch.full((longest - len(r),), fill), r]) for r in rows])

    torch.manual_seed(5)
    stock = policy.model.generate(
        input_ids=left([p.ids for p in both], family.pad_id),
        attention_mask=left([torch.ones_like(p.ids) for p in both], 0),
        mm_token_type_ids=left([p.types for p in both], TEXT),
        pixel_values_videos=torch.cat([p.pixels for p in both]),
        video_grid_thw=torch.cat([p.grid for p in both]),
        num_return_sequences=count,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        suppress_tokens=family.banned_ids,
        max_new_tokens=length,
    )[:, longest:]
    torch.manual_seed(5)
    ours = rollout(
        policy.model,
        family,
        both,
        policy.encode(both),
        [[0] * count] * 2,
        temperature=TEMPERATURE,
        max_tokens=length,
        choose=lambda p, t: torch.multinomial(p, 1)[:, 0],
    )
    lengths = []
    for sampled, row in zip([s for group in ours for s in group], stock, strict=True):
        assert sampled.tokens.tolist() == row[: len(sampled.tokens)].tolist()
        assert (row[len(sampled.tokens) :] == family.pad_id).all()
        lengths.append(len(sampled.tokens))
    assert min(lengths) < length, "no response ended early: the test shows less than it says"


def test_a_prompt_passes_through_the_model_once(policy: Policy) -> None:
    """However many responses are drawn: P tokens of prompt, then one for each response and step but the last."""
    [prompt] = prompts(policy, view(3, seed=4))
    for count in (1, 6):
        with counted(policy) as counts:
            [drawn] = rollout(
                policy.model,
                policy.family,
                [prompt],
                policy.encode([prompt]),
                [list(range(count))],
                temperature=TEMPERATURE,
                max_tokens=5,
            )
        steps = max(len(s.tokens) for s in drawn)
        assert counts == {"tokens": len(prompt.ids) + count * (steps - 1), "patches": len(prompt.pixels)}


@pytest.mark.parametrize("temperature", [TEMPERATURE, 1.0, 2.5])
def test_rollout_logprobs_are_the_teacher_forced_ones(each: Policy, temperature: float) -> None:
    both = prompts(each, view(2, seed=5), view(3, seed=6))
    drawn = rollout(
        each.model,
        each.family,
        both,
        each.encode(both),
        [[1, 2, 3], [4, 5]],
        temperature=temperature,
        max_tokens=10,
    )
    with torch.no_grad():
        features = each.encode(both)
        packed = pack([Row(p, [Segment(s.tokens) for s in g]) for p, g in zip(both, drawn, strict=True)], 0)
        in_training = each.logprobs(packed, features, temperature)
        plain = [full_row(each, p, s.tokens, temperature) for p, g in zip(both, drawn, strict=True) for s in g]
    sampled = torch.cat([s.logprobs for group in drawn for s in group])
    assert (sampled - torch.cat(plain)).abs().max() < 1e-6
    assert (sampled - in_training).abs().max() < 1e-6


def test_seeded_draws_repeat_whatever_shares_their_batch(each: Policy) -> None:
    first, second, third = prompts(each, view(2, seed=7), view(5, seed=8), view(1, seed=9))

    def draw(group: list[Prompt], seeds: list[list[int]]) -> list[list[tuple[list[int], Tensor]]]:
        found = rollout(each.model, each.family, group, each.encode(group), seeds, temperature=1.0, max_tokens=12)
        return [[(s.tokens.tolist(), s.logprobs) for s in one] for one in found]

    [[alone]] = draw([first], [[11]])
    [[again]] = draw([first], [[11]])
    assert alone[0] == again[0]
    assert torch.equal(alone[1], again[1])
    company = draw([second, first, third], [[1, 2], [3, 11], [4]])[1][1]
    assert company[0] == alone[0]
    assert (company[1] - alone[1]).abs().max() < 1e-6
    [many] = draw([first], [list(range(16))])
    assert many[11][0] == alone[0]
    assert len({tuple(tokens) for tokens, _ in many}) > 8, "different seeds draw different responses"


def test_vision_tokens_are_never_sampled(each: Policy) -> None:
    """Nor do they take probability from others: with vision tokens made the likeliest, none is drawn."""
    banned = each.family.banned_ids
    [prompt] = prompts(each, view(2))
    head = each.model.lm_head.weight
    before = head.detach().clone()
    try:
        with torch.no_grad():
            features = each.encode([prompt])
            for temperature in (0.0, 1.0, 20.0):
                head[banned] = 100 * before[banned]
                [drawn] = rollout(
                    each.model,
                    each.family,
                    [prompt],
                    features,
                    [list(range(32))],
                    temperature=temperature,
                    max_tokens=8,
                )
                tokens = torch.cat([s.tokens for s in drawn])
                assert not torch.isin(tokens, torch.tensor(banned)).any()
                head.copy_(before)
                packed = pack([Row(prompt, [Segment(s.tokens) for s in drawn])], 0)
                plain = each.logprobs(packed, features, temperature)
                assert (torch.cat([s.logprobs for s in drawn]) - plain).abs().max() < 1e-6
    finally:
        head.data.copy_(before)
    logp = token_logprobs(torch.zeros(2, len(each.processor.tokenizer)), banned, 1.0)
    assert (logp[:, banned] == -torch.inf).all()
    assert torch.allclose(logp.exp().sum(-1), torch.ones(2))


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_a_token_of_probability_0_is_never_chosen(weights: list[float], u: float) -> None:
    probabilities = torch.tensor([[*weights, 1.0, 0.0]])
    probabilities /= probabilities.sum()
    for number in (u, 0.0, 1 - 2**-53):
        token = inverse_cdf(probabilities, torch.tensor([number], dtype=torch.float64))
        assert probabilities[0, token] > 0


def test_inverse_cdf_draws_the_distribution() -> None:
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    u = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = inverse_cdf(probabilities.expand(len(u), -1), u).bincount(minlength=4) / len(u)
    assert (counts - probabilities[0]).abs().max() < 0.005


def test_answers_do_not_depend_on_how_requests_are_batched(each: Policy) -> None:
    """What the ledger stores: same seeds, same text and length, whether asked together or one by one."""
    requests = [
        Request(v.frames, v.times, "choice", *QUESTION, seeds=[k, k + 50])
        for k, v in enumerate([view(2), view(4, seed=1)])
    ]
    each.model.float()
    try:
        together = each.answer(requests, temperature=1.0, max_tokens=8)
        alone = [each.answer([r], temperature=1.0, max_tokens=8)[0] for r in requests]
    finally:
        each.model.double()
    for a, b in zip(together, alone, strict=True):
        assert [(r.text, r.tokens) for r in a] == [(r.text, r.tokens) for r in b]
        assert [r.logprob for r in a] == pytest.approx([r.logprob for r in b], abs=1e-4)
