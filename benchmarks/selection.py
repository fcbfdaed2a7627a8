"""What selection does: giveaways found, evidence in view, and training on selected, random and all questions.

    python -m benchmarks.selection [--json] [--clips 120] [--steps 40] [--seeds 3] [--views anchor] [--out DIR]

Types the commands of a real user on the toy world, a fifth of whose training questions say their own answer. Questions
are selected by draws on the same views and at the same temperature as they are trained on.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from pipeline.fingerprint import fingerprint, seed_of
from pipeline.store import Store
from pipeline.verdicts import BLIND
from toyworld.demo import command, console, evaluate, strive_data
from toyworld.demo_figures import column, hit_rates
from toyworld.questions import GIVEAWAY
from trainer.metrics import read_rows

CLIPS, TEST_CLIPS = 120, 40
STEPS, SEEDS = 40, 3
GIVEAWAYS = 0.2  # of the training questions
MAX_BLIND, MIN_VAR = 0.5, 0.1
GROUPS, POOL_SIZE = 8, 8  # questions a step, rollouts a question
VIEWS = {
    "anchor": ("--variants", "1", "--view", "anchor", "--responses", str(POOL_SIZE)),
    "variants": ("--variants", "4", "--responses", str(POOL_SIZE // 4)),
}
DRAWN = ("--temperature", "1.0", "--max-tokens", "48")  # the toy policy's answers are shorter
LEARNING_RATE = "1e-4"

SELECTED, POOL, RANDOM = "selected", "all", "random"
ARMS = (SELECTED, RANDOM, POOL)
MEASURES = {
    "dead": "dead groups",
    "importance": "accuracy, importance",
    "anchor": "accuracy, anchor",
}


def prepare(store: Path, clips: int, views: str) -> dict[str, Any]:
    """Bring the toy world to the selected dataset and the whole pool; returns the selection's report."""
    at = ("--store", str(store))
    strive_data("ingest", *at, "--split", "train", "--clips", str(clips), "--giveaways", str(GIVEAWAYS))
    strive_data("ingest", *at, "--split", "test", "--clips", str(max(4, TEST_CLIPS * clips // CLIPS)))
    strive_data("cache-frames", *at, "--fps", "4")
    strive_data("score-frames", *at)
    strive_data("build-variants", *at)
    chosen = (*at, "--split", "train", "--views", views, *DRAWN, "--json")
    blind = ("--max-blind-acc", str(MAX_BLIND))
    report: dict[str, Any] = strive_data(
        "select", *chosen, "--name", SELECTED, "--min-var", str(MIN_VAR), *blind, reads=True
    )
    # Without a filter by variance every question is asked blind, and being answered blind is the one reason to leave.
    strive_data("select", *chosen, "--name", "blind", "--keep-all", *blind, reads=True)
    strive_data("select", *chosen, "--name", POOL, "--keep-all", reads=True)
    return report


def giveaways_found(kinds: Mapping[str, str], reasons: Mapping[str, str]) -> dict[str, Any]:
    """How well a filter finds what was planted.

    Args:
        kinds: kind of each question by sample_id. reasons: why it was left out, "" when it was kept.

    Returns:
        giveaways, answered_blind: how many were planted, and found; precision and recall, None where nothing was.
    """
    planted = {key for key in reasons if kinds[key] == GIVEAWAY}
    found = {key for key, reason in reasons.items() if reason == BLIND}
    both = len(planted & found)
    return {
        "giveaways": len(planted),
        "answered_blind": len(found),
        "precision": round(both / len(found), 4) if found else None,
        "recall": round(both / len(planted), 4) if planted else None,
    }


def draw_random(store: Store, size: int, seed: int) -> str:
    """Write a dataset of `size` questions of the pool, drawn evenly without replacement; returns its tag."""
    whole = store.curated(POOL)
    rng = np.random.default_rng(seed_of("benchmarks.selection", seed))
    rows = whole.take(pa.array(np.sort(rng.permutation(whole.num_rows)[:size])))
    ids, tag = rows["sample_id"].to_pylist(), f"seed{seed}"
    kept = set(ids)
    verdicts = [
        row | {"reason": "" if row["sample_id"] in kept else "not drawn"} for row in store.verdicts(POOL).to_pylist()
    ]
    facts = store.facts(POOL) | {
        "name": RANDOM,
        "tag": tag,
        "fingerprint": fingerprint("random", sorted(rows["fingerprint"].to_pylist())),
        "rule": f"{size} questions of the pool, drawn at random",
    }
    store.write_curated(RANDOM, rows, pa.Table.from_pylist(verdicts, schema=store.verdicts(POOL).schema), tag, facts)
    return tag


def train(store: Path, out: Path, arm: str, tag: str | None, views: str, steps: int, seed: int) -> dict[str, float]:
    """Train one arm with one seed; returns its figures by the names of MEASURES."""
    done = command(
        *("strive-train", "run", "--store", str(store), "--dataset", arm, "--out", str(out)),
        *(("--tag", tag) if tag else ()),
        *(*VIEWS[views], "--groups", str(GROUPS), "--steps", str(steps), "--seed", str(seed)),
        *("--lr", LEARNING_RATE, *DRAWN, "--json"),
        reads=True,
    )
    after = evaluate(store, "--policy", done["checkpoint"])["by_view"]
    dead = float(np.nanmean(column(read_rows(out / "metrics.jsonl"), "dead_group_share")))
    return {"dead": dead} | {view: after[view]["accuracy"] for view in ("importance", "anchor")}


def measure(folder: Path, clips: int, views: str, steps: int, seeds: int) -> dict[str, Any]:
    """All figures, flat: <measure>_<arm> is a mean over the seeds, <measure>_<arm>_spread their standard deviation."""
    store = folder / "store"
    report = prepare(store, clips, views)
    opened = Store(store)
    samples = opened.table("samples", ["sample_id", "origin"], "split = 'train'").to_pylist()
    shown = opened.table("variants", ["sample_id", "variant", "times"]).to_pylist()
    kinds = {row["sample_id"]: json.loads(row["origin"])["kind"] for row in samples}
    reasons = dict(zip(*(opened.verdicts("blind")[name].to_pylist() for name in ("sample_id", "reason")), strict=True))
    kept = set(opened.curated(SELECTED)["sample_id"].to_pylist())
    looked_at = [row for row in samples if kinds[row["sample_id"]] != GIVEAWAY]  # a giveaway needs no evidence
    sides = {
        "kept": [row for row in looked_at if row["sample_id"] in kept],
        "dropped": [row for row in looked_at if row["sample_id"] not in kept],
    }
    before = evaluate(store)["by_view"]
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        tag = draw_random(opened, len(kept), seed)
        for arm in ARMS:
            out = folder / "runs" / f"{arm}-{seed}"
            runs[arm].append(train(store, out, arm, tag if arm == RANDOM else None, views, steps, seed))
    figures: dict[str, Any] = {
        "questions": len(samples),
        "kept": len(kept),
        **giveaways_found(kinds, reasons),
        "giveaways_kept": sum(kinds[key] == GIVEAWAY for key in kept),
        **{f"evidence_{side}": round(hit_rates(rows, shown)["uniform"], 4) for side, rows in sides.items()},
        "dropped": {reason: count for reason, count in report["dropped"].items() if count},
        "calls_saved": round(report["calls_saved"], 4),
        "steps": steps,
        "seeds": seeds,
        "views": views,
        "rollouts_a_step": GROUPS * POOL_SIZE,
    }
    figures |= {f"{view}_before": before[view]["accuracy"] for view in ("importance", "anchor")}
    for arm in ARMS:
        for name in MEASURES:
            values = [run[name] for run in runs[arm]]
            figures[f"{name}_{arm}"], figures[f"{name}_{arm}_spread"] = fmean(values), pstdev(values)
    return figures | {"runs": runs}


def arms_table(figures: Mapping[str, Any]) -> Table:
    """Mean and spread (population standard deviation over the seeds) of each arm."""
    table = Table(
        title=f"{figures['views']} views, {figures['steps']} steps, {figures['seeds']} seeds", title_justify="left"
    )
    table.add_column("trained on")
    table.add_column("questions", justify="right")
    for title in MEASURES.values():
        table.add_column(title, justify="right")
    start = [f"{figures[f'{view}_before']:.3f}" for view in ("importance", "anchor")]
    table.add_row("nothing yet", "", "", *start)
    sizes = {SELECTED: figures["kept"], RANDOM: figures["kept"], POOL: figures["questions"]}
    for arm in ARMS:
        cells = [f"{figures[f'{name}_{arm}']:.3f} ± {figures[f'{name}_{arm}_spread']:.3f}" for name in MEASURES]
        table.add_row(arm, str(sizes[arm]), *cells)
    return table


def show(figures: Mapping[str, Any]) -> None:
    """Print what was found, for people."""
    console.print(
        f"{figures['giveaways']} of {figures['questions']} questions are giveaways. {figures['answered_blind']} are "
        f"answered without frames (more than {MAX_BLIND:g} of the draws): precision {figures['precision']}, recall "
        f"{figures['recall']}. The selection of {figures['kept']} holds {figures['giveaways_kept']} of them."
    )
    console.print(
        f"Giveaways aside, the anchor view shows all evidence of {figures['evidence_kept']:.1%} of the kept questions "
        f"and of {figures['evidence_dropped']:.1%} of the dropped."
    )
    console.print(f"Dropped: {figures['dropped']}; draws saved by adaptive drawing: {figures['calls_saved']:.1%}")
    console.print(arms_table(figures))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.selection",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"training clips (default: {CLIPS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of every run (default: {STEPS})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"runs of every arm (default: {SEEDS})")
    parser.add_argument("--views", choices=list(VIEWS), default="anchor", help="to draw on, and to train on")
    parser.add_argument("--out", type=Path, help="empty folder to keep store and runs in (default: none is kept)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(words)
    if options.out is not None and options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out}: it is not empty, name a new folder")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = options.out or Path(folder)
        figures = measure(place, options.clips, options.views, options.steps, options.seeds)
    figures["seconds"] = round(time.monotonic() - begun)
    show(figures)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
