"""How fast annotations come in: rows a second for a file of 37,000, without videos on disk."""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.ingest import ingest
from pipeline.store import Store

ROWS = 37_000
TEXT = "a man woman child dog ball then slowly runs jumps over the water and holds up his her hand to camera"


def write_annotations(path: Path, rows: int, seed: int = 0) -> None:
    """Captions of moments in the layout of ActivityNet: {video: {duration, timestamps [[s, e]], sentences []}}."""
    rng = random.Random(seed)
    videos: dict[str, Any] = {}
    left = rows
    while left:
        count = min(left, rng.randint(2, 6))
        duration = round(rng.uniform(20, 240), 2)
        spans = [sorted(round(rng.uniform(0, duration), 2) for _ in range(2)) for _ in range(count)]
        name = f"v_{len(videos):06d}"
        videos[name] = {
            "duration": duration,
            "timestamps": [[start, min(duration, end + 0.5)] for start, end in spans],
            "sentences": [" " + " ".join(rng.choices(TEXT.split(), k=rng.randint(6, 20))) + "." for _ in spans],
        }
        left -= count
    path.write_text(json.dumps(videos), encoding="utf-8")


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Ingest a file `rounds` times, each into a new store, in turns with plain `json.load`; the medians."""
    seconds: dict[str, list[float]] = {"ingest": [], "json_load": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.json"
        write_annotations(file, rows)
        for i in range(rounds):
            begun = time.perf_counter()
            with file.open(encoding="utf-8") as stream:
                json.load(stream)
            seconds["json_load"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            report = ingest(Store(Path(folder) / f"store{i}", create=True), file, format="activitynet")
            seconds["ingest"].append(time.perf_counter() - begun)
            if report.samples != rows:
                raise RuntimeError(f"{report.samples} samples of {rows} rows: {report.reasons}")
    typical = {name: median(values) for name, values in seconds.items()}
    return {
        "rows_per_s": round(rows / typical["ingest"]),
        "vs_json_load": round(typical["json_load"] / typical["ingest"], 4),
        "rows": rows,
        "rounds": rounds,
        "milliseconds": {name: round(1000 * value, 1) for name, value in typical.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the file (default: {ROWS})")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is ingested (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.rows, arguments.rounds)
    print(
        f"{arguments.rows} rows into a new store, median of {arguments.rounds}: {figures['rows_per_s']} rows a second"
    )
    for name, value in figures["milliseconds"].items():
        print(f"  {name:10s} {value:9.1f} ms")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
