"""What Ray costs next to local workers, and whether it gives the same rows.

    python -m benchmarks.cluster [--json] [--clips 40] [--batches 300] [--rounds 3]

Two actors of a Ray cluster on this machine against `--workers 2`, in turns: batches that do nothing but return one
byte, and batches that return 8 MB, from the end of the first tenth to the end of the last; then cache-frames on the
toy world, once each, from the start of the run to its last commit.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from pipeline.cluster import RayEngine
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.runner import run
from pipeline.stage import Item, Outcome
from pipeline.store import Store
from pipeline.workers import Engine, execute
from toyworld import dataset
from toyworld.demo import console

LARGE = 8 << 20  # bytes of a large outcome
WORKERS = 2


@dataclass
class Returns:
    """Returns so many bytes a batch, and computes nothing. Its rows go nowhere."""

    size: int
    name: str = "returns"
    reads: tuple[str, ...] = ()
    writes: str = "frames"
    scope: str | None = None
    batch_size: int = 1
    deadline_s: float | None = 60.0

    def plan(self, store: Any) -> list[Item]:
        raise NotImplementedError("its batches are given to the engine directly")

    def setup(self, store: Any, device: str) -> None:
        self._rows = pa.table({"pixels": np.zeros(self.size, np.uint8)})

    def process(self, items: Sequence[Item]) -> Outcome:
        return Outcome(self._rows)


def per_batch(engine: Engine, store: Store, size: int, batches: int) -> float:
    """Milliseconds a batch, once all workers are at work."""
    work = [[Item((str(number),), "f")] for number in range(batches)]
    skipped, ends = batches // 10, []
    for _, outcome in engine(Returns(size), store.location, work, WORKERS, "cpu"):
        if outcome.rows is None or outcome.rows.num_rows != size:
            raise RuntimeError("an outcome did not arrive whole")
        ends.append(time.perf_counter())
    return 1000 * (ends[-1] - ends[skipped]) / (len(ends) - 1 - skipped)


def frames(store: Store) -> pa.Table:
    return store.table("frames").sort_by([("video_id", "ascending"), ("index", "ascending")])


def measure(folder: Path, clips: int, batches: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds; seconds are of one run each."""
    files = dataset.write(folder / "toyworld", clips, 0, "train")
    stores = {name: Store(folder / name, create=True) for name in ("local", "ray")}
    for store in stores.values():
        for file in files:
            ingest(store, file, None, file.stem, "train", "auto", None)
    times: dict[str, list[float]] = {}
    with RayEngine() as ray:
        begun = time.perf_counter()
        list(ray(Returns(1), stores["ray"].location, [[Item(("0",), "f")]], WORKERS, "cpu"))
        start = time.perf_counter() - begun
        engines = {"local": execute, "ray": ray}
        for _ in range(rounds):
            for size, what in ((1, "small"), (LARGE, "large")):
                for name, engine in engines.items():
                    times.setdefault(f"{what}_{name}", []).append(per_batch(engine, stores[name], size, batches))
        seconds = {}
        for name, engine in engines.items():
            seconds[name] = run(CacheFrames(fps=4), stores[name], workers=WORKERS, engine=engine).seconds
    if not frames(stores["local"]).equals(frames(stores["ray"])):
        raise RuntimeError("the engines give different rows")
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "same_rows": frames(stores["ray"]).num_rows,
        "overhead_small_ms": round(medians["small_ray"] - medians["small_local"], 2),
        "overhead_large_ms": round(medians["large_ray"] - medians["large_local"], 2),
        "start_s": round(start, 1),
        "cache_frames_local_s": round(seconds["local"], 1),
        "cache_frames_ray_s": round(seconds["ray"], 1),
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "spread": {name: [round(min(values), 2), round(max(values), 2)] for name, values in times.items()},
        "clips": clips,
        "batches": batches,
        "rounds": rounds,
    }


def show(figures: Mapping[str, Any]) -> None:
    """Print what was found, for people."""
    table = Table(title=f"{WORKERS} workers; {figures['same_rows']} frames, the same from both", title_justify="left")
    for title in ("", "local", "ray"):
        table.add_column(title, justify="right" if title else "left")
    for what in ("small", "large"):
        cells = []
        for name in ("local", "ray"):
            low, high = figures["spread"][f"{what}_{name}"]
            cells.append(f"{figures['milliseconds'][f'{what}_{name}']:.2f} ({low:.2f} to {high:.2f})")
        table.add_row(f"{what} outcome, ms a batch", *cells)
    table.add_row("cache-frames, s", str(figures["cache_frames_local_s"]), str(figures["cache_frames_ray_s"]))
    table.add_row("start of the cluster, s", "", str(figures["start_s"]))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=40, help="clips of the toy world (default: 40)")
    parser.add_argument("--batches", type=int, default=300, help="in a measurement (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.clips, options.batches, options.rounds)
    show(figures)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
