"""What a fault came to, row by row against a store or a run that nobody disturbed."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.fingerprint import folder_fingerprint
from pipeline.schemas import KEYS, TABLES
from pipeline.store import Store
from tests.tables import TOLERANCE, keys
from trainer.checkpoint import load, newest_whole, whole

Rows = dict[tuple[Any, ...], dict[str, Any]]
Tables = dict[str, list[dict[str, Any]]]

_NOT_COMPARED = {"quarantine": ("message",)}  # it may tell times and process numbers


@dataclass
class Tally:
    """Counts over all trials of a fault. `tried`: how often it took place. `notes`: about what is not zero."""

    tried: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
    remark: str = ""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def compare(self, found: Tables, expected: Tables, *, partial: bool = False) -> None:
        """Count rows that are lost, doubled or wrong.

        Args:
            partial: the work has not ended: rows may be missing, but not some of one item's.
        """
        for name, rows in found.items():
            lost, doubled, wrong = differences(name, rows, expected[name], partial)
            self.lost += lost
            self.doubled += doubled
            self.wrong += wrong
            if lost or doubled or wrong:
                when = "right after the fault" if partial else "in the end"
                self.note(f"{name} {when}: {lost} lost, {doubled} doubled, {wrong} wrong")


def tables_of(store: Store) -> Tables:
    """All rows of a store, curated datasets included."""
    found = {name: store.table(name).to_pylist() for name in TABLES}
    for name in store.curated_names():
        found[f"curated/{name}"] = store.curated(name).to_pylist()
        found[f"verdicts/{name}"] = store.verdicts(name).to_pylist()
    return found


def differences(
    name: str, found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]], partial: bool = False
) -> tuple[int, int, int]:
    """Rows of a table that are lost, doubled, and wrong: unknown, or with another content."""
    key = keys(name) if name in TABLES else ["sample_id"]
    item = KEYS.get(name, ("sample_id",))
    there: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        there.setdefault(tuple(row[column] for column in key), []).append(row)
    wanted = {tuple(row[column] for column in key): row for row in expected}
    missing = [row for known, row in wanted.items() if known not in there]
    if partial:  # an item is wholly there or not at all
        begun = {tuple(row[column] for column in item) for row in found}
        missing = [row for row in missing if tuple(row[column] for column in item) in begun]
    doubled = sum(len(rows) - 1 for rows in there.values())
    wrong = sum(known not in wanted or not same(name, rows[0], wanted[known]) for known, rows in there.items())
    return len(missing), doubled, wrong


def same(name: str, a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two rows are equal: exactly, but for what a model computed in another batch."""
    for column in a.keys() | b.keys():
        if column in _NOT_COMPARED.get(name, ()):
            continue
        if column in TOLERANCE and a[column] is not None and b[column] is not None:
            x, y = (np.asarray(row[column], np.float64) for row in (a, b))
            if x.shape != y.shape or not np.allclose(x, y, rtol=0.0, atol=TOLERANCE[column]):
                return False
        elif a[column] != b[column] and not (a[column] != a[column] and b[column] != b[column]):
            return False
    return True


def run_rows(out: Path) -> Counter[str]:
    """The metrics of a run, without what is measured by a clock, as lines."""
    file = out / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return Counter(json.dumps({k: v for k, v in row.items() if k != "seconds"}, sort_keys=True) for row in rows)


def compare_runs(tally: Tally, out: Path, expected: Path) -> None:
    """Count steps of a finished run that are lost, doubled or other than they should be, and a checkpoint that is."""
    mine, wanted = run_rows(out), run_rows(expected)
    steps, known = ({json.loads(line)["step"] for line in rows} for rows in (mine, wanted))
    tally.lost += len(known - steps)
    tally.doubled += mine.total() - len(steps)
    tally.wrong += sum(line not in wanted for line in mine)
    ended, other = newest_whole(out), newest_whole(expected)
    if ended is None or other is None or folder_fingerprint(ended) != folder_fingerprint(other):
        tally.wrong += 1
        tally.note("the last checkpoint is another one")
    if list(out.glob(".*")):
        tally.wrong += 1
        tally.note(f"left behind: {sorted(path.name for path in out.glob('.*'))}")


def check_checkpoints(tally: Tally, out: Path) -> None:
    """Every checkpoint that is visible opens, and is the one that its name says."""
    for folder in whole(out):
        if load(folder)[0] != int(folder.name.rpartition("-")[2]):
            tally.wrong += 1
            tally.note(f"{folder.name} holds another step")
