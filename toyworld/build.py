"""Rebuild the toy world's weights: the scorer (a tiny CLIP) and the policy (a tiny Qwen3-VL), both from scratch.

python -m toyworld.build [--only scorer|policy] [--seed 0]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from toyworld import CLIP, POLICY, policy, scorer
from toyworld.scenes import scene_of

HELD_OUT = 60  # clips of the policy's exam


def load_clips(split: str, count: int, seed: int) -> list[policy.Clip]:
    """Clips as the store would hold them: encoded, decoded and sampled at the cache's rate."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = [scene_of(seed, split, i) for i in range(count)]
        return [policy.Clip(s, scorer.cached_clip(s, Path(folder)), scorer.TIMES) for s in scenes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["scorer", "policy"], help="build one of the two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scorer", type=Path, default=CLIP, help="folder of the scorer")
    parser.add_argument("--policy", type=Path, default=POLICY, help="folder of the policy")
    options = parser.parse_args()
    start = time.monotonic()

    def log(text: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {text}", flush=True)

    reached: dict[str, Any] = {}
    if options.only != "policy":
        reached["scorer"] = scorer.train(options.scorer, options.seed, log=log)
    if options.only != "scorer":
        torch.set_num_threads(2)
        held_out = load_clips("exam", HELD_OUT, options.seed)
        reached["policy"] = policy.train(options.policy, options.scorer, held_out, options.seed, log)
    reached["seconds"] = round(time.monotonic() - start)
    print(json.dumps(reached, indent=2))


if __name__ == "__main__":
    main()
