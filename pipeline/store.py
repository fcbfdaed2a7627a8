"""A store: a folder of Lance tables with declared schemas, one committing process, atomic commits.

The only module that imports lance. Every write is one commit: it is wholly there or not at all, also after kill -9.
"""

import datetime
import fcntl
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import polars as pl
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import FragmentMetadata

from pipeline.errors import UserError
from pipeline.schemas import CURATED, KEYS, STORE_VERSION, TABLES
from pipeline.stage import Key, key_filters
from pipeline.stage import literal as literal

_FORMAT: Any = "2.2"  # Lance storage version: the newest stable one; large_binary without compression needs >= 2.1
_PIXEL_BATCH = 64  # rows of a scan that holds pixels; Lance's default of 8192 would be more than a gigabyte
_WRITE_CACHE = 1 << 20  # bytes that wait for their page; with Lance's default, memory grows with what is written
_LARGE = ("frames", "frame_embeddings")  # written in large pieces: rewriting them would cost more than it saves
_FRAGMENTS = 64  # a table of small rows in more pieces than this is compacted
_VERSIONS = 256  # more old versions than this are removed, except tagged and recent ones
_RECENT = datetime.timedelta(hours=1)  # readers may still be on a version this young
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_locks: dict[str, tuple[int, int]] = {}  # store -> (file descriptor, holders); flock is per descriptor, not per process


