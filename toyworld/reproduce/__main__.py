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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store import Store
from toyworld.reproduce import collect, page, runs
from toyworld.reproduce.datasets import derive, draw
from toyworld.reproduce.plan import FULL, MIN_VAR, POOL, SELECTED, SHIFTED_POOL, TINY, WEIGHTED, Run, Scale, runs_of
from toyworld.reproduce.words import parser
from toyworld.reproduce.work import Prepared, Progress, Workplace, side_by_side

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
        prepared = Prepared(place)
        selections = [prepare(place, prepared, scale), prepare_noisy(place, prepared, scale)]
        for name, policy in ((collect.START, place.start), (collect.NOISY_START, place.noisy_start)):
            runs.evaluate(place, name, policy, scale)
        todo = runs_of(scale, beyond)
        progress = Progress(len(todo), partial(print, flush=True))

        def job(run: Run) -> None:
            progress.step(run.name, runs.do(place, run, scale))

        side_by_side(place, [partial(job, run) for run in todo])
        found = collect.figures(place, scale, prepared, selections, beyond)
        write(place, docs, scale, found, beyond)


def prepare(place: Workplace, prepared: Prepared, scale: Scale) -> dict[str, Any]:
    """Start policy, store and datasets; returns what the selection told."""
    kind = ("--taught", str(scale.taught)) if scale.taught else ("--noise", str(scale.noise))
    prepared.once("start", ("python", "-m", "toyworld.reproduce.start", str(place.start), *kind))
    do = partial(_strive_data, prepared, place.store)
    for split, clips in (("train", scale.clips), ("test", scale.test_clips)):
        do("ingest", "--split", split, "--clips", str(clips))
    do("cache-frames", "--fps", "4")
    do("score-frames")
    # A store holds the views of one sampler at a time; a curated dataset keeps those that it was made with.
    do("build-variants", "--sampler", "uniform", "--no-spatial")
    answers = _answers(place.start, scale)
    do("select", "--name", SHIFTED_POOL, "--keep-all", *answers, "--draws", "2")
    do("build-variants")
    selection = _select(do, answers, scale)
    do("select", "--name", WEIGHTED, "--mode", "weight", *answers, "--views", "variants", "--draws", str(scale.draws))
    derive(Store(place.store), max(scale.seeds, scale.beyond_seeds))
    return selection


def prepare_noisy(place: Workplace, prepared: Prepared, scale: Scale) -> dict[str, Any]:
    """The same clips with annotations of which some are wrong, and a policy with noise; what the selection told."""
    noise = ("--noise", str(scale.noise))
    prepared.once("start", ("python", "-m", "toyworld.reproduce.start", str(place.noisy_start), *noise))
    world, wrong = place.store / "toyworld", place.out / "annotations"
    share = ("--wrong", str(scale.wrong))
    prepared.once("prepare", ("python", "-m", "toyworld.reproduce.annotations", str(world), str(wrong), *share))
    do = partial(_strive_data, prepared, place.noisy_store)
    for file in ("train.json", "train_grounding.jsonl"):
        do("ingest", str(wrong / file), "--videos", str(world), "--split", "train")
    do("cache-frames", "--fps", "4")
    do("score-frames")
    do("build-variants")
    selection = _select(do, _answers(place.noisy_start, scale), scale)
    draw(Store(place.noisy_store), scale.beyond_seeds)
    return selection


def _strive_data(prepared: Prepared, store: Path, command: str, *words: str) -> dict[str, Any]:
    return prepared.once("prepare", ("strive-data", command, *words, "--store", str(store), "--json"))


def _answers(policy: Path, scale: Scale) -> tuple[str, ...]:
    """How a policy is asked."""
    sampling = ("--temperature", str(scale.temperature), "--max-tokens", str(scale.max_tokens))
    return ("--policy", str(policy), "--split", "train", *sampling)


def _select(do: Callable[..., dict[str, Any]], answers: Sequence[str], scale: Scale) -> dict[str, Any]:
    """SELECTED, on the views that STRIVE trains on, and POOL."""
    answers = (*answers, "--views", "variants", "--draws", str(scale.draws))
    selection = do("select", "--name", SELECTED, "--min-var", str(MIN_VAR), *answers)
    pool = do("select", "--name", POOL, "--keep-all", *answers)
    if pool["kept"] != pool["pool"]:
        raise UserError(f"dataset {POOL}", f"{pool['kept']} of {pool['pool']} samples: expected all", "a new --out")
    return selection


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
