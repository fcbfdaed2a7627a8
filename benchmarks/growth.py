"""What a sample costs as a store grows: seconds and memory of every stage at 1,000, 10,000 and 100,000 samples.

    python -m benchmarks.growth [--json] [--sizes 1000,10000,100000] [--dir DIR]

Each stage runs in a process of its own (`benchmarks.growth_world`), which first does the same on a world of two
videos: what a process pays once, imports and the first call of every library, is counted apart as its start. Then the
peak of memory is counted anew and the stage runs. Costs are processor seconds, all threads together, because wall
seconds belong to whatever else the machine does; they are shown too. In the end every stage runs once more with
nothing to do, and views are built with another setting.
"""

# Only the standard library: a child's memory is counted from that of its parent.
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

SIZES = (1_000, 10_000, 100_000)
STAGES = ("ingest", "cache", "scores", "variants", "ledger", "select", "stream")
IDLE = STAGES[:-1]  # a stream always reads
LOOKS = ("status", "verify")
CHANGED = "changed"  # another number of views: all of them are removed and drawn anew


def stage(folder: Path, samples: int, name: str) -> dict[str, Any]:
    """Run a stage in a process of its own.

    Raises:
        CalledProcessError: it failed.
    """
    words = ("-m", "benchmarks.growth_world", str(folder), "--samples", str(samples), "--stage", name)
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def world(folder: Path, samples: int) -> dict[str, dict[str, Any]]:
    """Every stage on a new world of so many samples, again with nothing to do, status and verify, other settings.

    Raises:
        RuntimeError: a stage found nothing to do at first, or something later.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found = {name: stage(folder, samples, name) for name in STAGES}
    found |= {f"idle {name}": stage(folder, samples, name) for name in IDLE}
    found |= {name: stage(folder, samples, name) for name in (*LOOKS, CHANGED)}
    shutil.rmtree(folder)
    for name, about in found.items():
        works = name in (*STAGES, CHANGED) and name != "select"
        if works != bool(about["items"]):
            raise RuntimeError(f"{name} at {samples} samples came to {about['items']} items")
    return found


def a_sample(found: dict[str, dict[str, Any]], samples: int, name: str) -> dict[str, float]:
    """Of one stage: microseconds and bytes a sample, seconds, MiB."""
    about = found[name]
    return {
        "processor_us": 1e6 * about["processor_s"] / samples,
        "wall_us": 1e6 * about["seconds"] / samples,
        "bytes": (about["peak_mib"] - about["base_mib"]) * 2**20 / samples,
        "processor_s": about["processor_s"],
        "seconds": about["seconds"],
        "peak_mib": about["peak_mib"],
    }


def measure(folder: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """All figures; ratios are of the largest size against the others.

    The smallest size, which takes seconds, is measured before, between and behind the others, because a machine is not
    as fast at one time as at another; the median counts.
    """
    rounds: dict[int, list[dict[str, dict[str, float]]]] = {size: [] for size in sizes}
    starts: list[float] = []
    idle = 0.0
    for samples in (sizes[0], *(size for larger in sizes[1:] for size in (larger, sizes[0]))):
        found = world(folder / str(samples), samples)
        rounds[samples].append({name: a_sample(found, samples, name) for name in found})
        starts += [about["start_s"] for about in found.values()]
        if samples == sizes[-1]:
            idle = sum(found[f"idle {name}"]["seconds"] for name in IDLE)
    runs = {size: _medians(rounds[size]) for size in sizes}
    largest, rest = max(sizes), [size for size in sizes if size != max(sizes)]
    names = list(runs[largest])
    out: dict[str, Any] = {
        f"{kind}_ratio_{_short(largest)}_vs_{_short(size)}": {
            name: round(runs[largest][name][column] / runs[size][name][column], 3)
            for name in names
            if runs[size][name][column] > 0
        }
        for size in rest
        for kind, column in (("cost", "processor_us"), ("memory", "bytes"))
    }
    return out | {
        "peak_gib": round(max(about["peak_mib"] for about in runs[largest].values()) / 1024, 3),
        "idle_resume_s": round(idle, 2),
        "idle_processor_s": round(sum(runs[largest][f"idle {name}"]["processor_s"] for name in IDLE), 2),
        "start_s": round(sorted(starts)[len(starts) // 2], 2),
        "runs": {
            _short(size): {n: {k: round(v, 2) for k, v in a.items()} for n, a in runs[size].items()} for size in sizes
        },
    }


def _medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        name: {column: median(one[name][column] for one in rounds) for column in about}
        for name, about in rounds[0].items()
    }


def _short(size: int) -> str:
    return f"{size // 1000}k" if size % 1000 == 0 else str(size)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="samples, ascending, with commas between")
    parser.add_argument("--dir", type=Path, help="folder for the worlds (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    sizes = tuple(int(word) for word in options.sizes.split(","))
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or sizes[0] < 40:
        parser.error("--sizes: two sizes or more, ascending, of at least 40 samples")
    with tempfile.TemporaryDirectory() as fresh:
        figures = measure(options.dir or Path(fresh), sizes)
    for size, stages in figures["runs"].items():
        print(f"{size} samples: microseconds of processor and bytes a sample, seconds, peak MiB")
        for name, about in stages.items():
            row = (about["processor_us"], about["bytes"], about["seconds"], about["peak_mib"])
            print(f"  {name:16} {row[0]:10.0f} {row[1]:10.0f} {row[2]:10.2f} {row[3]:10.0f}")
    largest, start = _short(sizes[-1]), figures["start_s"]
    idle, busy = figures["idle_resume_s"], figures["idle_processor_s"]
    print(f"nothing to do at {largest}: {idle} s, {busy} s of processor; a process starts in {start} s")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
