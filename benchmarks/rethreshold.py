"""What it costs to change one's mind: another threshold on a ledger of two million rollouts, with tag and card.

    python -m benchmarks.rethreshold [--json] [--samples 250000] [--rounds 3] [--dir DIR]

Makes a synthetic store whose ledger is complete, selects once, and then times `strive-data select` with other
thresholds, each in a process of its own, from its start to its end. Nobody may be asked.
"""

# Only the standard library: a child's peak of memory is counted from that of its parent.
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

SAMPLES, ROUNDS = 250_000, 3
SAMPLES_A_VIDEO = 12.5
DRAWS = 8
FIRST = 0.1
THRESHOLDS = (0.2, 0.15, 0.22, 0.12, 0.18, 0.24)  # each makes another selection
PROGRAM = Path(sys.executable).with_name("strive-data")


class Run(NamedTuple):
    """One selection: wall and processor seconds of its process, its peak of memory in GiB, its report."""

    seconds: float
    processor_s: float
    peak_gib: float
    report: dict[str, Any]


def build(store: Path, samples: int) -> None:
    """The store, by a process of its own, so that this one stays small; under its name only once it is whole."""
    fresh = store.with_name(store.name + ".unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    videos = str(max(1, round(samples / SAMPLES_A_VIDEO)))
    words = ("-m", "benchmarks.ledger_world", str(fresh), "--samples", str(samples), "--videos", videos)
    subprocess.run([sys.executable, *words], check=True)
    fresh.rename(store)


def select(store: Path, threshold: float) -> Run:
    """Type one selection and time it.

    Raises:
        RuntimeError: it failed, or asked somebody, or did not look at every rollout.
    """
    command = [str(PROGRAM), "select", "--store", str(store), "--name", "again", "--fixed", "--json"]
    with tempfile.TemporaryFile("w+") as out:
        begun = time.perf_counter()
        process = subprocess.Popen([*command, "--min-var", str(threshold)], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise RuntimeError(f"strive-data select ended with {process.returncode}")
    report: dict[str, Any] = json.loads(text)
    if report["drawn_now"] or report["calls"] != DRAWS * report["pool"]:
        raise RuntimeError(f"{report['drawn_now']} draws were made, and {report['calls']} of the ledger's looked at")
    if report["tag"] not in Path(report["card"]).read_text(encoding="utf-8"):
        raise RuntimeError(f"{report['card']} is not of {report['tag']}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, report)


def measure(folder: Path, samples: int, rounds: int) -> dict[str, Any]:
    """The medians of so many selections, and the highest peak of memory."""
    store = folder / f"store-{samples}"
    if not store.exists():
        build(store, samples)
    for left in ("curated", "verdicts"):  # of an earlier measurement
        shutil.rmtree(store / left, ignore_errors=True)
    select(store, FIRST)
    runs = [select(store, THRESHOLDS[i % len(THRESHOLDS)]) for i in range(rounds)]
    return {
        "seconds": round(median(run.seconds for run in runs), 2),
        "peak_gib": round(max(run.peak_gib for run in runs), 2),
        "processor_s": round(median(run.processor_s for run in runs), 2),
        "seconds_each": [round(run.seconds, 2) for run in runs],
        "rollouts": runs[-1].report["calls"],
        "samples": samples,
        "kept": [run.report["kept"] for run in runs],
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rethreshold",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"with {DRAWS} rollouts each (default: {SAMPLES})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"selections that are timed (default: {ROUNDS})")
    parser.add_argument("--dir", type=Path, help="folder to keep the store in, for the next time (default: none)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        folder: Path = options.dir or Path(fresh)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(folder, options.samples, options.rounds)
    print(
        f"{figures['rollouts']} rollouts of {figures['samples']} samples, another threshold with tag and card: "
        f"{figures['seconds']} s ({figures['processor_s']} s of processor), at most {figures['peak_gib']} GiB"
    )
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
