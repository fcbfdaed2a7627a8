"""benchmarks/step.py compares like with like: prompts of the wanted length for every side, and the same numbers."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from benchmarks.step_sides import OURS, Ours, ours
from benchmarks.step_world import SIZES, build_processor, cases, conversation

LENGTH = 300


@pytest.mark.parametrize("way", OURS)
def test_each_way_trains_on_what_it_drew(way: str) -> None:
    """All of a response's tokens, log-probs of rollout and loss alike, time for every phase."""
    found = ours("tiny", way, LENGTH, frozen=True, steps=1)
    assert found["prompt"] == LENGTH
    assert found["largest_difference"] < 1e-4
    assert set(found["milliseconds"]) == {"prompt", "vision", "prefill", "decode", "loss", "backward", "optimizer"}


def test_the_three_ways_make_the_same_gradients() -> None:
    """In float64, after one step from the same weights on the same prompt."""
    norms = []
    for way in OURS:
        side = Ours("tiny", way, frozen=True)
        side.model.double()
        [case] = cases(side.processor, LENGTH, 1)
        prompt = side.prompt(case)
        side.run(replace(prompt, pixels=prompt.pixels.double()), 0)
        # Clipping has brought the gradient to norm 1: its direction is what is compared.
        norms.append(torch.cat([p.grad.flatten() for p in side.parameters if p.grad is not None]))
    for other in norms[1:]:
        assert (norms[0] - other).abs().max() < 1e-6 * norms[0].abs().max()


def test_trl_sees_as_many_tokens_as_we_do() -> None:
    """Frames as images in the stock chat template: the same length, and the same patches."""
    processor = build_processor(SIZES["tiny"].vocabulary)
    [case] = cases(processor, LENGTH, 1)
    messages = conversation(list(case.view.times), case.question)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [Image.fromarray(frame) for frame in case.view.frames]
    stock = processor(text=[text], images=images, return_tensors="pt")
    assert stock["input_ids"].shape == (1, LENGTH)
    side = Ours("tiny", "onepass", frozen=True)
    assert stock["pixel_values"].shape == side.prompt(case).pixels.shape
