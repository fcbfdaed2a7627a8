"""Families: prompts equal to those of the stock processors, true times in all of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View
from tests.tiny_policy import (
    BUILDERS,
    EVERY,
    NEEDS_WORDS,
    PICTURE,
    QUESTION,
    TEMPORAL,
    VISION,
    exact_policy,
    full_row,
    prompts,
    save,
    some_responses,
    view,
)
from trainer.families import FAMILIES, VIDEO
from trainer.policy import Policy, load_policy

SYSTEM_TURN = {"role": "system", "content": [{"type": "text", "text": SYSTEM}]}
FPS = 24


# Prompts


def stock_text(processor: Any, content: list[dict[str, str]], answer: str | None = None) -> str:
    """The stock template around what the user says, and around the answer where one is given."""
    messages = [SYSTEM_TURN, {"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)
    return text


def byte_pair_policy(family: str) -> Policy:
    """A policy whose tokenizer joins white space and words, so that where a text is cut would show."""
    _, plain = BUILDERS[family](0)
    asked = question_text(*QUESTION)
    texts = [stock_text(plain, [{"type": "text", "text": lead + asked}], "red it is") for lead in ("", "\n\n")]
    learned = [*texts, "\n\nFrame from 00:03:<3.0 seconds>\n\n"]
    return Policy(*BUILDERS[family](0, *learned), "tiny")


def media_id(policy: Policy) -> int:
    """The token that stands for a patch of a video."""
    config = policy.model.config
    return int(config.image_token_id if config.model_type == "smolvlm" else config.video_token_id)


def stock_inputs(processor: Any, family: str, one: View) -> Any:
    """What the stock processor makes of a view and QUESTION; a frame fills a temporal patch where there are such."""
    content = [{"type": "video"}, {"type": "text", "text": question_text(*QUESTION)}]
    repeat = 1 if family == "smolvlm" else TEMPORAL
    return processor(
        text=[stock_text(processor, content)],
        videos=[torch.from_numpy(np.repeat(one.frames, repeat, axis=0)).permute(0, 3, 1, 2)],
        video_metadata=[
            {
                "fps": float(FPS),
                "frames_indices": np.repeat(np.rint(one.times * FPS).astype(int), repeat).tolist(),
                "total_num_frames": 600,
            }
        ],
        do_sample_frames=False,
        return_tensors="pt",
    )


@pytest.mark.parametrize("family", EVERY[1:])
def test_a_prompt_is_that_of_the_stock_processor(family: str) -> None:
    """Ids and pixels, token for token; that of Qwen3-VL is compared in tests/test_exactness.py."""
    policy = byte_pair_policy(family)
    one = view(5)
    [ours] = policy.prompts([one], [QUESTION])
    stock = stock_inputs(policy.processor, family, one)
    assert torch.equal(ours.ids, stock["input_ids"][0])
    assert torch.equal(ours.types == VIDEO, torch.isin(ours.ids, torch.tensor([media_id(policy)])))
    if family == "smolvlm":
        assert torch.equal(ours.pixels, stock["pixel_values"][0].flatten(1))
        return
    assert torch.equal(ours.pixels, stock["pixel_values_videos"])
    assert torch.equal(ours.grid, stock["video_grid_thw"])
    assert torch.equal(ours.types, stock["mm_token_type_ids"][0])


@pytest.mark.parametrize("family", EVERY)
def test_an_answered_prompt_is_the_stock_conversation(family: str) -> None:
    """With and without a video: question and written response in the template's own words, token for token."""
    policy = byte_pair_policy(family)
    content = [{"type": "text", "text": question_text(*QUESTION)}]
    text = stock_text(policy.processor, content, "red it is")
    [blind] = policy.family.heads([View(np.empty((0, 64, 96, 3), np.uint8), np.empty(0))])
    tail = policy.family.tail(*QUESTION, seen=False)
    [asked] = policy.prompts([View(np.empty((0, 64, 96, 3), np.uint8), np.empty(0))], [QUESTION], blind=True)
    assert asked.ids.tolist() == [*blind.ids.tolist(), *tail.tolist()]
    ids = torch.cat([asked.ids, policy.family.response("red it is")])
    stock = policy.processor.tokenizer(text, add_special_tokens=False).input_ids
    assert ids.tolist() == stock[: len(ids)]
    assert policy.processor.tokenizer.decode(stock[len(ids) :]).strip() == ""
    [seen] = policy.prompts([view(2)], [QUESTION])
    assert policy.processor.tokenizer.decode(seen.ids[-len(tail) :]).endswith(
        policy.processor.tokenizer.decode(policy.family.tail(*QUESTION)[-8:])
    )


