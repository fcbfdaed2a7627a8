"""A policy that is asked blind: text-only prompts equal the stock model without pixels, alone and beside videos.

The model of `tests.tiny_policy`, in float64.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.answerer import Request
from pipeline.errors import UserError
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View
from tests.tiny_policy import (
    END,
    EVERY,
    PAD,
    QUESTION,
    START,
    VISION,
    build,
    exact_policy,
    full_row,
    some_responses,
    view,
)
from trainer.families import TEXT, Prompt
from trainer.packing import Row, Segment, pack
from trainer.policy import Policy
from trainer.rollout import rollout

TEMPERATURE = 0.7
QUESTIONS = [QUESTION, ("how many balls are there ?", []), ("when does it turn red ?", ["1", "2", "3"])]
NO_TIMES = np.empty(0)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return exact_policy()


def nothing(height: int = 64, width: int = 96) -> View:
    return View(np.empty((0, height, width, 3), np.uint8), NO_TIMES)


def prompts(policy: Policy, *frames: int) -> list[Prompt]:
    """A prompt for each number of frames, each with another question and other pixels."""
    views = [view(n, seed=k) if n else nothing() for k, n in enumerate(frames)]
    texts = [QUESTIONS[k % len(QUESTIONS)] for k in range(len(frames))]
    made = policy.prompts(views, texts, blind=True)
    return [Prompt(p.ids, p.types, p.positions, p.pixels.double(), p.grid) for p in made]


def stock_text(policy: Policy, question: str, options: list[str]) -> Tensor:
    """Ids [P] of a question without a video, by the stock processor."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "text", "text": question_text(question, options)}]},
    ]
    text = policy.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: Tensor = policy.processor(text=[text], return_tensors="pt")["input_ids"][0]
    return ids


def stock_logprobs(policy: Policy, prompt: Prompt, response: Tensor) -> Tensor:
    """Log-probs [T] of a response to a prompt; the stock model without pixels, types and positions if it has none."""
    if len(prompt.grid):
        return full_row(policy, prompt, response, TEMPERATURE)
    ids = torch.cat([prompt.ids, response])[None]
    logits = policy.model(input_ids=ids).logits[0, len(prompt.ids) - 1 : -1] / TEMPERATURE
    logits[:, policy.family.banned_ids] = -torch.inf
    return logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]


def draw(policy: Policy, asked: list[Prompt], seeds: list[list[int]]) -> list[list[tuple[list[int], Tensor]]]:
    how = {"temperature": TEMPERATURE, "max_tokens": 10}
    found = rollout(policy.model, policy.family, asked, policy.encode(asked), seeds, **how)
    return [[(s.tokens.tolist(), s.logprobs) for s in group] for group in found]


# Prompts


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_text_only_prompt_is_that_of_the_stock_processor(policy: Policy, question: tuple[str, list[str]]) -> None:
    [prompt] = policy.prompts([nothing()], [question], blind=True)
    assert torch.equal(prompt.ids, stock_text(policy, *question))
    assert not torch.isin(prompt.ids, torch.tensor(policy.family.banned_ids)).any()
    assert "seconds>" not in policy.processor.decode(prompt.ids).replace(" ", "")
    assert (prompt.types == TEXT).all()


