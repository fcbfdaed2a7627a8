"""What training runs left behind: the rows of metrics.jsonl, the settings, and how far each has come."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from trainer.live import seconds_of
from trainer.metrics import read_rows

METRICS, SETTINGS, ORIGIN = "metrics.jsonl", "config.json", "run.json"
MOST = 8  # runs of one page: as many colours can be told apart

_WHERE = ("out", "store", "device", "resume")
"""Settings that say where a run lies and works, not what it is."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: that tells it from the others. place: its folder, as it was given.
        rows: of metrics.jsonl by rising step, each step once; may be empty.
        settings: of config.json; empty when there is none.
        origin: commit, dataset and policy by name, of run.json; what is not known is left out.
        notes: what a reader has to know about the rows.
    """

    name: str
    place: str
    rows: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def planned(self) -> int | None:
        """Steps in all, where the settings say so."""
        steps = self.settings.get("steps")
        return steps if isinstance(steps, int) else None


def read_runs(places: Sequence[Path]) -> list[Run]:
    """The runs in these folders; a metrics.jsonl stands for its folder.

    Raises:
        UserError: none, too many, one twice, a folder without metrics.jsonl, or a file that cannot be read.
    """
    folders = [place.parent if place.name == METRICS else place for place in places]
    if not 1 <= len(folders) <= MOST:
        raise UserError(f"{len(folders)} runs", f"expected 1 to {MOST}", "strive-train report RUN [RUN ...]")
    return [read_run(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """One run. A run that is going on is read as far as it has come."""
    file = folder / METRICS
    if not file.is_file():
        raise UserError(
            str(folder),
            f"expected the folder of a run, with {METRICS} in it",
            "give what was --out of strive-train run",
        )
    notes = []
    rows = read_rows(file)
    tail = file.read_bytes().rpartition(b"\n")[2]
    if tail:
        notes.append("Its last line is not whole, and not shown: the run is writing it, or was killed at it.")
    by_step = {int(row["step"]): row for row in rows}
    if len(by_step) < len(rows):
        notes.append(f"{len(rows) - len(by_step)} rows repeat a step; of each step the last row counts.")
    settings = read_json(folder / SETTINGS)
    if not settings:
        notes.append(f"There is no readable {SETTINGS}: its settings are not known.")
    run = Run(name, str(folder), [by_step[s] for s in sorted(by_step)], settings, origin_of(read_json(folder / ORIGIN)))
    if not rows:
        notes.append("It has no step yet.")
    elif run.planned is not None and run.steps < run.planned:
        notes.append(f"It has done {run.steps:,} of {run.planned:,} steps: it is going on, or was stopped.")
    missing = run.steps - len(by_step)
    if rows and missing:
        notes.append(f"{missing:,} of its steps have no row.")
    return Run(run.name, run.place, run.rows, run.settings, run.origin, tuple(notes))


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file, or it holds something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of run.json what tells runs apart: the samples, the policy, and the newest session's commit and versions."""
    found: dict[str, Any] = {}
    for part in ("dataset", "policy"):
        values = record.get(part)
        if isinstance(values, Mapping):
            found |= {f"{part} {name}": value for name, value in values.items() if name != "name"}
    sessions = record.get("sessions")
    newest = sessions[-1] if isinstance(sessions, list) and sessions else {}
    if isinstance(newest, Mapping):
        git, versions = newest.get("git"), newest.get("versions")
        if isinstance(git, Mapping):
            found["commit"] = f"{git.get('commit')}{', with changes' if git.get('changed') else ''}"
        if isinstance(versions, Mapping):
            found |= {f"version of {name}": value for name, value in versions.items()}
    return found


def names_of(folders: Sequence[Path]) -> list[str]:
    """As many last parts of each path as tell them all apart.

    Raises:
        UserError: one is given twice.
    """
    parts = [Path(os.path.normpath(folder.absolute())).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise UserError(" ".join(map(str, folders)), "expected each once", "strive-train report --help")
    depth = next(d for d in range(1, 1 + max(map(len, parts))) if len({p[-d:] for p in parts}) == len(parts))
    return [str(Path(*one[-depth:])) for one in parts]


def differing(runs: Sequence[Run]) -> tuple[list[tuple[str, list[str | None]]], int]:
    """Settings and origins in which the runs differ, with the value of each run (None: not known), and how many agree.

    A run whose settings are not known at all counts for no difference in them.
    """
    tables = [{name: value for name, value in run.settings.items() if name not in _WHERE} | run.origin for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    found, agree = [], 0
    for name in names:
        values = [said(table[name]) if name in table else None for table in tables]
        known = {value for value, table in zip(values, tables, strict=True) if table}
        if len(known) > 1:
            found.append((name, values))
        else:
            agree += 1
    return found, agree


def said(value: Any) -> str:
    """A setting as people read it."""
    if value is None or value == "":
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def value_of(row: Mapping[str, Any], path: str) -> float | None:
    """A number in a row by its path, such as seconds/rollout; None where there is none.

    Two are computed: `length`, response tokens a rollout, and `tokens_per_second` over the whole step.
    """
    if path == "length":
        lengths = value_of(row, "lengths/mean")
        tokens, rollouts = value_of(row, "tokens"), value_of(row, "rollouts")
        return lengths if lengths is not None else tokens / rollouts if tokens is not None and rollouts else None
    if path == "tokens_per_second":
        tokens, seconds = value_of(row, "tokens"), seconds_of(row)
        return tokens / seconds if tokens is not None and seconds else None
    found: Any = row
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    known = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < float("inf")
    return float(found) if known else None


def paths_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paths of all numbers that any row has, in the order of their first appearance."""
    found: dict[str, None] = {}

    def walk(part: Mapping[str, Any], prefix: str) -> None:
        for name, value in part.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{name}/")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(prefix + name)

    for row in rows:
        walk(row, "")
    return list(found)