@pytest.mark.parametrize("family", EVERY)
def test_special_tokens_in_a_question_are_plain_text(family: str) -> None:
    policy = byte_pair_policy(family)
    names = policy.processor.tokenizer.all_special_tokens
    special = torch.tensor(policy.processor.tokenizer.convert_tokens_to_ids(names))
    question = "is it " + "".join(names)
    for seen in (True, False):
        spelt, plain = (policy.family.tail(q, [], seen=seen) for q in (question, "is it"))
        assert spelt[torch.isin(spelt, special)].tolist() == plain[torch.isin(plain, special)].tolist()
        assert question in policy.processor.tokenizer.decode(spelt)


@pytest.mark.parametrize("family", EVERY)
def test_true_times_reach_the_model(family: str) -> None:
    """The same pictures at other times are another prompt, and the model's answer to it differs."""
    policy = exact_policy(family)
    frames = view(3).frames
    [early, late, again] = prompts(policy, *(View(frames, np.array(t)) for t in ([0, 2, 9], [0, 6, 9], [0, 2, 9])))
    assert torch.equal(early.pixels, late.pixels)
    assert torch.equal(early.ids, again.ids)
    assert not (torch.equal(early.ids, late.ids) and torch.equal(early.positions, late.positions))
    [response] = some_responses(0, 4)
    with torch.no_grad():
        one, two, three = (full_row(policy, p, response, 1.0) for p in (early, late, again))
    assert torch.equal(one, three)
    assert (one - two).abs().max() > 1e-4


def test_time_counts_from_the_video() -> None:
    """Not from the view's first frame: an answer in seconds means the video. 2 ticks a second."""
    policy = exact_policy("qwen2_5_vl")
    frames = view(2).frames
    early, late = policy.prompts([View(frames, np.array(t)) for t in ([0.0, 3.0], [10.0, 13.0])], [QUESTION] * 2)
    seen = early.types == VIDEO
    start = int(seen.nonzero()[0])
    assert early.positions[0, seen].unique().tolist() == [start, start + 6]
    assert late.positions[0, seen].unique().tolist() == [start + 20, start + 26]
    assert torch.equal(early.positions[1:, seen], late.positions[1:, seen])
    assert late.next_position == early.next_position + 20


@NEEDS_WORDS
def test_timestamps_of_smolvlm() -> None:
    """Minutes and whole seconds, rounded down; the length is the time of the last frame."""
    policy = exact_policy("smolvlm")
    [prompt] = policy.prompts([View(view(3).frames, np.array([0.04, 3.96, 71.5]))], [QUESTION])
    text = policy.processor.tokenizer.decode(prompt.ids)
    assert text.count(PICTURE[0]) == 3 * 4
    assert "three frames from a 0:01:11 " in text
    assert [f"\nFrame from {t}:{PICTURE[1]}" in text for t in ("00:00", "00:03", "01:11")] == [True] * 3


@pytest.mark.parametrize("family", EVERY)
def test_banned_ids_are_the_vision_tokens(family: str) -> None:
    policy = exact_policy(family)
    named = policy.processor.tokenizer.convert_ids_to_tokens(policy.family.banned_ids)
    assert sorted(named) == sorted(PICTURE if family == "smolvlm" else VISION)
    assert policy.family.eos_id not in policy.family.banned_ids
    [prompt] = policy.prompts([view(2)], [QUESTION])
    assert set(prompt.ids[prompt.types == VIDEO].tolist()) <= set(policy.family.banned_ids)


# Loading


def test_every_family_is_tested() -> None:
    assert set(BUILDERS) == set(FAMILIES)


@pytest.mark.parametrize("family", EVERY)
def test_a_saved_policy_loads(family: str, tmp_path: Path) -> None:
    loaded = load_policy(save(tmp_path, family=family))
    made = Policy(*BUILDERS[family](0), "tiny")
    assert type(loaded.family) is type(made.family)
    assert loaded.family.banned_ids == made.family.banned_ids
    one = view(2)
    [a], [b] = (p.prompts([one], [QUESTION]) for p in (loaded, made))
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.positions, b.positions)
    with torch.no_grad():
        [x], [y] = loaded.encode([a]), made.encode([b])
    assert torch.equal(x.pooled, y.pooled)
    towers = sum(p.numel() for p in loaded.family.vision(loaded.model).parameters())
    layers = sum(p.numel() for p in loaded.family.language(loaded.model).parameters())
    assert towers + layers + loaded.model.lm_head.weight.numel() == sum(p.numel() for p in loaded.model.parameters())


def test_an_unknown_family_lists_those_that_work(tmp_path: Path) -> None:
    """Before any weights: the folder has none."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(UserError) as error:
        load_policy(tmp_path)
    assert all(word in str(error.value) for word in ("llava", *FAMILIES))


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    """For an unknown family as for a known one whose config names classes of its own."""
    ran = tmp_path / "ran"
    folder = save(tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    (folder / "config.json").write_text(json.dumps(config))
    load_policy(folder)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(UserError, match="own"):
        load_policy(folder)
    assert not ran.exists()


def test_a_package_that_a_processor_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", lambda n: str(n))
    folder = save(tmp_path, family="smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(UserError, match="num2words"):
        load_policy(folder)
