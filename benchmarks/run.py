"""Run the benchmarks, each in a process of its own, and write what they found into docs/benchmarks.md.

    python -m benchmarks.run [--all]

With --all also those that train for long.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
RUNS = (
    ("benchmarks.cluster",),
    ("benchmarks.decode", "--frames", "8"),
    ("benchmarks.decode", "--frames", "32"),
    ("benchmarks.ingest",),
    ("benchmarks.prefill",),
    ("benchmarks.draws",),
    ("benchmarks.rethreshold",),
    ("benchmarks.samplers",),
    ("benchmarks.score",),
    ("benchmarks.search",),
    ("benchmarks.stream",),
)
LONG = (("benchmarks.selection",), ("benchmarks.step",), ("benchmarks.growth",))
LIBRARIES = (
    *("decord", "av", "pylance", "polars", "simplejpeg", "xxhash", "numpy", "torch", "transformers"),
    *("open_clip_torch", "faiss-cpu", "ray"),
)


def measure(words: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark; its figures are the last line of what it prints.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", *words, "--json"]
    print("$ python", *command[1:], flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, flush=True)
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def page(results: Sequence[tuple[Sequence[str], dict[str, Any]]]) -> str:
    """The page: what was run, where, and for each benchmark a table of its figures and one of medians, if any."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; what is measured and how to read it is in `benchmarks/README.md`. `A_vs_B` is the",
        "time of B divided by the time of A. Ratios hold within one run; absolute times belong to the machine.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {libraries}.",
    ]
    for words, figures in results:
        medians = {f"{name} (ms)": value for name, value in figures.get("milliseconds", {}).items()}
        repeated = {f"{name}_ms" for name in figures.get("milliseconds", {})}
        single = {k: v for k, v in figures.items() if isinstance(v, int | float | str) and k not in repeated}
        lines += ["", f"## {' '.join(words).removeprefix('benchmarks.')}"]
        for row in (single, medians):
            lines += ["", *_table(row)] if row else []
    return "\n".join(lines) + "\n"


def _table(row: dict[str, Any]) -> list[str]:
    return [f"| {' | '.join(row)} |", "|---" * len(row) + "|", f"| {' | '.join(str(v) for v in row.values())} |"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="also those that train for hours")
    chosen = (*RUNS, *LONG) if parser.parse_args().all else RUNS
    results = [(words, measure(words)) for words in chosen]
    PAGE.write_text(page(results), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")


if __name__ == "__main__":
    main()
