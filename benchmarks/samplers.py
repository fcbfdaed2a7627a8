"""How long choosing frames takes: each sampler, on 2,000 cached frames and 32 picks."""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from pipeline.samplers import SAMPLERS, Draw, Sampler, parameters_of

FRAMES, PICKS, ROUNDS = 2_000, 32, 200


def relevance(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores like a scorer's, slow waves under noise with one moment that stands out, float32; times at 2 a second."""
    rng = np.random.default_rng(seed)
    waves = np.interp(np.arange(frames), np.linspace(0, frames, 40), rng.normal(0.22, 0.02, 40))
    moment = 0.06 * np.exp(-(((np.arange(frames) - 0.7 * frames) / (0.01 * frames + 1)) ** 2))
    return (waves + moment + rng.normal(0, 0.008, frames)).astype(np.float32), np.arange(frames) / 2


def seconds(draw: Callable[[int], Draw], rounds: int) -> float:
    """Median time of one draw, after a few that do not count."""
    for seed in range(5):
        draw(seed)
    took = []
    for seed in range(rounds):
        begun = time.perf_counter()
        draw(seed)
        took.append(time.perf_counter() - begun)
    return median(took)


def measure(frames: int = FRAMES, picks: int = PICKS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds a draw, {"<sampler>_ms": x}, each with its defaults and a new seed each time."""
    scores, times = relevance(frames)
    figures: dict[str, Any] = {"frames": frames, "picks": picks, "rounds": rounds, "milliseconds": {}}
    for name, sampler in SAMPLERS.items():
        draw = partial(_draw, sampler, scores, times, picks, parameters_of(name, picks))
        figures[f"{name}_ms"] = figures["milliseconds"][name] = round(1000 * seconds(draw, rounds), 4)
    return figures


def _draw(
    sampler: Sampler, scores: np.ndarray, times: np.ndarray, picks: int, parameters: dict[str, Any], seed: int
) -> Draw:
    return sampler.draw(scores, times, picks, seed, parameters, itself=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__, allow_abbrev=False)
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"cached frames (default: {FRAMES})")
    parser.add_argument("--picks", type=int, default=PICKS, help=f"frames a view (default: {PICKS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"draws of each sampler (default: {ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.frames, arguments.picks, arguments.rounds)
    print(f"{arguments.picks} of {arguments.frames} frames, median of {arguments.rounds} draws")
    for name in SAMPLERS:
        print(f"  {name:12s} {figures[f'{name}_ms']:8.3f} ms")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
