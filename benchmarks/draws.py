"""What adaptive drawing saves, and whether it comes to the same verdicts as fixed drawing.

    python -m benchmarks.draws [--json] [--clips 120] [--draws 8 16] [--views anchor] [--out DIR]

Types the commands of a real user on the toy world, a fifth of whose training questions say their own answer, and
selects twice from the same views, each time with an empty ledger: once by adaptive drawing, once by fixed drawing. Both
also ask without frames.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from benchmarks.selection import CLIPS, DRAWN, GIVEAWAYS, MAX_BLIND, MIN_VAR
from pipeline.plan import VIEWS
from pipeline.store import Store
from pipeline.views import ANCHOR, BLIND
from toyworld.demo import console, strive_data

DRAWS = (8, 16)
NAME = "selected"
FIXED, ADAPTIVE = "fixed", "adaptive"


def prepare(store: Path, clips: int) -> None:
    """Bring the toy world's training questions to their views."""
    at = ("--store", str(store))
    strive_data("ingest", *at, "--split", "train", "--clips", str(clips), "--giveaways", str(GIVEAWAYS))
    strive_data("cache-frames", *at, "--fps", "4")
    strive_data("score-frames", *at)
    strive_data("build-variants", *at)


def draw(prepared: Path, store: Path, draws: int, views: str, way: str) -> float:
    """Select in a copy of a store whose ledger is empty; returns the command's wall seconds."""
    shutil.copytree(prepared, store)
    how = ("--fixed",) if way == FIXED else ()
    begun = time.monotonic()
    strive_data(
        *("select", "--store", str(store), "--name", NAME, "--views", views, "--draws", str(draws), *how),
        *("--min-var", str(MIN_VAR), "--max-blind-acc", str(MAX_BLIND), *DRAWN, "--json"),
        reads=True,
    )
    return time.monotonic() - begun


def asked(store: Store) -> pl.DataFrame:
    """How often the policy was asked: (task, probe, calls, prefills), a row for each task and probe.

    A prompt is prefilled once for all draws on it, so that prefills are the views that were asked about.
    """
    tasks = pl.DataFrame(pl.from_arrow(store.table("samples", ["sample_id", "task"])))
    rows = pl.DataFrame(pl.from_arrow(store.table("rollouts", ["sample_id", "variant"])))
    probe = pl.when(pl.col("variant") >= ANCHOR).then(pl.lit("views")).otherwise(pl.lit("blind")).alias("probe")
    if not rows["variant"].is_in([BLIND, *range(ANCHOR, 100)]).all():
        raise RuntimeError("the ledger holds other draws than those on views and without frames")
    return (
        rows.join(tasks, on="sample_id")
        .group_by("task", probe)
        .agg(pl.len().alias("calls"), pl.struct("sample_id", "variant").n_unique().alias("prefills"))
        .sort("task", "probe")
    )


def figures_of(fixed: Store, adaptive: Store) -> dict[str, Any]:
    """Calls of both ways, what is saved of them, and the share of verdicts that differ; `by_task` in the same words."""
    ways = {FIXED: asked(fixed), ADAPTIVE: asked(adaptive)}
    columns = ["sample_id", "task", "reason"]
    both = [pl.DataFrame(pl.from_arrow(store.verdicts(NAME).select(columns))) for store in (fixed, adaptive)]
    joined = both[0].join(both[1].drop("task"), on="sample_id", suffix="_adaptive")
    if not joined.height == both[0].height == both[1].height:
        raise RuntimeError("the two selections are of different pools")
    whole = _compared(ways, joined) | {"kept": int((joined["reason"] == "").sum())}
    whole["calls_saved_same_prompts"] = _saved_on_same_prompts(fixed, adaptive)
    for way, counts in ways.items():
        whole |= {f"{name}_{way}": int(counts[name].sum()) for name in ("calls", "prefills")}
    tasks = joined["task"].unique().sort().to_list()
    mine = pl.col("task")
    return whole | {"by_task": {task: _compared(ways, joined.filter(mine == task), mine == task) for task in tasks}}


