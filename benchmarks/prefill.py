"""Eight responses to one view: prefilled once and its cache repeated, against `generate(num_return_sequences=8)`."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import toyworld
from pipeline.views import View
from toyworld.policy import build_policy
from toyworld.scenes import SIZE
from trainer.families import Prompt
from trainer.policy import Policy, load_policy
from trainer.rollout import rollout

RESPONSES, TOKENS, ROUNDS = 8, 24, 5
QUESTION = ("what shape is the red thing ?", ["ball", "box", "star", "ring"])
LENGTHS = {100: 6, 1000: 134}
"""About how many tokens the prompt has -> frames of the view."""

Way = Callable[[Policy, Prompt, int, int], list[list[int]]]
"""(policy, prompt, longest response, seed) -> tokens by response."""


def policies() -> dict[str, Policy]:
    """The shipped toy policy, and a random one whose language model has 17 times the weights and whose vision tower
    is the toy's: most of the work is the language model's, as in large policies."""
    mid = build_policy(0)
    config = mid.model.config
    sizes = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 8, "num_attention_heads": 12}
    for name, value in {**sizes, "num_key_value_heads": 6}.items():
        setattr(config.text_config, name, value)
    config.vision_config.out_hidden_size = sizes["hidden_size"]
    torch.manual_seed(0)
    model = type(mid.model)(config)
    model.generation_config = mid.model.generation_config
    return {"toy": load_policy(toyworld.POLICY), "mid": Policy(model.eval(), mid.processor, "mid")}


def prompt_of(policy: Policy, frames: int) -> Prompt:
    """A question about a view of noise, a frame every half second."""
    pixels = np.random.default_rng(0).integers(0, 256, (frames, SIZE, SIZE, 3), dtype=np.uint8)
    return policy.prompts([View(pixels, np.arange(frames) / 2)], [QUESTION])[0]


def once(policy: Policy, prompt: Prompt, tokens: int, seed: int) -> list[list[int]]:
    """Our way: encode the view, prefill its prompt, repeat the cache."""
    torch.manual_seed(seed)
    with torch.no_grad():
        features = policy.encode([prompt])
    [drawn] = rollout(
        policy.model,
        policy.family,
        [prompt],
        features,
        [[0] * RESPONSES],
        temperature=1.0,
        max_tokens=tokens,
        choose=lambda p, t: torch.multinomial(p, 1)[:, 0],
    )
    return [s.tokens.tolist() for s in drawn]


def generate(policy: Policy, prompt: Prompt, tokens: int, seed: int) -> list[list[int]]:
    """The stock way: the view is encoded once, its prompt stands in the batch once a response."""
    torch.manual_seed(seed)
    out: Tensor = policy.model.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        mm_token_type_ids=prompt.types[None],
        pixel_values_videos=prompt.pixels,
        video_grid_thw=prompt.grid,
        num_return_sequences=RESPONSES,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        suppress_tokens=policy.family.banned_ids,
        max_new_tokens=tokens,
    )
    rows = out[:, len(prompt.ids) :].tolist()
    end = policy.family.eos_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


WAYS: dict[str, Way] = {"once": once, "generate": generate}


@contextmanager
def counted(policy: Policy) -> Iterator[dict[str, int]]:
    """Counts what passes through the model meanwhile: tokens of the language model, patches of the vision tower."""
    counts = {"tokens": 0, "patches": 0}

    def language(_: nn.Module, args: Any) -> None:
        counts["tokens"] += args[0].shape[:2].numel()

    def vision(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        counts["patches"] += len(args[0] if args else kwargs["hidden_states"])

    hooks = [
        # Both ways call this module of the first layer for every token.
        policy.model.get_decoder().layers[0].input_layernorm.register_forward_pre_hook(language),
        policy.family.vision(policy.model).register_forward_pre_hook(vision, with_kwargs=True),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def check(policy: Policy, prompt: Prompt, tokens: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """One draw in each way in float64, where a difference is an error and not rounding; what each way counted.

    Raises:
        RuntimeError: the ways drew different samples under one seed.
    """
    policy.model.double()
    exact = replace(prompt, pixels=prompt.pixels.double())
    drawn, counts = {}, {}
    for name, way in WAYS.items():
        with counted(policy) as found:
            drawn[name] = way(policy, exact, tokens, seed)
        counts[name] = found
    policy.model.float()
    if drawn["once"] != drawn["generate"]:
        raise RuntimeError(f"the same seed drew other samples: {drawn}")
    return counts


def timed(policy: Policy, prompt: Prompt, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in float32, in turns, each round with a seed of its own; the first round warms up.

    Raises:
        RuntimeError: the ways had different lengths to draw, so that their times say nothing.
    """
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds + 1):
        steps = {}
        for name in sorted(WAYS, reverse=turn % 2 == 0):
            begun = time.perf_counter()
            drawn = WAYS[name](policy, prompt, tokens, turn)
            seconds = time.perf_counter() - begun
            steps[name] = max(len(response) for response in drawn)
            if turn:
                took[name].append(seconds)
        if len(set(steps.values())) > 1:
            raise RuntimeError(f"one way drew longer responses than the other: {steps}")
    return took


def measure(tokens: int, rounds: int, threads: int) -> dict[str, Any]:
    """Both ways for each policy and length of the prompt; ratios are those of `generate` over ours."""
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {"same_samples": True, "responses": RESPONSES, "tokens": tokens, "rounds": rounds}
    figures |= {"threads": threads, "seconds_ratio": {}, "token_ratio": {}, "patch_ratio": {}, "prompt_tokens": {}}
    figures["milliseconds"] = {}
    for name, policy in policies().items():
        for length, frames in LENGTHS.items():
            case, prompt = f"{name}_{length}", prompt_of(policy, frames)
            counts = check(policy, prompt, tokens)
            took = timed(policy, prompt, tokens, rounds)
            ratio = round(median(b / a for a, b in zip(took["once"], took["generate"], strict=True)), 2)
            figures["seconds_ratio"][case] = figures[f"once_vs_generate_{case}"] = ratio
            figures["prompt_tokens"][case] = len(prompt.ids)
            for unit, kind in (("token_ratio", "tokens"), ("patch_ratio", "patches")):
                figures[unit][case] = round(counts["generate"][kind] / counts["once"][kind], 2)
            for way in WAYS:
                figures["milliseconds"][f"{way}_{case}"] = round(1000 * median(took[way]), 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefill", description=__doc__, allow_abbrev=False)
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"longest response (default: {TOKENS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each way (default: {ROUNDS})")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the model, in both ways")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.tokens, arguments.rounds, arguments.threads)
    print(
        f"{RESPONSES} responses of at most {arguments.tokens} tokens to one view, CPU, float32, {figures['threads']} "
        f"threads, median of {figures['rounds']} rounds; the same samples under one seed"
    )
    print(f"  {'':10s}{'prompt':>8s}{'once':>12s}{'generate':>12s}{'seconds':>9s}{'tokens':>8s}{'patches':>9s}")
    for case, length in figures["prompt_tokens"].items():
        ours, theirs = (figures["milliseconds"][f"{way}_{case}"] for way in WAYS)
        ratios = [figures[unit][case] for unit in ("seconds_ratio", "token_ratio", "patch_ratio")]
        print(f"  {case:10s}{length:8d}{ours:9.1f} ms{theirs:9.1f} ms{ratios[0]:9.2f}{ratios[1]:8.2f}{ratios[2]:9.2f}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
