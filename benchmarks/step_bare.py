"""Steps of benchmarks/step.py without a processor: prompts from memory, so that PyTorch and transformers are enough.

A GPU machine may have neither torchvision nor what reads datasets. Prompts have the length, the frames and the patches
of those that a processor makes; only what is in them is random.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.step_models import END, MERGE, PAD, PATCH, PER_FRAME, SIDE, SIZES, START, TEMPORAL, VISION, Size, build
from benchmarks.step_sides import RESPONSES, TOKENS, Ours, figures_of
from trainer.families import TEXT, VIDEO, Prompt, frame_positions
from trainer.families.qwen3_vl import Qwen3VL

TEXT_TOKENS, STAMP = 186, 14
"""Tokens around frames and question, and of a frame's time, as benchmarks/step_world.py has them."""
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
"""Operations a second in bfloat16 with float32 sums, dense, from the makers' data sheets; by a part of the name."""


def special(size: Size) -> Callable[[str], int]:
    """The last numbers of the vocabulary are the special tokens."""
    names = [PAD, START, END, *VISION]
    return lambda name: size.vocabulary - len(names) + names.index(name)


class Bare(Qwen3VL):
    """Qwen3-VL without a processor: it can do all but read text and pictures."""

    def __init__(self, ids: Callable[[str], int]) -> None:
        self.banned_ids = sorted(map(ids, VISION))
        self.pad_id, self.eos_id = ids(PAD), ids(END)


def prompt_of(size: Size, length: int, seed: int) -> Prompt:
    """Random text and frames of noise, `length` tokens in all."""
    rng = torch.Generator().manual_seed(seed)
    ids = special(size)
    frames = (length - TEXT_TOKENS - 8) // (STAMP + PER_FRAME + 2)
    text = torch.randint(0, ids(PAD), (length,), generator=rng)
    start, end, pad = (torch.tensor([ids(VISION[i])]) for i in (0, 1, 3))
    parts, at = [text[: TEXT_TOKENS // 2]], TEXT_TOKENS // 2
    for _ in range(frames):
        parts += [text[at : at + STAMP], start, pad.expand(PER_FRAME), end]
        at += STAMP
    parts.append(text[: length - sum(map(len, parts))])
    all_ids = torch.cat(parts)
    types = torch.where(all_ids == pad, VIDEO, TEXT)
    side = SIDE // PATCH
    pixels = torch.randn(frames * side**2, 3 * TEMPORAL * PATCH**2, generator=rng)
    positions = frame_positions(types, side // MERGE, side // MERGE)
    return Prompt(all_ids, types, positions, pixels, torch.tensor([[frames, side, side]]))


def operations(size: Size, prompt: Prompt, responses: int, tokens: int, frozen: bool) -> float:
    """Floating-point operations that a step's mathematics asks for when each prompt is computed once.

    Two for a weight and token forward, four backward; attention by what is seen; the head where there is a target.
    Nothing that is computed twice counts twice.
    """
    width, layers, heads, key_heads, inner = size.text
    head = width // heads
    layer = 2 * width * head * (heads + key_heads) + 3 * width * inner
    drawn, length = responses * tokens, len(prompt.ids)
    # Pairs of query and key: within the prompt, and of responses to it and to themselves.
    within, behind = length**2 / 2, drawn * (length + tokens / 2)
    pair = 4 * heads * head
    prompts = layers * (2 * layer * length + pair * within)
    answers = layers * (2 * layer * drawn + pair * behind) + 2 * width * size.vocabulary * drawn
    vision_width, depth, _ = size.vision
    patches = len(prompt.pixels)
    tower: float = 2 * (12 * vision_width**2 * depth + prompt.pixels.shape[1] * vision_width) * patches
    tower += depth * 4 * vision_width * patches * (patches / int(prompt.grid[0, 0]))
    # Forward once for prompts, twice for answers (drawn, then with gradient), backward twice the forward.
    return 3 * prompts + 4 * answers + (1 if frozen else 3) * tower


def bare(size: str, way: str, length: int, frozen: bool, steps: int, device: str) -> dict[str, Any]:
    """Steps of one of our sides, with speed and MFU; weights float32 on a CPU, bfloat16 elsewhere."""
    shape = SIZES[size]
    ids = special(shape)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = build(shape, ids, device=device, dtype=dtype)
    prompts = [prompt_of(shape, length, seed) for seed in range(steps)]
    side = Ours(model, Bare(ids), way, frozen)
    found = figures_of(side, [lambda p=p: p for p in prompts])  # type: ignore[misc]
    seconds = min(found["steps"])
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = next((ops for part, ops in PEAK.items() if part in name), None)
    done = operations(shape, prompts[0], RESPONSES, TOKENS, frozen) / seconds
    return found | {
        "device": name,
        "response_tokens_a_second": round(RESPONSES * TOKENS / seconds, 1),
        "row_tokens_a_second": round(RESPONSES * (length + TOKENS) / seconds, 1),
        "teraflops": round(done / 1e12, 3),
        "mfu": round(done / peak, 4) if peak else None,
    }
