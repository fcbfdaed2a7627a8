"""Measures what the papers claim on the toy world, with honest controls, and writes docs/results.md of it.

    python -m toyworld.reproduce --out results              at most 40 minutes on 2 cores
    python -m toyworld.reproduce --out results --beyond     recipes that are to beat both controls

Types the commands of a real user. Stop it whenever you like: a second call goes on, and repeats nothing that is done.
"""

import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from toyworld.reproduce import collect, page, runs
from toyworld.reproduce.plan import FULL, TINY, Run, Scale, runs_of
from toyworld.reproduce.prepare import prepare
from toyworld.reproduce.words import parser
from toyworld.reproduce.work import Progress, Workplace, side_by_side

SETUPS = {"full": FULL, "tiny": TINY}


def main(words: Sequence[str] | None = None) -> int:
    given = parser("toyworld.reproduce", __doc__)
    given.add_argument("--out", type=Path, default=Path("results"), help="folder of store and runs (default: results)")
    given.add_argument("--docs", type=Path, default=Path("docs"), help="folder of results.md (default: docs)")
    given.add_argument("--beyond", action="store_true", help="the recipes beyond the papers, not the papers' claims")
    given.add_argument("--scale", choices=list(SETUPS), default="full", help="tiny shows nothing but that it runs")
    options = given.parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        reproduce(Workplace(options.out), options.docs, SETUPS[options.scale], options.beyond)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def reproduce(place: Workplace, docs: Path, scale: Scale, beyond: bool) -> None:
    """Prepare, run what is not done yet, and write the pages.

    Raises:
        UserError: a command failed, or the place holds something else.
    """
    with place.held(scale.world()):
        selections, prepared = prepare(place, scale)
        for name, policy in ((collect.START, place.start), (collect.NOISY_START, place.noisy_start)):
            runs.evaluate(place, name, policy, scale)
        todo = runs_of(scale, beyond)
        progress = Progress(len(todo), partial(print, flush=True))

        def job(run: Run) -> None:
            progress.step(run.name, runs.do(place, run, scale))

        side_by_side(place, [partial(job, run) for run in todo])
        found = collect.figures(place, scale, prepared, selections, beyond)
        write(place, docs, scale, found, beyond)


def write(place: Workplace, docs: Path, scale: Scale, found: dict[str, Any], beyond: bool) -> None:
    """results.md, its picture, its figures as JSON, and the wall times."""
    folder = docs / "results"
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / ("beyond.json" if beyond else "reproduce.json")
    mine.write_text(json.dumps(collect.steady(found), indent=1) + "\n", encoding="utf-8")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}."
    (folder / ("times-beyond.md" if beyond else "times.md")).write_text(page.times(found, machine), encoding="utf-8")
    if not beyond:
        collect.draw(place, scale, folder / "curves.png")
    papers = collect.read(folder / "reproduce.json")
    if papers is None:
        print(f"wrote {mine}; the page is written by the same command without --beyond")
        return
    (docs / "results.md").write_text(page.page(papers, collect.read(folder / "beyond.json")), encoding="utf-8")
    print(f"wrote {docs / 'results.md'}")


if __name__ == "__main__":
    sys.exit(main())
