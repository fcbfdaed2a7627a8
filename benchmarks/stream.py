"""How long a training step waits for its data: the share of a run's time that is neither rollout nor update.

    python -m benchmarks.stream [--json] [--clips 40] [--steps 20]

Types the commands of a real user on the toy world and reads the run's own metrics. Frames are read while the step
before trains; what is left is the wait.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from toyworld.demo import command, strive_data
from trainer.metrics import read_rows

CLIPS, STEPS = 40, 20
WARM_UP = 2  # steps that also pay for what happens once


def prepare(store: Path, clips: int) -> None:
    """Bring the toy world to a curated dataset."""
    at = ("--store", str(store))
    strive_data("ingest", *at, "--split", "train", "--clips", str(clips))
    strive_data("cache-frames", *at, "--fps", "4")
    strive_data("score-frames", *at)
    strive_data("build-variants", *at)
    strive_data("select", *at, "--split", "train", "--json", reads=True)


def shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of the steps' seconds by phase, of the rows after the warm-up."""
    seconds: dict[str, float] = {}
    for row in rows[WARM_UP:]:
        for phase, value in row["seconds"].items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    total = sum(seconds.values())
    return {phase: value / total for phase, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder) / "store", Path(folder) / "run"
        prepare(store, options.clips)
        words = ("--steps", str(options.steps), "--variants", "4", "--responses", "4", "--max-tokens", "48")
        command(
            *("strive-train", "run", "--store", str(store), "--dataset", "default", "--out", str(out)),
            *(*words, "--temperature", "0.8", "--lr", "1e-4", "--json"),
            reads=True,
        )
        found = shares(read_rows(out / "metrics.jsonl"))
    print(", ".join(f"{phase} {share:.1%}" for phase, share in found.items()))
    if options.json:
        print(json.dumps({"wait_share": found["stream"], "shares": found, "steps": options.steps - WARM_UP}))


if __name__ == "__main__":
    main()
