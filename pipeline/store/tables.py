"""A store: Lance tables with declared schemas, in a folder or on an object store; one process commits, atomically.

Every write is one commit: it is wholly there or not at all, also after kill -9.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lance
import polars as pl
import pyarrow as pa
from lance.fragment import FragmentMetadata

from pipeline.errors import UserError
from pipeline.schemas import KEYS, STORE_VERSION, TABLES
from pipeline.stage import Key
from pipeline.store import history, objects
from pipeline.store.curated import CuratedTables
from pipeline.store.files import FORMAT, exists, folder_bytes, opened, read, room, scanned, sealed, size, typed, written
from pipeline.store.location import Location, locate
from pipeline.store.lock import writing
from pipeline.store.rows import addresses_of, drop_rows
from pipeline.store.snapshot import Snapshot
from pipeline.store.upkeep import LARGE, PIECES, VERSIONS, clean, compact

_WRITE_CACHE = 1 << 20  # bytes that wait for their page; with Lance's default, memory grows with what is written


class Store(CuratedTables):
    """A folder of tables, or a prefix of an object store. Reading is free; writing is one process's at a time.

    Args:
        place: a path, a URI (s3://bucket/prefix), or a location.
        options: storage options of an object store; default: those that the process shares (see `location.share`).

    Raises:
        UserError: there is no store in `place` (and `create` is False), it was written by an unknown version, or its
            object store cannot be reached.
    """

    def __init__(
        self, place: str | Path | Location, create: bool = False, options: Mapping[str, str] | None = None
    ) -> None:
        self.location = locate(place, options)
        stamp = self.location / "store.json"
        content = objects.read(stamp.impatient)
        if content is None:
            if not create:
                raise UserError(str(place), "no store here", f"strive-data ingest --store {place}")
            if self.location.local and self.path.exists() and not self.path.is_dir():
                raise UserError(str(place), "a store is a folder", "choose another --store")
            content = json.dumps({"store_version": STORE_VERSION}).encode()
            with room(self.location):
                objects.write(stamp, content)
        try:
            version = json.loads(content)["store_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                str(stamp), f"not readable as a store's stamp ({error})", "choose another --store"
            ) from error
        if version != STORE_VERSION:
            raise UserError(
                f"store {place} of version {version}",
                f"this program reads version {STORE_VERSION}",
                "use the program that wrote it, or another --store",
            )

    @property
    def path(self) -> Path:
        """The folder that a store lies in. Raises UserError: it lies on an object store."""
        return self.location.path

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that commits to this store; may be nested.

        In a folder it is a lock, which the system releases when the process dies, however it dies. On an object store
        it is a lease, which ends a minute after the last sign of life (see `pipeline.store.lease`).

        Raises:
            UserError: another process has it, the disk is full, or the object store refuses.
        """
        with writing(self.location):
            yield

    def table_at(self, name: str) -> Location:
        """Where a table lies: a Lance dataset.

        Raises:
            ValueError: no such table is declared.
        """
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; the tables are {', '.join(TABLES)}")
        return self.location / f"{name}.lance"

    def table_path(self, name: str) -> Path:
        """The folder that a table lies in. Raises ValueError: no such table. UserError: on an object store."""
        return self.table_at(name).path

    def table(self, name: str, columns: list[str] | None = None, filter: str | None = None) -> pa.Table:
        """Rows of a table; empty, with its types, when it is not there yet. `filter` is SQL."""
        place = self.table_at(name)
        dataset = opened(place)
        names = TABLES[name].names if columns is None else columns
        if dataset is None:
            return TABLES[name].empty_table().select(names)
        return read(place, dataset, names, filter)

    def scan(self, name: str) -> pl.LazyFrame:
        """The table as a polars LazyFrame; filters and columns are pushed into Lance."""
        place = self.table_at(name)
        if not exists(place):
            return pl.LazyFrame(pl.from_arrow(TABLES[name].empty_table()))
        return scanned(place)

    def count(self, name: str, filter: str | None = None) -> int:
        """Number of rows, of those that satisfy the SQL filter."""
        place = self.table_at(name)
        dataset = opened(place)
        with objects.reaching(place):
            return 0 if dataset is None else int(dataset.count_rows(filter))

    def snapshot(self, name: str) -> Snapshot:
        """The table as it is now; later commits do not change what a snapshot reads."""
        return Snapshot(self.table_at(name), TABLES[name])

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows in one atomic commit.

        Raises:
            ValueError: a declared column is missing.
            UserError: another process is writing.
        """
        place = self.table_at(name)
        rows = typed(rows, TABLES[name])
        with self.writing():
            written(place, rows, "append" if exists(place) else "create")

    def create(self, name: str) -> None:
        """Make a table, empty, unless it is there. Whoever writes fragments to it meanwhile then adds to a table that
        stays: Lance refuses to begin one that somebody else has begun.

        Raises:
            UserError: another process is writing.
        """
        with self.writing():
            if not exists(self.table_at(name)):
                self.append(name, TABLES[name].empty_table())

    def commit_fragments(self, name: str, fragments: Sequence[str]) -> None:
        """Make the rows that `write_fragments` wrote visible, in the order given, in one atomic commit.

        Raises:
            ValueError: one of them was committed before; Lance would double its rows.
            UserError: another process is writing.
        """
        place = self.table_at(name)
        new = [FragmentMetadata.from_json(text) for text in fragments]
        with self.writing():
            self.create(name)
            dataset = opened(place)
            there = [fragment.metadata for fragment in dataset.get_fragments()]
            files = [file.path for about in (*there, *new) for file in about.files]
            if len(set(files)) != len(files):
                raise ValueError(f"fragments of {name} were committed before")
            append = lance.LanceOperation.Append(new)
            options = {"read_version": dataset.version, "storage_options": place.storage}
            sealed(place, lance.LanceDataset.commit(place.uri, append, **options))

    def delete(self, name: str, filter: str) -> None:
        """Remove the rows that satisfy the SQL filter, in one atomic commit."""
        with self.writing():
            place = self.table_at(name)
            dataset = opened(place)
            if dataset is not None and dataset.count_rows(filter):
                dataset.delete(filter)
                sealed(place, opened(place))

    def done(self, name: str, scope: str | None = None) -> set[tuple[Key, str]]:
        """(key, fingerprint) of every item that has rows, within an SQL filter."""
        columns = [*KEYS[name], "fingerprint"]
        distinct = self.table(name, columns, scope).group_by(columns).aggregate([])
        return {(row[:-1], row[-1]) for row in zip(*(distinct[c].to_pylist() for c in columns), strict=True)}

    def remove_items(self, name: str, keys: Iterable[Key], scope: str | None = None) -> None:
        """Remove all rows of these items, within an SQL filter."""
        wanted, place = list(keys), self.table_at(name)
        with self.writing():
            dataset = opened(place) if wanted else None
            if dataset is not None:
                drop_rows(place, addresses_of(place, dataset, KEYS[name], wanted, scope))

    def tidy(self, name: str, reclaim: bool = False, running: bool = False) -> None:
        """Join small pieces when there are many, and drop old versions when there are many or on `reclaim`.

        Versions of the last hour stay, because readers may be on them; tagged versions stay for good. Files that no
        version names, of commits and workers that were killed, go too, unless workers are `running`.
        """
        place = self.table_at(name)
        with self.writing():
            dataset = opened(place)
            if dataset is None:
                return
            if name not in LARGE and len(dataset.get_fragments()) > PIECES:
                compact(place, dataset, large=False)
            if reclaim or len(objects.files(place / "_versions")) > VERSIONS:
                # The lock says that nobody is committing, but workers may have files that wait for their commit.
                clean(place, dataset, unverified=not running)
            sealed(place, opened(place))

    def bytes(self, name: str) -> int:
        """Size of a table on disk, old versions included; on an object store, of what its newest version holds."""
        return size(self.table_at(name))

    def total_bytes(self) -> int:
        """Size of the store; on an object store, of its tables and curated datasets, counted as theirs is."""
        if self.location.local:
            return folder_bytes(self.path)
        places = [self.table_at(name) for name in TABLES]
        places += [self.location / kind / name for name in self.curated_names() for kind in ("curated", "verdicts")]
        return sum(map(size, places))

    def remember(self, command: str) -> None:
        """Note a command that wrote to this store, for the cards of its datasets."""
        with room(self.location):
            history.remember(self.location, command)

    def commands(self) -> list[str]:
        """The commands that wrote to this store, oldest first."""
        return history.commands(self.location)


def write_fragments(store: str | Path | Location, name: str, parts: Iterable[pa.Table]) -> tuple[str, ...]:
    """Write rows as they come, holding few at a time, into data files that no version of the table names yet.

    Any process may do so, without the lock. `Store.commit_fragments` makes the rows visible.

    Returns:
        a description of each file, in the order of its rows.

    Raises:
        UserError: the disk is full.
    """
    place, schema = Store(store).table_at(name), TABLES[name]
    batches = (batch for part in parts for batch in typed(part, schema).to_batches())
    with room(locate(store)):
        found = lance.fragment.write_fragments(
            pa.RecordBatchReader.from_batches(schema, batches),
            place.uri,
            mode="append" if exists(place) else "create",
            data_storage_version=FORMAT,
            data_cache_bytes=_WRITE_CACHE,
            storage_options=place.storage,
        )
    return tuple(json.dumps(fragment.to_json()) for fragment in found)
