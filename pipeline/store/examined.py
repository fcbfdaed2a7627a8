"""What an examination of a table's files found, and the rows outside of broken ones."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.store import objects
from pipeline.store.location import Location
from pipeline.store.seals import Seal
from pipeline.store.snapshot import pages

TAGS = "_refs/tags"
PIXEL_BATCH, _LARGE_BATCH = 64, 256
_FRAME = ["video_id", "index", "checksum"]
_LARGE = {"embeddings", "scores", "indices"}  # columns of which few rows are held at once
DAMAGE = (OSError, ValueError, RuntimeError)  # what Lance raises for files that it cannot make sense of


@dataclass(frozen=True)
class Broken:
    """A file that does not hold what was written.

    fragment: which piece of the table it belongs to; None for a version. first, rows: of the table, in scan order, that
    lie in it.
    """

    what: str
    file: str
    message: str
    fragment: int | None = None
    first: int = 0
    rows: int = 0


@dataclass
class Examined:
    """The newest version of a table that opens, and what is wrong with its files.

    dataset: None when the table is not there, or no version opens (then `broken` says so). old: damaged versions before
    it, whose rows it does not need. files: looked at. unsealed:
    those without a seal, because their writer was killed before it made one, or on an object store, where there are
    none; they were read instead.
    """

    place: Location
    dataset: Any = None
    broken: list[Broken] = field(default_factory=list)
    old: list[Broken] = field(default_factory=list)
    files: int = 0
    unsealed: int = 0
    digests: dict[Path, str] = field(default_factory=dict, repr=False)
    known: dict[str, Seal] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """Rows outside of broken files."""
        return sum(rows_of(fragment) for fragment in self.good())

    @property
    def whole(self) -> bool:
        """Whether no row was lost to a broken file."""
        return not self.broken

    def good(self) -> list[Any]:
        """The fragments whose files are whole, in scan order."""
        if self.dataset is None:
            return []
        bad = {broken.fragment for broken in self.broken}
        return [fragment for fragment in self.dataset.get_fragments() if fragment.fragment_id not in bad]

    def tags(self) -> dict[str, int]:
        """{tag: version}, of the tags whose files can be read."""
        return {name.removesuffix(".json"): version for name, version in self._tag_files() if version is not None}

    def lost_tags(self) -> list[str]:
        """The files of tags that cannot be read, relative to the table."""
        return [f"{TAGS}/{name}" for name, version in self._tag_files() if version is None]

    def _tag_files(self) -> list[tuple[str, int | None]]:
        found: list[tuple[str, int | None]] = []
        for name in sorted(objects.files(self.place / TAGS)):
            try:
                found.append((name, int(json.loads(objects.read(self.place / TAGS / name) or b"")["version"])))
            except (ValueError, KeyError, TypeError):
                found.append((name, None))
        return found

    def numbers(self) -> list[int]:
        """The numbers of all fragments, in scan order."""
        return [] if self.dataset is None else [int(f.fragment_id) for f in self.dataset.get_fragments()]

    def table(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        """Some columns of all rows outside of broken files, and `_rowaddr` (uint64), in scan order."""
        parts = list(self.batches(columns))
        wanted = pa.schema([*(schema.field(name) for name in columns), pa.field("_rowaddr", pa.uint64())])
        return pa.Table.from_batches(parts).cast(wanted) if parts else wanted.empty_table()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The same, piece by piece."""
        fragments = self.good()
        if not fragments:
            return
        some = {"batch_size": _LARGE_BATCH, "batch_readahead": 2} if _LARGE & set(columns) else {}
        yield from self.dataset.scanner(
            columns=list(columns), fragments=fragments, with_row_address=True, scan_in_order=True, **some
        ).to_batches()

    def stored(self) -> Iterator[tuple[pa.Table, Any]]:
        """The frames of each whole file without their pixels, and how to get those: see `Stored`."""
        for fragment in self.good():
            scanner = self.dataset.scanner(columns=_FRAME, fragments=[fragment], with_row_address=True)
            yield scanner.to_table(), Stored(self.place, self.dataset, fragment)


class Stored:
    """The pixels of one file of frames, as bytes."""

    def __init__(self, place: Location, dataset: Any, fragment: Any) -> None:
        self._place, self._dataset, self._fragment = place, dataset, fragment

    @property
    def local(self) -> bool:
        """Whether the data file can be read as a file."""
        return self._place.local

    def pages(self) -> tuple[Path, list[list[tuple[int, int]]], int]:
        """As `Snapshot.pages`, of the column `pixels`."""
        return pages(self._place.path, self._fragment, "pixels")

    def many(self, rows: Sequence[int]) -> Iterator[Any]:
        """As `take` for each of many ascending rows, some of them by one request."""
        first = int(self._fragment.fragment_id) << 32
        for some in (rows[i : i + PIXEL_BATCH] for i in range(0, len(rows), PIXEL_BATCH)):
            listed = ", ".join(str(first + row) for row in some)
            scanner = self._dataset.scanner(columns=["pixels"], filter=f"_rowaddr IN ({listed})", with_row_address=True)
            try:
                with objects.reaching(self._place):
                    found = scanner.to_table()
            except DAMAGE:
                yield from map(self.take, some)
                continue
            values = dict(zip(found["_rowaddr"].to_pylist(), found["pixels"], strict=True))
            for row in some:
                value = values.get(first + row)
                yield None if value is None else value.as_buffer()

    def take(self, row: int) -> Any:
        """The bytes of a row of the file (deleted rows counted), by Lance; None when it cannot read them."""
        address = (int(self._fragment.fragment_id) << 32) + row
        try:
            scanner = self._dataset.scanner(columns=["pixels"], filter=f"_rowaddr = {address}")
            with objects.reaching(self._place):
                return scanner.to_table()["pixels"][0].as_buffer()
        except DAMAGE:
            return None


def rows_of(fragment: Any) -> int:
    """Rows of a fragment that are not deleted."""
    deleted = fragment.metadata.deletion_file  # counting by Lance would read the file
    return int(fragment.physical_rows) - (int(deleted.num_deleted_rows) if deleted else 0)
