"""Curated rows as the trainer holds them: in columns, where a row with its views takes a tenth of what objects take."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pyarrow as pa

_AT_ONCE = 512  # rows that are objects at the same time


class Rows(Sequence[dict[str, Any]]):
    """The rows of a table, each made when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        batches = table.combine_chunks().to_batches()
        self._batch = batches[0] if batches else None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self) or self._batch is None:
            raise IndexError(f"row {place} of {len(self)}")
        row: dict[str, Any] = self._batch.slice(place % len(self), 1).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches(max_chunksize=_AT_ONCE):
            yield from batch.to_pylist()

    def without(self, *names: str) -> "Rows":
        """The same rows without some columns: those with views take long to become objects."""
        return Rows(self.table.drop_columns(list(names)))

    def column(self, name: str) -> list[Any]:
        """The values of a column, in the order of the rows."""
        values: list[Any] = self.table[name].to_pylist()
        return values