def test_its_positions_are_those_of_the_stock_model(policy: Policy) -> None:
    [prompt] = prompts(policy, 0)
    stock, _ = policy.model.model.get_rope_index(
        input_ids=prompt.ids[None],
        mm_token_type_ids=prompt.types[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
    )
    assert torch.equal(prompt.positions, stock[:, 0])
    assert prompt.next_position == len(prompt.ids)


def test_a_video_adds_its_own_tokens_and_nothing_else(policy: Policy) -> None:
    """What a blind probe takes away is the frames and their times: the words around them stay."""
    one = view(3)
    seen, blind = policy.prompts([one, nothing()], [QUESTION] * 2, blind=True)
    text, words = (policy.processor.decode(p.ids) for p in (seen, blind))
    pieces = [f"<{t:.1f} seconds>{VISION[0]}{VISION[3] * 6}{VISION[1]}" for t in one.times]
    assert text.replace("".join(pieces), "") == words != text


def test_shapes_of_nothing(policy: Policy) -> None:
    blind, seen = policy.prompts([nothing(), view(2)], [QUESTION] * 2, blind=True)
    assert blind.pixels.shape == (0, seen.pixels.shape[1])
    assert blind.pixels.dtype == seen.pixels.dtype
    assert blind.grid.shape == (0, 3)
    assert blind.grid.dtype == seen.grid.dtype


def test_no_video_is_left_out_by_accident(policy: Policy) -> None:
    with pytest.raises(ValueError, match="no frames"):
        policy.prompts([view(2), nothing()], [QUESTION] * 2)


def test_a_template_that_words_it_differently_without_a_video_is_refused() -> None:
    model, processor = build()
    silent = "{{ c['text'] }}"
    processor.chat_template = processor.chat_template.replace(
        silent, "{% if m['content']|length > 1 %}Look. {% endif %}" + silent
    )
    policy = Policy(model, processor, "tiny")
    assert len(policy.prompts([view(1)], [QUESTION])) == 1
    with pytest.raises(UserError, match="with and without a video"):
        policy.prompts([nothing()], [QUESTION], blind=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([PAD, START, END, *VISION, " ", "red"]), max_size=6), st.integers(0, 2))
def test_special_tokens_in_a_question_are_plain_text(policy: Policy, pieces: list[str], frames: int) -> None:
    """A question that spells the video's placeholder once stopped all that was asked with it."""
    question = "is it " + "".join(pieces)
    seen = view(frames) if frames else nothing()
    spelt, plain = policy.prompts([seen, seen], [(question, pieces), QUESTION], blind=True)
    special = torch.tensor(policy.processor.tokenizer.convert_tokens_to_ids([PAD, START, END, *VISION]))
    assert spelt.ids[torch.isin(spelt.ids, special)].tolist() == plain.ids[torch.isin(plain.ids, special)].tolist()
    assert question_text(question, pieces) in policy.processor.decode(spelt.ids)


# Vision