def _saved_on_same_prompts(fixed: Store, adaptive: Store) -> float:
    """What is saved of the fixed calls on the prompts that adaptive drawing asks at all: by stopping early alone."""
    key = ["sample_id", "variant"]
    calls = [pl.DataFrame(pl.from_arrow(store.table("rollouts", key))) for store in (fixed, adaptive)]
    return round(1.0 - calls[1].height / calls[0].join(calls[1].unique(), on=key, how="semi").height, 4)


def _compared(ways: Mapping[str, pl.DataFrame], verdicts: pl.DataFrame, which: pl.Expr | bool = True) -> dict[str, Any]:
    def saved(counted: pl.Expr | bool) -> float:
        calls = {way: int(counts.filter(which).filter(counted)["calls"].sum()) for way, counts in ways.items()}
        return round(1.0 - calls[ADAPTIVE] / calls[FIXED], 4)

    reasons, others = verdicts["reason"], verdicts["reason_adaptive"]
    return {
        "calls_saved": saved(True),
        "calls_saved_views": saved(pl.col("probe") == "views"),
        "calls_saved_blind": saved(pl.col("probe") == "blind"),
        "verdict_disagreement": round(int(((reasons == "") != (others == "")).sum()) / verdicts.height, 4),
        "reason_disagreement": round(int((reasons != others).sum()) / verdicts.height, 4),
        "questions": verdicts.height,
    }


def measure(folder: Path, clips: int, draws: Sequence[int], views: str) -> dict[str, Any]:
    """The figures of the first number of draws, those of all of them in `by_draws`."""
    prepared = folder / "store"
    prepare(prepared, clips)
    found: dict[str, dict[str, Any]] = {}
    for count in draws:
        stores = {way: folder / f"{way}-{count}" for way in (ADAPTIVE, FIXED)}
        seconds = {way: draw(prepared, store, count, views, way) for way, store in stores.items()}
        figures = figures_of(Store(stores[FIXED]), Store(stores[ADAPTIVE]))
        found[str(count)] = figures | {f"seconds_{way}": round(value, 1) for way, value in seconds.items()}
    first = {name: value for name, value in found[str(draws[0])].items() if name != "by_task"}
    others = {
        f"{name}_{count}": found[str(count)][name]
        for count in draws[1:]
        for name in ("calls_saved", "verdict_disagreement")
    }
    return {**first, **others, "views": views, "clips": clips, "by_draws": found}


def show(figures: Mapping[str, Any]) -> None:
    """Print what was found, for people."""
    by_draws: Mapping[str, dict[str, Any]] = figures["by_draws"]
    table = Table(title=f"{figures['questions']} questions, {figures['views']} views", title_justify="left")
    for title in ("", *(f"{count} draws" for count in by_draws)):
        table.add_column(title, justify="right" if title else "left")
    every = list(by_draws.values())
    for name in every[0]:
        if name not in ("by_task", "questions"):
            table.add_row(name.replace("_", " "), *(f"{found[name]:g}" for found in every))
    for task in every[0]["by_task"]:
        table.add_section()
        for name in ("questions", "calls_saved", "calls_saved_views", "verdict_disagreement"):
            table.add_row(
                f"{task}: {name.replace('_', ' ')}", *(f"{found['by_task'][task][name]:g}" for found in every)
            )
    console.print(table)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.draws",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"training clips (default: {CLIPS})")
    parser.add_argument("--draws", type=int, nargs="+", default=list(DRAWS), help="responses a question, at most")
    parser.add_argument("--views", choices=VIEWS, default="anchor", help="to draw on")
    parser.add_argument("--out", type=Path, help="empty folder to keep the stores in (default: none is kept)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(words)
    if options.out is not None and options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out}: it is not empty, name a new folder")
    if len(set(options.draws)) < len(options.draws):
        parser.error(f"--draws {options.draws}: name each number once")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.out or Path(folder), options.clips, options.draws, options.views)
    show(figures)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