class Store:
    """A folder of tables. Reading is free; writing takes the store's lock.

    Raises:
        UserError: there is no store in `path` (and `create` is False), or it was written by an unknown version.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        self.path = Path(path).absolute()
        stamp = self.path / "store.json"
        if not stamp.is_file():
            if not create:
                raise UserError(str(path), "no store here", "strive-data ingest --store " + str(path))
            if self.path.exists() and not self.path.is_dir():
                raise UserError(str(path), "a store is a folder", "choose another --store")
            self.path.mkdir(parents=True, exist_ok=True)
            fresh = self.path / f".store.json.{os.getpid()}"
            fresh.write_text(json.dumps({"store_version": STORE_VERSION}))
            fresh.replace(stamp)
        try:
            version = json.loads(stamp.read_text())["store_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                str(stamp), f"not readable as a store's stamp ({error})", "choose another --store"
            ) from error
        if version != STORE_VERSION:
            raise UserError(
                f"store {path} of version {version}",
                f"this program reads version {STORE_VERSION}",
                "use the program that wrote it, or another --store",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock; may be nested. The system releases it when the process dies, however it dies.

        Raises:
            UserError: another process holds it.
        """
        place = str(self.path.resolve())
        descriptor, holders = _locks.get(place, (-1, 0))
        if not holders:
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise UserError(
                    f"store {self.path}", "another process is writing to it", "wait until that command ends"
                ) from None
        _locks[place] = (descriptor, holders + 1)
        try:
            yield
        finally:
            descriptor, holders = _locks.pop(place)
            if holders > 1:
                _locks[place] = (descriptor, holders - 1)
            else:
                os.close(descriptor)

    def table_path(self, name: str) -> Path:
        """Where a table lies: a Lance dataset.

        Raises:
            ValueError: no such table is declared.
        """
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; the tables are {', '.join(TABLES)}")
        return self.path / f"{name}.lance"

    def table(self, name: str, columns: list[str] | None = None, filter: str | None = None) -> pa.Table:
        """Rows of a table; empty, with its types, when it is not there yet. `filter` is SQL."""
        dataset = _open(self.table_path(name))
        names = TABLES[name].names if columns is None else columns
        if dataset is None:
            return TABLES[name].empty_table().select(names)
        return _read(dataset, names, filter)

    def scan(self, name: str) -> pl.LazyFrame:
        """The table as a polars LazyFrame; filters and columns are pushed into Lance."""
        path = self.table_path(name)
        if not _exists(path):
            return pl.LazyFrame(pl.from_arrow(TABLES[name].empty_table()))
        return pl.scan_lance(path)

    def count(self, name: str, filter: str | None = None) -> int:
        """Number of rows, of those that satisfy the SQL filter."""
        dataset = _open(self.table_path(name))
        return 0 if dataset is None else int(dataset.count_rows(filter))

    def snapshot(self, name: str) -> "Snapshot":
        """The table as it is now; later commits do not change what a snapshot reads."""
        return Snapshot(self.table_path(name), TABLES[name])

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows in one atomic commit.

        Raises:
            ValueError: a declared column is missing.
            UserError: another process is writing.
        """
        path = self.table_path(name)
        rows = _typed(rows, TABLES[name])
        with self.writing():
            mode = "append" if _exists(path) else "create"
            lance.write_dataset(rows, str(path), mode=mode, data_storage_version=_FORMAT)

    def commit_fragments(self, name: str, fragments: Sequence[str]) -> None:
        """Make the rows that `write_fragments` wrote visible, in the order given, in one atomic commit.

        Raises:
            ValueError: one of them was committed before; Lance would double its rows.
            UserError: another process is writing.
        """
        path = self.table_path(name)
        new = [FragmentMetadata.from_json(text) for text in fragments]
        with self.writing():
            if not _exists(path):
                self.append(name, TABLES[name].empty_table())
            dataset = _open(path)
            there = [fragment.metadata for fragment in dataset.get_fragments()]
            files = [file.path for about in (*there, *new) for file in about.files]
            if len(set(files)) != len(files):
                raise ValueError(f"fragments of {name} were committed before")
            lance.LanceDataset.commit(str(path), lance.LanceOperation.Append(new), read_version=dataset.version)

    def delete(self, name: str, filter: str) -> None:
        """Remove the rows that satisfy the SQL filter, in one atomic commit."""
        with self.writing():
            dataset = _open(self.table_path(name))
            if dataset is not None and dataset.count_rows(filter):
                dataset.delete(filter)

    def done(self, name: str, scope: str | None = None) -> set[tuple[Key, str]]:
        """(key, fingerprint) of every item that has rows, within an SQL filter."""
        columns = [*KEYS[name], "fingerprint"]
        distinct = self.table(name, columns, scope).group_by(columns).aggregate([])
        return {(row[:-1], row[-1]) for row in zip(*(distinct[c].to_pylist() for c in columns), strict=True)}

    def remove_items(self, name: str, keys: Iterable[Key], scope: str | None = None) -> None:
        """Remove all rows of these items, within an SQL filter."""
        for either in key_filters(KEYS[name], keys):
            self.delete(name, f"({either}) AND ({scope})" if scope else either)

    def tidy(self, name: str, reclaim: bool = False, running: bool = False) -> None:
        """Join small pieces when there are many, and drop old versions when there are many or on `reclaim`.

        Versions of the last hour stay, because readers may be on them; tagged versions stay for good. Files that no
        version names, of commits and workers that were killed, go too, unless workers are `running`.
        """
        path = self.table_path(name)
        with self.writing():
            dataset = _open(path)
            if dataset is None:
                return
            if name not in _LARGE and len(dataset.get_fragments()) > _FRAGMENTS:
                dataset.optimize.compact_files()
            if reclaim or len(os.listdir(path / "_versions")) > _VERSIONS:
                # The lock says that nobody is committing, but workers may have files that wait for their commit.
                dataset.cleanup_old_versions(_RECENT, delete_unverified=not running, error_if_tagged_old_versions=False)

    def bytes(self, name: str) -> int:
        """Size of a table on disk, old versions included."""
        return folder_bytes(self.table_path(name))

    def curated_path(self, name: str) -> Path:
        """Where a curated dataset lies: a Lance dataset that polars and the trainer open directly.

        Raises:
            UserError: the name cannot be a folder's.
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"name {name!r}", "letters, digits, dots, dashes and underscores", "choose another name")
        return self.path / "curated" / name

    def curated_names(self) -> list[str]:
        """Names of the curated datasets, sorted."""
        folder = self.path / "curated"
        return sorted(p.name for p in folder.iterdir() if _exists(p)) if folder.is_dir() else []

    def curated(self, name: str, tag: str | None = None) -> pa.Table:
        """A curated dataset, ordered by sample_id: its newest version, or a tagged one.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        dataset = self._curated(name)
        if tag is not None:
            tags = sorted(dataset.tags.list())
            if tag not in tags:
                raise UserError(
                    f"tag {tag!r} of {name!r}", f"known tags: {', '.join(tags) or 'none'}", "name one of them"
                )
            dataset = dataset.checkout_version(tag)
        return dataset.to_table().sort_by("sample_id")

    def curated_tags(self, name: str) -> dict[str, int]:
        """{tag: version} of a curated dataset; empty when there is none."""
        dataset = _open(self.curated_path(name))
        return {} if dataset is None else {tag: int(about["version"]) for tag, about in dataset.tags.list().items()}

    def scan_curated(self, name: str) -> pl.LazyFrame:
        """The newest version of a curated dataset as a polars LazyFrame.

        Raises:
            UserError: there is no such dataset.
        """
        self._curated(name)
        return pl.scan_lance(self.curated_path(name))

    def curated_metadata(self, name: str) -> dict[str, str]:
        """What `write_curated` was given to remember about the newest version."""
        dataset = _open(self.curated_path(name))
        return {} if dataset is None else dict(dataset.metadata)

    def write_curated(self, name: str, rows: pa.Table, tag: str, metadata: dict[str, str]) -> int:
        """Make `rows` the whole content of a curated dataset, in one atomic commit, and tag that version.

        Older versions stay readable by their tags. Nothing is written when the newest version holds the same already.

        Returns:
            the version that the tag names.

        Raises:
            UserError: the tag names other rows: what was published under a tag does not change.
        """
        path = self.curated_path(name)
        rows = _typed(rows, CURATED)
        with self.writing():
            dataset = _open(path)
            if dataset is not None and tag in dataset.tags.list():
                tagged = dataset.checkout_version(tag).to_table().sort_by("sample_id")
                if not tagged.equals(rows.sort_by("sample_id")):
                    raise UserError(f"tag {tag!r} of {name!r}", "it names other samples", "choose another --tag")
            if dataset is None:
                path.mkdir(parents=True, exist_ok=True)
                dataset = lance.write_dataset(rows, str(path), mode="create", data_storage_version=_FORMAT)
            elif not dataset.to_table().sort_by("sample_id").equals(rows.sort_by("sample_id")):
                merge = dataset.merge_insert("sample_id").when_matched_update_all().when_not_matched_insert_all()
                merge.when_not_matched_by_source_delete().execute(rows)
            dataset = _open(path)
            if dict(dataset.metadata) != metadata:
                dataset.update_metadata(metadata, replace=True)
                dataset = _open(path)
            if tag not in dataset.tags.list():
                dataset.tags.create(tag, dataset.version)
            return int(dataset.tags.list()[tag]["version"])

    def _curated(self, name: str) -> Any:
        dataset = _open(self.curated_path(name))
        if dataset is None:
            known = ", ".join(self.curated_names()) or "none yet"
            raise UserError(f"curated dataset {name!r}", f"the store has {known}", f"strive-data select --name {name}")
        return dataset


class Snapshot:
    """One version of a table, for many small reads by position. Safe to read from several threads."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._dataset = _open(path)
        self.count: int = 0 if self._dataset is None else int(self._dataset.count_rows())

    def columns(self, columns: list[str], filter: str | None = None) -> pa.Table:
        """All rows of some columns, in scan order."""
        if self._dataset is None:
            return self._schema.empty_table().select(columns)
        return _read(self._dataset, columns, filter)

    def addresses(self) -> np.ndarray:
        """uint64 [n]: where each row lies, in scan order: number of its fragment times 2^32, plus row within it."""
        if self._dataset is None:
            return np.zeros(0, np.uint64)
        found: np.ndarray = self._dataset.scanner(columns=[], with_row_address=True).to_table()["_rowaddr"].to_numpy()
        return found

    def pages(self, fragment: int, column: str) -> tuple[Path, list[list[tuple[int, int]]], int]:
        """The data file of a fragment, (position, size) of each buffer of each page of a flat column, and its rows."""
        found = self._dataset.get_fragment(fragment)
        path = self._path / "data" / found.data_files()[0].path  # our tables have one a fragment
        about = LanceFileReader(str(path)).metadata()
        pages = about.columns[about.schema.names.index(column)].pages
        return path, [[(b.position, b.size) for b in page.buffers] for page in pages], found.physical_rows

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
        return self._dataset.take(wanted, columns=columns)