def test_the_tower_runs_once_for_the_videos_and_never_for_text(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    patches: list[int] = []
    tower = policy.family.vision(policy.model)
    hook = tower.register_forward_pre_hook(lambda _, args: patches.append(len(args[0])))
    try:
        mixed = prompts(policy, 0, 2, 0, 3)
        features = policy.encode(mixed)
        assert patches == [sum(len(p.pixels) for p in mixed)]
        blind = policy.encode(prompts(policy, 0, 0))
        assert len(patches) == 1
    finally:
        hook.remove()
    seen = policy.encode([mixed[1], mixed[3]])
    assert [len(f.pooled) for f in features] == [0, len(seen[0].pooled), 0, len(seen[1].pooled)]
    for a, b in zip([features[1], features[3]], seen, strict=True):
        assert torch.equal(a.pooled, b.pooled)
        assert all(torch.equal(x, y) for x, y in zip(a.deepstack, b.deepstack, strict=True))
    for f in (features[0], *blind):
        assert f.pooled.shape == (0, seen[0].pooled.shape[1])
        assert [x.shape for x in f.deepstack] == [f.pooled.shape] * len(seen[0].deepstack)


# Answers


def test_one_prefill_samples_what_generate_samples_without_pixels(policy: Policy) -> None:
    """Text-only prompts of different lengths, one generator, the same tokens."""
    asked, count, length = prompts(policy, 0, 0), 8, 20
    longest = max(len(p.ids) for p in asked)
    lead = [longest - len(p.ids) for p in asked]
    torch.manual_seed(5)
    stock = policy.model.generate(
        input_ids=torch.stack(
            [torch.cat([torch.full((n,), policy.family.pad_id), p.ids]) for n, p in zip(lead, asked, strict=True)]
        ),
        attention_mask=torch.stack([(torch.arange(longest) >= n).long() for n in lead]),
        num_return_sequences=count,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        suppress_tokens=policy.family.banned_ids,
        max_new_tokens=length,
    )[:, longest:]
    torch.manual_seed(5)
    ours = rollout(
        policy.model,
        policy.family,
        asked,
        policy.encode(asked),
        [[0] * count] * 2,
        temperature=TEMPERATURE,
        max_tokens=length,
        choose=lambda p, t: torch.multinomial(p, 1)[:, 0],
    )
    for sampled, row in zip([s for group in ours for s in group], stock, strict=True):
        assert sampled.tokens.tolist() == row[: len(sampled.tokens)].tolist()
        assert (row[len(sampled.tokens) :] == policy.family.pad_id).all()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_any_mixture_equals_the_stock_model_and_each_prompt_alone(policy: Policy, frames: list[int]) -> None:
    asked = prompts(policy, *frames)
    seeds = [[k, k + 50] for k in range(len(asked))]
    together = draw(policy, asked, seeds)
    for prompt, own, group in zip(asked, seeds, together, strict=True):
        [alone] = draw(policy, [prompt], [own])
        for (tokens, logprobs), (again, alone_logprobs) in zip(group, alone, strict=True):
            assert tokens == again
            assert (logprobs - alone_logprobs).abs().max() < 1e-6
            with torch.no_grad():
                plain = stock_logprobs(policy, prompt, torch.tensor(tokens))
            assert (logprobs - plain).abs().max() < 1e-6


@pytest.mark.parametrize("frames", [(0,), (0, 0), (0, 2), (3, 0, 1)])
def test_packed_log_probs_are_the_stock_ones(policy: Policy, frames: tuple[int, ...]) -> None:
    asked = prompts(policy, *frames)
    responses = [some_responses(k, 6, 4) for k in range(len(asked))]
    packed = pack([Row(p, [Segment(t) for t in r]) for p, r in zip(asked, responses, strict=True)], 0)
    with torch.no_grad():
        ours = policy.logprobs(packed, policy.encode(asked), TEMPERATURE)
        plain = [stock_logprobs(policy, p, t) for p, r in zip(asked, responses, strict=True) for t in r]
    assert (ours - torch.cat(plain)).abs().max() < 1e-6


@pytest.mark.parametrize("family", EVERY)
def test_probes_are_answered_whatever_they_are_asked_with(family: str) -> None:
    """Blind, one-frame and whole views: together or one by one, same text and length."""
    policy = exact_policy(family)
    views = [nothing(), view(1, seed=1), view(4, seed=2), nothing()]
    requests = [Request(v.frames, v.times, "choice", *QUESTION, seeds=[k, k + 50]) for k, v in enumerate(views)]
    policy.model.float()
    together = policy.answer(requests, temperature=1.0, max_tokens=8)
    alone = [policy.answer([r], temperature=1.0, max_tokens=8)[0] for r in requests]
    for a, b in zip(together, alone, strict=True):
        assert [(r.text, r.tokens) for r in a] == [(r.text, r.tokens) for r in b]
        assert [r.logprob for r in a] == pytest.approx([r.logprob for r in b], abs=1e-4)
    assert policy.answer([], temperature=1.0, max_tokens=8) == []


def test_a_blind_answer_is_that_of_its_question_and_seed(policy: Policy) -> None:
    """Videos of any size leave the same nothing; another question gives another distribution."""

    def ask(size: tuple[int, int], question: tuple[str, list[str]]) -> list[tuple[str, float | None]]:
        empty = nothing(*size)
        request = Request(empty.frames, empty.times, "choice", *question, seeds=[3, 4])
        [responses] = policy.answer([request], temperature=1.0, max_tokens=8)
        return [(r.text, r.logprob) for r in responses]

    assert ask((64, 96), QUESTION) == ask((32, 160), QUESTION)
    assert ask((64, 96), QUESTION) != ask((64, 96), QUESTIONS[1])
