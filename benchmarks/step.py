"""Seconds and memory of one optimisation step: ours, our plain path (full rows), and TRL's GRPOTrainer.

Every side trains the same random Qwen3-VL on the same prompts in a process of its own: one group a step, 8 responses of
64 tokens that never end early, AdamW, gradient checkpointing off, the vision tower frozen unless --train-vision. TRL
has no video: it gets the frames as images, which cost the same tokens and patches. The best step of each side counts.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.step_world import SIZES

ROOT = Path(__file__).parent.parent
STEPS = {"onepass": 5, "cached": 5, "packed": 3, "plain": 2, "trl": 2}
TITLES = {
    "onepass": "one prompt pass for rollout and loss",
    "cached": "the same, frozen vision features cached",
    "packed": "prefill once, packed rows",
    "plain": "full rows",
    "trl": "TRL",
}


def run(side: str, size: str, length: int, threads: int, train_vision: bool, steps: int) -> dict[str, Any]:
    """One side in a process of its own, whose peak memory is therefore its own.

    Raises:
        RuntimeError: the process failed; its last words.
    """
    command = [sys.executable, "-m", "benchmarks.step_sides", side, size, str(length)]
    command += ["--threads", str(threads), "--steps", str(steps), *(["--train-vision"] if train_vision else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(
    size: str, lengths: list[int], sides: list[str], threads: int, train_vision: bool, steps: int | None
) -> dict[str, Any]:
    """All sides for each length, and how many times faster (smaller) ours is than each of the others.

    Raises:
        RuntimeError: sides saw prompts of different lengths, so that their times say nothing.
    """
    figures: dict[str, Any] = {"size": size, "threads": threads, "vision": "trained" if train_vision else "frozen"}
    figures |= {"load": [round(x, 1) for x in os.getloadavg()], "sides": {}}
    for other in sides:
        figures |= {f"vs_{other}": {}, f"processor_vs_{other}": {}, f"memory_vs_{other}": {}}
    for length in lengths:
        found = {
            side: run(side, size, length, threads, train_vision, steps or STEPS[side]) for side in ["onepass", *sides]
        }
        if len({f["prompt"] for f in found.values()}) > 1:
            raise RuntimeError(f"prompts differ in length: { {s: f['prompt'] for s, f in found.items()} }")
        figures["sides"][str(length)] = found
        ours = found["onepass"]
        for other in sides:
            theirs = found[other]
            figures[f"vs_{other}"][str(length)] = round(min(theirs["steps"]) / min(ours["steps"]), 1)
            ratio = round(min(theirs["processor"]) / min(ours["processor"]), 1)
            figures[f"processor_vs_{other}"][str(length)] = ratio
            figures[f"memory_vs_{other}"][str(length)] = round(theirs["peak_mib"] / ours["peak_mib"], 2)
        if {"cached", "trl"} <= found.keys():
            for name, unit in (("cached_vs_trl", "steps"), ("processor_cached_vs_trl", "processor")):
                ratio = round(min(found["trl"][unit]) / min(found["cached"][unit]), 1)
                figures.setdefault(name, {})[str(length)] = ratio
    return figures


def show(figures: dict[str, Any]) -> None:
    """A table for people."""
    print(
        f"One step on one view, 8 responses of 64 tokens, {figures['size']} random Qwen3-VL, float32, CPU, "
        f"{figures['threads']} thread(s), vision {figures['vision']}; load {figures['load'][0]} at the start"
    )
    for length, found in figures["sides"].items():
        print(f"  {length} prompt tokens{'seconds':>30s}{'processor s':>14s}{'peak MiB':>11s}")
        for side, f in found.items():
            print(f"    {TITLES[side]:40s}{min(f['steps']):8.2f}{min(f['processor']):12.2f}{f['peak_mib']:11d}")
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in found["onepass"]["milliseconds"].items())
        print(f"    ours in ms: {parts}; {found['onepass']['decode_ms_a_token']} ms a token of decoding")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", choices=SIZES, default="mid", help="of the model (default: mid)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 4000], help="tokens of the prompt")
    parser.add_argument("--sides", nargs="+", choices=list(TITLES)[1:], default=["trl", "cached", "plain", "packed"])
    parser.add_argument("--steps", type=int, help="of each side (default: 2 to 5; the best one counts)")
    parser.add_argument("--threads", type=int, default=1, help="of every side (default: 1)")
    parser.add_argument("--train-vision", action="store_true", help="train the vision tower on all sides")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    a = parser.parse_args()
    figures = measure(a.size, a.lengths, a.sides, a.threads, a.train_vision, a.steps)
    show(figures)
    if a.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
