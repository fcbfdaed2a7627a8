"""Let every fault loose on a small store, many times, and write what it came to into docs/reliability.md.

    python -m tests.faults.storm [--times 30] [--minutes M] [--seed 0] [--only TEXT]

With --only nothing is written, and only faults whose name holds TEXT are let loose. Ends with 1 when a row was lost,
doubled or wrong.
"""

import argparse
import os
import platform
import random
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from tests.faults.cases import KILLS, OTHERS, WORKERS, Case
from tests.faults.damage import DAMAGE
from tests.faults.tally import Tally
from tests.faults.world import ROOT, a_world

PAGE = ROOT / "docs" / "reliability.md"
CASES: tuple[Case, ...] = (*KILLS, *OTHERS, *DAMAGE, *WORKERS)
LIBRARIES = ("pylance", "pyarrow", "polars", "torch", "transformers", "open_clip_torch", "decord", "av", "openai")
TEXT = """\
# Reliability

Written by `make storm`: each fault is let loose on a small store of the toy world, at random moments, and then the same
command is typed again. What is there in the end is compared, row by row, with a store (for training: with a run and its
last checkpoint) that nobody disturbed.

- **times tried**: how often the fault took place. A moment that came after the work's end does not count.
- **rows lost**: rows of the undisturbed store that are missing in the end; also rows of an item of which others are
  there, right after the fault: an item is wholly there or not at all.
- **rows doubled**: rows with the key of another one, right after the fault or in the end.
- **wrong results**: rows that the undisturbed store does not have, right after the fault or in the end; an end that is
  neither success nor one line of error; damage that `strive-data verify` does not find although a row has changed;
  files that nobody names; a checkpoint that is another one.

Moments are spread evenly over the work of a command, behind its imports, one in each of so many equal parts. All rows
are committed after each batch, so that kills fall between many commits. Results of models may differ in their last
digits when a batch is another one (2e-3 in embeddings and scores, 1e-4 in log-probabilities); all else is equal to the
bit.

What is done to them: **kill -9** of the command alone, its workers have to notice. **A worker killed for memory**
gets SIGKILL, as from the kernel, and so does an actor of a Ray cluster. **Disk full**: no file may grow beyond a size
that is drawn for each trial. **Read-only**: the store, or one of its tables, may not be written to. **Two writers**:
the same command twice on one store, at once. **A truncated or bit-flipped file**: any data, version or deletion file
of any table, curated ones included; then `verify`, `verify --repair`, and all commands again. **An endpoint that
hangs**: after some answers none comes any more.
"""


def page(rows: Sequence[tuple[Case, Tally]], command: str, seconds: float) -> str:
    """The whole page."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    head = ["fault", "times tried", "rows lost", "rows doubled", "wrong results"]
    total = [sum(getattr(tally, name) for _, tally in rows) for name in ("tried", "lost", "doubled", "wrong")]
    body = [[case.name, tally.tried, tally.lost, tally.doubled, tally.wrong] for case, tally in rows]
    lines = [
        TEXT,
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, in {seconds / 60:.0f} minutes, on {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, {libraries}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(map(str, row)) + " |" for row in body),
        "| **all** | " + " | ".join(f"**{count}**" for count in total) + " |",
        "",
    ]
    for case, tally in rows:
        lines += [f"- {case.name}: {' '.join(note.split())}" for note in [tally.remark, *tally.notes] if note]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.storm",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=30, help="how often each fault is let loose")
    parser.add_argument("--minutes", type=float, help="let faults loose less often where it would take longer in all")
    parser.add_argument("--seed", type=int, default=0, help="of all moments")
    parser.add_argument("--only", help="faults whose name holds this text")
    asked = parser.parse_args()
    begun = time.monotonic()
    rows: list[tuple[Case, Tally]] = []
    words = ["python", "-m", "tests.faults.storm", "--times", str(asked.times), "--seed", str(asked.seed)]
    words += ["--minutes", f"{asked.minutes:g}"] if asked.minutes else []
    with a_world() as world:
        chosen = [case for case in CASES if not asked.only or asked.only in case.name]
        for place, case in enumerate(chosen, 1):
            started = time.monotonic()
            if asked.minutes:
                world.until = begun + 60 * asked.minutes * place / len(chosen)
            tally = case.storm(world, asked.times, random.Random(f"{asked.seed} {case.name}"))
            rows.append((case, tally))
            took = time.monotonic() - started
            counts = f"{tally.tried} times, {tally.lost} lost, {tally.doubled} doubled, {tally.wrong} wrong"
            print(f"{case.name}: {counts}; {took:.0f} s {tally.notes or ''}", flush=True)
            if not asked.only:  # so that a storm that is cut short has its page too
                PAGE.write_text(page(rows, shlex.join(words), time.monotonic() - begun), encoding="utf-8")
    sys.exit(0 if all(tally.clean and tally.tried for _, tally in rows) else 1)


if __name__ == "__main__":
    main()