def write_fragments(store_path: str | Path, name: str, parts: Iterable[pa.Table]) -> tuple[str, ...]:
    """Write rows as they come, holding few at a time, into data files that no version of the table names yet.

    Any process may do so, without the lock. `Store.commit_fragments` makes the rows visible.

    Returns:
        a description of each file, in the order of its rows.
    """
    path, schema = Store(store_path).table_path(name), TABLES[name]
    batches = (batch for part in parts for batch in _typed(part, schema).to_batches())
    found = lance.fragment.write_fragments(
        pa.RecordBatchReader.from_batches(schema, batches),
        str(path),
        mode="append" if _exists(path) else "create",
        data_storage_version=_FORMAT,
        data_cache_bytes=_WRITE_CACHE,
    )
    return tuple(json.dumps(fragment.to_json()) for fragment in found)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when it does not exist."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _exists(path: Path) -> bool:
    # A kill during the first commit leaves data files without a version: such a table is not there yet.
    versions = path / "_versions"
    return versions.is_dir() and any(p.suffix == ".manifest" for p in versions.iterdir())


def _open(path: Path) -> Any:
    return lance.dataset(str(path)) if _exists(path) else None


def _read(dataset: Any, columns: list[str], filter: str | None) -> pa.Table:
    if "pixels" not in columns:
        return dataset.to_table(columns=columns, filter=filter)
    scanner = dataset.scanner(
        columns=columns, filter=filter, batch_size=_PIXEL_BATCH, batch_readahead=2, io_buffer_size=64 << 20
    )
    return scanner.to_table()


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = set(schema.names) - set(rows.column_names)
    if missing:
        raise ValueError(f"columns {sorted(missing)} are missing")
    return rows.select(schema.names).cast(schema)
