"""The tables of a store as they can be read: rows outside of broken files, and what is wrong with the files."""

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.schemas import KEYS, TABLES
from pipeline.store import Location, Store
from pipeline.store.examined import Broken, Examined
from pipeline.store.health import TORN, examine
from pipeline.verify.findings import OWNER, Finding, some

OLD = "torn old version"
_SAME = {"frames": ("index",), "variants": ("variant",), "rollouts": ("policy",), "quarantine": ("kept",)}
_MANY_ROWS = ("frames", "variants")  # an item has several rows, which may continue in the next file


class Tables:
    """All tables of a store, opened once, each at its newest version that opens. `gone`: rows that a finding drops."""

    def __init__(self, store: Store) -> None:
        self.examined: dict[str, Examined] = {
            name: examine(store.table_at(name), pixels=name != "frames") for name in TABLES
        }
        self.gone: dict[str, list[np.ndarray]] = {name: [] for name in TABLES}

    def whole(self, *names: str) -> bool:
        """Whether no row of these tables was lost, and none has to be dropped."""
        return all(self.examined[name].whole and not self.gone[name] for name in names)

    def frame(self, name: str, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns and `_rowaddr` of the rows that are readable and not to be dropped, in scan order."""
        found = pl.from_arrow(self.examined[name].table(columns, TABLES[name]))
        assert isinstance(found, pl.DataFrame)
        if not self.gone[name]:
            return found
        gone = pl.Series(np.concatenate(self.gone[name]), dtype=pl.UInt64).implode()
        return found.filter(~pl.col("_rowaddr").is_in(gone))

    def dropped(self, name: str, column: str) -> set[str]:
        """The values of a column in the rows that are to be dropped."""
        if not self.gone[name]:
            return set()
        table = self.examined[name].table([column], TABLES[name])
        gone = np.isin(table["_rowaddr"].to_numpy(), np.concatenate(self.gone[name]))
        return set(table.filter(pa.array(gone))[column].to_pylist())

    def drop(self, finding: Finding) -> Finding:
        """Note that a finding's rows are as good as gone; returns it."""
        if len(finding.drop):
            self.gone[finding.table].append(finding.drop)
        return finding


def row_key(name: str) -> list[str]:
    """The columns that tell the rows of a table apart."""
    return [*KEYS[name], *_SAME.get(name, ())]


def broken_files(table: str, examined: Examined, place: Location) -> list[Finding]:
    """A finding for each kind of broken file of a table.

    Args:
        place: of the table, as findings show it.
    """
    redo = OWNER.get(table.split("/")[0], "")
    found = []
    torn = [broken for broken in examined.broken if broken.what == TORN]
    if torn and examined.dataset is None:
        about = "none of its versions opens, so all of it is lost"
        found.append(Finding(table, TORN, len(torn), str(place), about, redo, "versions", aside=["."]))
    elif torn:
        about = f"it does not open ({torn[0].message}); the version before it does, without its rows"
        names = [broken.file for broken in torn]
        found.append(Finding(table, TORN, len(torn), ", ".join(names), about, redo, "versions", aside=names))
    if examined.old:
        about = f"nobody reads it, but letting old versions go stumbles over it ({examined.old[0].message})"
        names = [broken.file for broken in examined.old]
        found.append(Finding(table, OLD, len(names), ", ".join(names), about, unit="versions", aside=names))
    kinds = dict.fromkeys(broken.what for broken in examined.broken if broken.what != TORN)
    return found + [_of_kind(table, what, [b for b in examined.broken if b.what == what], redo) for what in kinds]


def _of_kind(table: str, what: str, broken: Sequence[Broken], redo: str) -> Finding:
    rows = [f"rows {b.first} to {b.first + b.rows - 1} ({b.file})" for b in broken]
    where = "; ".join(rows[:3]) + (f" and {len(rows) - 3} more files" if len(rows) > 3 else "")
    numbers = [b.fragment for b in broken if b.fragment is not None]
    return Finding(table, what, sum(b.rows for b in broken), where, broken[0].message, redo, fragments=numbers)


def beside_broken(tables: Tables) -> list[Finding]:
    """Items that may continue in a broken file behind theirs: what is left of them cannot be told from a whole item.

    A file of several videos ends with a whole one, because only a video that is too long for one file continues. Of the
    views of a sample some may be in the next file, unless it has as many as any sample has.
    """
    found = []
    for name in _MANY_ROWS:
        examined = tables.examined[name]
        bad = {broken.fragment for broken in examined.broken}
        if not bad - {None}:
            continue
        key = KEYS[name][0]
        rows = tables.frame(name, [key])
        piece = (rows["_rowaddr"].to_numpy() >> np.uint64(32)).astype(np.int64)
        counts = dict(rows[key].value_counts().iter_rows())
        suspects: set[str] = set()
        for one, other in itertools.pairwise(examined.numbers()):
            if one in bad or other not in bad:
                continue
            keys = rows[key].to_numpy()[piece == one]
            open_end = len(set(keys)) == 1 if name == "frames" else counts[keys[-1]] < max(counts.values())
            if open_end:
                suspects.add(str(keys[-1]))
        drop = rows.filter(pl.col(key).is_in(list(suspects)))["_rowaddr"].to_numpy()
        if len(drop):
            about = "they lie next to a broken file, in which their items may have continued"
            what = "beside a broken file"
            found.append(Finding(name, what, len(drop), some(sorted(suspects)), about, OWNER[name], drop=drop))
    return found
