"""benchmarks/step.py compares like with like: prompts of the wanted length for every side, and the same numbers."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from benchmarks.step import lowest, ratios
from benchmarks.step_bare import Bare, operations, prompt_of, special
from benchmarks.step_models import SIZES, build
from benchmarks.step_sides import OURS, Ours, ours, with_processor
from benchmarks.step_world import build_processor, cases, conversation
from trainer import products

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
        side, [prompt] = with_processor("tiny", way, True, LENGTH, 1)
        side.model.double()
        one = prompt()
        side.run(replace(one, pixels=one.pixels.double()), 0)
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
    _, [prompt] = with_processor("tiny", "onepass", True, LENGTH, 1)
    assert stock["pixel_values"].shape == prompt().pixels.shape
    from_memory = prompt_of(SIZES["tiny"], LENGTH, 0)
    assert len(from_memory.ids) == LENGTH
    assert from_memory.pixels.shape == prompt().pixels.shape


ABSENT = ("lance", "polars", "decord", "av", "torchvision", "PIL", "accelerate", "trl", "datasets", "peft", "pyarrow")


def test_torch_and_transformers_are_enough() -> None:
    """A step on prompts from memory, where nothing else can be imported: what a GPU machine has."""
    program = (
        f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
        "sys.argv = ['step_sides', 'onepass', 'tiny', '300', '--steps', '1', '--bare']\n"
        "from benchmarks import step, step_sides\nstep_sides.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["prompt"] == 300
    assert found["largest_difference"] < 1e-4
    assert found["response_tokens_a_second"] > 0
    assert found["mfu"] is None  # of a CPU nobody knows the peak


def test_operations_are_those_that_pytorch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts neither oneDNN's products nor a CPU's attention to prompts, of which a short prompt has little."""
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(products, "available", lambda: False)

    shape = SIZES["tiny"]
    ids = special(shape)
    prompt = prompt_of(shape, LENGTH, 0)
    side = Ours(build(shape, ids), Bare(ids), "onepass", True)
    with FlopCounterMode(display=False) as counter:
        side.run(prompt, 0)
    # What the last layer leaves out and the mergers of the tower keep the two from being equal.
    assert 0.8 < operations(shape, prompt, 8, 64, frozen=True) / counter.get_total_flops() < 1.25


def test_ratios_say_how_many_times_faster_ours_is() -> None:
    """Best steps, and the least favourable size."""
    one = {"steps": [2.0, 1.0, 4.0], "processor": [1.0, 0.5], "peak_mib": 100}
    other = {"steps": [9.0, 8.0], "processor": [4.0, 5.0], "peak_mib": 300}
    found = ratios({"onepass": one, "cached": one | {"steps": [0.5]}, "trl": other})
    assert found["vs_trl"] == 8
    assert found["cached_vs_trl"] == 16
    assert found["median_vs_trl"] == 4.25
    assert found["processor_vs_trl"] == 8
    assert found["memory_vs_trl"] == 3
    sizes = {"tiny": {"vs_trl": {"1000": 9.0, "4000": 15.0}}, "mid": {"vs_trl": {"1000": 8.0, "4000": 16.0}, "load": 1}}
    assert lowest(sizes) == {"vs_trl": {"1000": 8.0, "4000": 15.0}}
