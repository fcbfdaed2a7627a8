"""Seconds and memory of one optimisation step: ours, our plain path (full rows), and TRL's GRPOTrainer.

Every side trains the same random Qwen3-VL on the same prompts in a process of its own: one group a step, 8 responses of
64 tokens that never end early, AdamW, gradient checkpointing off, the vision tower frozen unless --train-vision. TRL
has no video: it gets the frames as images, which cost the same tokens and patches. The best step of each side counts.
`vs_trl` is ours with every view encoded, `cached_vs_trl` ours with the frozen tower's features at hand.

On a GPU (--device cuda --shape 2b or 7b) weights are bfloat16 and our prompts come from memory, so that PyTorch and
transformers are enough; TRL takes part where it is installed.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.step_models import SIZES

ROOT = Path(__file__).parent.parent
STEPS = {"onepass": 5, "cached": 5, "packed": 3, "plain": 2, "trl": 2}
TITLES = {
    "onepass": "one prompt pass for rollout and loss",
    "cached": "the same, frozen vision features cached",
    "packed": "prefill once, packed rows",
    "plain": "full rows",
    "trl": "TRL",
}
TRL_NEEDS = ("trl", "datasets", "torchvision", "PIL")


def run(side: str, size: str, length: int, threads: int, train_vision: bool, steps: int, device: str) -> dict[str, Any]:
    """One side in a process of its own, whose peak memory is therefore its own.

    Raises:
        RuntimeError: the process failed; its last words.
    """
    command = [sys.executable, "-m", "benchmarks.step_sides", side, size, str(length), "--device", device]
    command += ["--threads", str(threads), "--steps", str(steps), *(["--train-vision"] if train_vision else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(
    size: str, lengths: list[int], sides: list[str], threads: int, train_vision: bool, steps: int | None, device: str
) -> dict[str, Any]:
    """All sides of one model for each length, and how many times faster (smaller) ours is than each of the others.

    Raises:
        RuntimeError: sides saw prompts of different lengths, so that their times say nothing.
    """
    figures: dict[str, Any] = {"load": [round(x, 1) for x in os.getloadavg()], "sides": {}}
    for length in lengths:
        found = {
            side: run(side, size, length, threads, train_vision, steps or STEPS[side], device)
            for side in ["onepass", *sides]
        }
        if len({f["prompt"] for f in found.values()}) > 1:
            raise RuntimeError(f"prompts differ in length: { {s: f['prompt'] for s, f in found.items()} }")
        figures["sides"][str(length)] = found
        for key, ratio in ratios(found).items():
            figures.setdefault(key, {})[str(length)] = ratio
    return figures


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """How many times faster and smaller ours is: best step, median step, processor seconds, peak memory."""
    out = {}
    for mine, prefix in (("onepass", ""), ("cached", "cached_")):
        if mine not in found:
            continue
        for other in found.keys() - {"onepass", "cached"}:
            ours, theirs = found[mine], found[other]
            out[f"{prefix}vs_{other}"] = min(theirs["steps"]) / min(ours["steps"])
            out[f"median_{prefix}vs_{other}"] = median(theirs["steps"]) / median(ours["steps"])
            out[f"processor_{prefix}vs_{other}"] = min(theirs["processor"]) / min(ours["processor"])
            out[f"memory_{prefix}vs_{other}"] = theirs["peak_mib"] / ours["peak_mib"]
    return {key: round(value, 2) for key, value in sorted(out.items())}


def lowest(sizes: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The least favourable of all sizes for each ratio and length."""
    out: dict[str, dict[str, float]] = {}
    for figures in sizes.values():
        for key, by_length in figures.items():
            if "vs_" in key:
                of = out.setdefault(key, {})
                of |= {length: min(x, of.get(length, x)) for length, x in by_length.items()}
    return out


def show(size: str, figures: dict[str, Any], threads: int, device: str) -> None:
    """A table for people."""
    print(
        f"One step on one view, 8 responses of 64 tokens, {size} random Qwen3-VL, {device}, {threads} thread(s); "
        f"load {figures['load'][0]} at the start"
    )
    for length, found in figures["sides"].items():
        print(f"  {length} prompt tokens{'seconds':>30s}{'processor s':>14s}{'peak MiB':>11s}")
        for side, f in found.items():
            print(f"    {TITLES[side]:40s}{min(f['steps']):8.2f}{min(f['processor']):12.2f}{f['peak_mib']:11d}")
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in found["onepass"]["milliseconds"].items())
        print(f"    ours in ms: {parts}; {found['onepass']['decode_ms_a_token']} ms a token of decoding")
        if "teraflops" in found["onepass"]:
            speed = {name: found["onepass"][name] for name in ("response_tokens_a_second", "teraflops", "mfu")}
            print(f"    ours: {speed}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__, allow_abbrev=False)
    parser.add_argument("--shape", choices=SIZES, nargs="+", help="of the model (default: tiny and mid; 2b on cuda)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 4000], help="tokens of the prompt")
    parser.add_argument("--sides", nargs="+", choices=list(TITLES)[1:], default=["trl", "cached", "plain", "packed"])
    parser.add_argument("--steps", type=int, help="of each side (default: 2 to 5; the best one counts)")
    parser.add_argument("--threads", type=int, default=1, help="of every side (default: 1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--train-vision", action="store_true", help="train the vision tower on all sides")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    a = parser.parse_args()
    sides = a.sides
    missing = [name for name in TRL_NEEDS if find_spec(name) is None]
    if "trl" in sides and missing:
        print(f"TRL's side is left out: {', '.join(missing)} not installed")
        sides = [side for side in sides if side != "trl"]
    sizes = {}
    for size in a.shape or (["tiny", "mid"] if a.device == "cpu" else ["2b"]):
        sizes[size] = measure(size, a.lengths, sides, a.threads, a.train_vision, a.steps, a.device)
        show(size, sizes[size], a.threads, a.device)
    settings = {"device": a.device, "threads": a.threads, "vision": "trained" if a.train_vision else "frozen"}
    if a.json:
        print(json.dumps(lowest(sizes) | settings | {"sizes": sizes}))


if __name__ == "__main__":
    main()
