"""One version of a table, as it stays while others write."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader

from pipeline.store import objects
from pipeline.store.files import opened, read
from pipeline.store.location import Location


class Snapshot:
    """One version of a table, for many small reads by position. Safe to read from several threads."""

    def __init__(self, table: Location, schema: pa.Schema) -> None:
        self._table, self._schema = table, schema
        self._dataset = opened(table)
        self.count: int = 0 if self._dataset is None else int(self._dataset.count_rows())

    @property
    def local(self) -> bool:
        """Whether its data files can be read as files."""
        return self._table.local

    def columns(self, columns: list[str], filter: str | None = None) -> pa.Table:
        """All rows of some columns, in scan order."""
        if self._dataset is None:
            return self._schema.empty_table().select(columns)
        return read(self._table, self._dataset, columns, filter)

    def addresses(self) -> np.ndarray:
        """uint64 [n]: where each row lies, in scan order: number of its fragment times 2^32, plus row within it."""
        if self._dataset is None:
            return np.zeros(0, np.uint64)
        with objects.reaching(self._table):
            rows = self._dataset.scanner(columns=[], with_row_address=True).to_table()
        found: np.ndarray = rows["_rowaddr"].to_numpy()
        return found

    def pages(self, fragment: int, column: str) -> tuple[Path, list[list[tuple[int, int]]], int]:
        """The data file of a fragment, (position, size) of each buffer of each page of a flat column, and its rows.

        Of a table in a folder only: see `local`.
        """
        return pages(self._table.path, self._dataset.get_fragment(fragment), column)

    def take(self, offsets: Sequence[int], columns: list[str]) -> pa.Table:
        """Rows by position in scan order.

        Raises:
            ValueError: offsets do not ascend or repeat (Lance copies such rows byte by byte).
            IndexError: an offset is outside the table.
        """
        wanted = [int(offset) for offset in offsets]
        if any(a >= b for a, b in itertools.pairwise(wanted)):
            raise ValueError("offsets must ascend and not repeat")
        if wanted and not (wanted[0] >= 0 and wanted[-1] < self.count):
            raise IndexError(f"rows {wanted[0]}..{wanted[-1]} of a table of {self.count}")
        if not wanted:
            return self._schema.empty_table().select(columns)
        with objects.reaching(self._table):
            return self._dataset.take(wanted, columns=columns)


def pages(table: Path, fragment: Any, column: str) -> tuple[Path, list[list[tuple[int, int]]], int]:
    """The data file of a fragment, (position, size) of each buffer of each page of a flat column, and its rows."""
    path = table / "data" / fragment.data_files()[0].path  # our tables have one a fragment
    about = LanceFileReader(str(path)).metadata()
    found = about.columns[about.schema.names.index(column)].pages
    return path, [[(b.position, b.size) for b in page.buffers] for page in found], int(fragment.physical_rows)
