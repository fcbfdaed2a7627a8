"""Reads runs and answers back and makes the figures of them that the page is written of."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.store import Store
from toyworld.demo_figures import hit_rates
from toyworld.reproduce import curves, runs
from toyworld.reproduce.figures import (
    answer_table,
    arm_figures,
    differences,
    seconds_a_step,
    seed_differences,
)
from toyworld.reproduce.plan import (
    ARMS,
    BEYOND,
    CONTROLS,
    MIXED_STORE,
    POOL,
    SELECTED,
    SMALL,
    SMALL_GRPO,
    STORE,
    TABLES,
    WRONG_STORE,
    Run,
    Scale,
    runs_of,
)
from toyworld.reproduce.work import Workplace

START, NOISY_START = "start", "noisy-start"  # their evaluations' names


def pairs(beyond: bool) -> list[tuple[str, str]]:
    """Which arm is compared with which."""
    if beyond:
        against = [(arm, control) for arm in BEYOND if arm not in CONTROLS for control in CONTROLS]
        return [*against, (SMALL, SMALL_GRPO)]
    return [(table.subject, arm) for table in TABLES for arm in table.arms if arm != table.subject]


def figures(
    place: Workplace,
    scale: Scale,
    prepared: Sequence[Mapping[str, Any]],
    selections: Mapping[str, Mapping[str, Any]],
    beyond: bool,
) -> dict[str, Any]:
    """All figures, JSON-like: scale, samples, starts, hit_rate, selections, arms, against, runs, prepared.

    Args:
        prepared, selections: as `toyworld.reproduce.prepare.prepare` returns them.
    """
    todo = runs_of(scale, beyond)
    rows = {run.name: runs.metrics(place, run) for run in todo}
    tables = {run.name: answer_table(runs.answers(place, run.name)) for run in todo}
    starts = [answer_table(runs.answers(place, name)) for name in (START, NOISY_START)]
    arms = {}
    for arm in BEYOND if beyond else ARMS:
        mine = [run.name for run in todo if run.arm.name == arm]
        arms[arm] = arm_figures([rows[name] for name in mine], [tables[name] for name in mine])
    against: dict[str, dict[str, Any]] = {}
    for arm, other in pairs(beyond):
        of = {name: [tables[run.name] for run in todo if run.arm.name == name] for name in (arm, other)}
        seeds = min(map(len, of.values()))  # an arm that is only screened is compared by the seeds that it has
        found = differences(of[arm][:seeds], of[other][:seeds])
        if "grad_norm_cv" in arms[arm] and "grad_norm_cv" in arms[other]:
            norms = [arms[name]["grad_norm_cv"]["seeds"][:seeds] for name in (arm, other)]
            found["grad_norm_cv"] = seed_differences(*norms)
        against.setdefault(arm, {})[other] = {n: [i.mean, i.low, i.high] for n, i in found.items()}
    store = Store(place.out / STORE)
    return {
        "scale": asdict(scale),
        "samples": {part: len(starts[0][f"{part}_anchor"]) for part in ("accuracy", "miou")},
        "starts": [{n: sum(each.values()) / len(each) for n, each in start.items() if each} for start in starts],
        "hit_rate": hit_rates(
            store.table("samples", ["sample_id", "origin"]).to_pylist(),
            store.table("variants", ["sample_id", "variant", "times"]).to_pylist(),
        ),
        "selections": {at: {n: told[n] for n in ("pool", "kept", "dropped")} for at, told in selections.items()},
        "wrong": {at: wrong_kept(Store(place.out / at)) for at in (WRONG_STORE, MIXED_STORE)},
        "arms": arms,
        "against": against,
        "runs": [_run(place, run, scale, rows[run.name]) for run in todo],
        "prepared": [{"command": shlex.join(each["words"]), "seconds": each["seconds"]} for each in prepared],
    }


def wrong_kept(store: Store) -> dict[str, float]:
    """The share of wrong annotations in the pool, and in what was selected of it."""
    rows = store.table("samples", ["sample_id", "origin"]).to_pylist()
    wrong = {row["sample_id"] for row in rows if json.loads(row["origin"]).get("wrong")}
    shares = {}
    for name in (POOL, SELECTED):
        there = store.curated(name)["sample_id"].to_pylist()
        shares[name] = sum(key in wrong for key in there) / len(there)
    return shares


def _run(place: Workplace, run: Run, scale: Scale, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": run.name,
        "arm": run.arm.name,
        "seed": run.seed,
        "folder": str(place.run_folder(run.name)),
        "command": shlex.join(runs.train_words(place, run, scale)),
        "seconds_a_step": seconds_a_step(rows),
        "seconds": sum(sum(row["seconds"].values()) for row in rows),
    }


def steady(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures without what differs from call to call: wall times."""
    timeless = [{n: v for n, v in run.items() if not n.startswith("seconds")} for run in found["runs"]]
    return {name: value for name, value in found.items() if name not in ("prepared", "runs")} | {"runs": timeless}


def draw(place: Workplace, scale: Scale, path: Path) -> None:
    """The three curves of the arms that Figure 3 is about."""
    by_arm = {arm: [runs.metrics(place, Run(ARMS[arm], s)) for s in range(scale.seeds)] for arm in curves.COLOURS}
    curves.draw(by_arm, path)


def read(file: Path) -> dict[str, Any] | None:
    """Figures that an earlier call left; None when there are none."""
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
