"""Rows removed by where they lie: one look at the keys finds them all, however many are named.

A filter that names thousands of keys is looked at once for every row, and each of many such filters is a commit.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.stage import Key
from pipeline.store.files import opened, read, sealed
from pipeline.store.location import Location

_TERMS = 20_000  # addresses in one filter
_RUNS = 200  # of these in one filter: each is looked at for every row
_RUN = 8  # as many addresses in a row are named by their ends

Addresses = npt.NDArray[np.uint64]


def addresses_of(
    table: Location, dataset: Any, columns: Sequence[str], keys: Sequence[Key], scope: str | None
) -> Addresses:
    """Where the rows with these keys lie, ascending, within an SQL filter.

    Args:
        columns: that the parts of a key stand in.
    """
    rows = pl.from_arrow(read(table, dataset, list(columns), scope, with_row_address=True))
    assert isinstance(rows, pl.DataFrame)
    types = {column: rows.schema[column] for column in columns}
    wanted = pl.DataFrame([tuple(key) for key in keys], schema=types, orient="row").unique()
    found: Addresses = rows.join(wanted, on=list(columns), how="semi")["_rowaddr"].sort().to_numpy()
    return found


def drop_rows(table: Location, addresses: Addresses) -> None:
    """Remove rows by where they lie; one commit for thousands of them."""
    for either in address_filters(addresses):
        opened(table).delete(either)
        sealed(table, opened(table))


def address_filters(addresses: Addresses) -> Iterator[str]:
    """SQL filters that together name exactly these rows; runs of neighbours are named by their ends."""
    sorted_ = np.unique(np.asarray(addresses, np.uint64))
    if not len(sorted_):
        return
    breaks = np.flatnonzero(np.diff(sorted_) != 1) + 1
    starts, ends = np.r_[0, breaks], np.r_[breaks, len(sorted_)]
    long = ends - starts >= _RUN
    first, last = sorted_[starts[long]].tolist(), sorted_[ends[long] - 1].tolist()
    runs = [f"(_rowaddr >= {a} AND _rowaddr <= {b})" for a, b in zip(first, last, strict=True)]
    short = np.repeat(~long, ends - starts)
    single = [str(address) for address in sorted_[short].tolist()]
    for i in range(0, len(single), _TERMS):
        yield f"_rowaddr IN ({', '.join(single[i : i + _TERMS])})"
    for i in range(0, len(runs), _RUNS):
        yield " OR ".join(runs[i : i + _RUNS])
