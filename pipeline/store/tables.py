"""A store: a folder of Lance tables with declared schemas, one committing process, atomic commits.

Every write is one commit: it is wholly there or not at all, also after kill -9.
"""

import datetime
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lance
import polars as pl
import pyarrow as pa
from lance.fragment import FragmentMetadata

from pipeline.errors import UserError
from pipeline.schemas import CURATED, KEYS, STORE_VERSION, TABLES, VERDICTS
from pipeline.stage import Key, key_filters
from pipeline.store import history
from pipeline.store.files import FORMAT, exists, opened, read, room, typed
from pipeline.store.seals import forget_gone, seal
from pipeline.store.snapshot import Snapshot
from pipeline.store.tagged import Tagged

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
            with room(self.path):
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
            UserError: another process holds it, or the disk is full.
        """
        place = str(self.path.resolve())
        descriptor, holders = _locks.get(place, (-1, 0))
        if not holders:
            with room(self.path):
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
            with room(self.path):
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
        dataset = opened(self.table_path(name))
        names = TABLES[name].names if columns is None else columns
        if dataset is None:
            return TABLES[name].empty_table().select(names)
        return read(dataset, names, filter)

    def scan(self, name: str) -> pl.LazyFrame:
        """The table as a polars LazyFrame; filters and columns are pushed into Lance."""
        path = self.table_path(name)
        if not exists(path):
            return pl.LazyFrame(pl.from_arrow(TABLES[name].empty_table()))
        return pl.scan_lance(path)

    def count(self, name: str, filter: str | None = None) -> int:
        """Number of rows, of those that satisfy the SQL filter."""
        dataset = opened(self.table_path(name))
        return 0 if dataset is None else int(dataset.count_rows(filter))

    def snapshot(self, name: str) -> Snapshot:
        """The table as it is now; later commits do not change what a snapshot reads."""
        return Snapshot(self.table_path(name), TABLES[name])

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows in one atomic commit.

        Raises:
            ValueError: a declared column is missing.
            UserError: another process is writing.
        """
        path = self.table_path(name)
        rows = typed(rows, TABLES[name])
        with self.writing():
            mode = "append" if exists(path) else "create"
            seal(path, lance.write_dataset(rows, str(path), mode=mode, data_storage_version=FORMAT))

    def commit_fragments(self, name: str, fragments: Sequence[str]) -> None:
        """Make the rows that `write_fragments` wrote visible, in the order given, in one atomic commit.

        Raises:
            ValueError: one of them was committed before; Lance would double its rows.
            UserError: another process is writing.
        """
        path = self.table_path(name)
        new = [FragmentMetadata.from_json(text) for text in fragments]
        with self.writing():
            if not exists(path):
                self.append(name, TABLES[name].empty_table())
            dataset = opened(path)
            there = [fragment.metadata for fragment in dataset.get_fragments()]
            files = [file.path for about in (*there, *new) for file in about.files]
            if len(set(files)) != len(files):
                raise ValueError(f"fragments of {name} were committed before")
            added = lance.LanceOperation.Append(new)
            seal(path, lance.LanceDataset.commit(str(path), added, read_version=dataset.version))

    def delete(self, name: str, filter: str) -> None:
        """Remove the rows that satisfy the SQL filter, in one atomic commit."""
        with self.writing():
            dataset = opened(self.table_path(name))
            if dataset is not None and dataset.count_rows(filter):
                dataset.delete(filter)
                seal(self.table_path(name), opened(self.table_path(name)))

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
            dataset = opened(path)
            if dataset is None:
                return
            if name not in _LARGE and len(dataset.get_fragments()) > _FRAGMENTS:
                dataset.optimize.compact_files()
            if reclaim or len(os.listdir(path / "_versions")) > _VERSIONS:
                # The lock says that nobody is committing, but workers may have files that wait for their commit.
                dataset.cleanup_old_versions(_RECENT, delete_unverified=not running, error_if_tagged_old_versions=False)
                forget_gone(path)
            seal(path, opened(path))

    def bytes(self, name: str) -> int:
        """Size of a table on disk, old versions included."""
        return folder_bytes(self.table_path(name))

    def curated_path(self, name: str) -> Path:
        """Where a curated dataset lies: a Lance dataset that polars and the trainer open directly.

        Raises:
            UserError: the name cannot be a folder's.
        """
        return self._named("curated", name)

    def verdicts_path(self, name: str) -> Path:
        """Where the verdicts of a curated dataset lie. Raises UserError: the name cannot be a folder's."""
        return self._named("verdicts", name)

    def curated_names(self) -> list[str]:
        """Names of the curated datasets, sorted."""
        folder = self.path / "curated"
        return sorted(p.name for p in folder.iterdir() if exists(p)) if folder.is_dir() else []

    def curated(self, name: str, tag: str | None = None) -> pa.Table:
        """A curated dataset, ordered by sample_id: its newest version, or a tagged one.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).table(tag)

    def verdicts(self, name: str, tag: str | None = None) -> pa.Table:
        """What became of each sample of the pool that a curated dataset was selected from, ordered by sample_id.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        self._curated(name)
        return self._verdicts(name).table(tag)

    def facts(self, name: str, tag: str | None = None) -> dict[str, str]:
        """How a curated dataset was selected, in the selection's own words (see pipeline.curate).

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).facts(tag)

    def curated_tags(self, name: str) -> dict[str, int]:
        """{tag: version} of a curated dataset; empty when there is none."""
        return Tagged(self.curated_path(name), CURATED).tags()

    def scan_curated(self, name: str, tag: str | None = None) -> pl.LazyFrame:
        """A version of a curated dataset as a polars LazyFrame.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).scan(tag)

    def write_curated(self, name: str, rows: pa.Table, verdicts: pa.Table, tag: str, facts: dict[str, str]) -> int:
        """Make `rows` the whole content of a curated dataset, in one atomic commit, and tag that version.

        Older versions stay readable by their tags. Nothing is written when the newest version holds the same already.

        Args:
            rows: schema CURATED. verdicts: schema VERDICTS, written first. facts: what to remember about the tag.

        Returns:
            the version that the tag names.

        Raises:
            UserError: the tag names other rows: what was published under a tag does not change.
        """
        curated = Tagged(self.curated_path(name), CURATED)
        with self.writing():
            curated.refuse_change(rows, tag)
            about = self._verdicts(name)
            if tag not in curated.tags():
                about.forget(tag)  # of a selection that was stopped before its dataset was there
            about.write(verdicts, tag, facts)
            return curated.write(rows, tag, facts)

    def remember(self, command: str) -> None:
        """Note a command that wrote to this store, for the cards of its datasets."""
        with room(self.path):
            history.remember(self.path, command)

    def commands(self) -> list[str]:
        """The commands that wrote to this store, oldest first."""
        return history.commands(self.path)

    def _curated(self, name: str) -> Tagged:
        found = Tagged(self.curated_path(name), CURATED)
        if not exists(found.path):
            known = ", ".join(self.curated_names()) or "none yet"
            raise UserError(f"curated dataset {name!r}", f"the store has {known}", f"strive-data select --name {name}")
        return found

    def _verdicts(self, name: str) -> Tagged:
        return Tagged(self.verdicts_path(name), VERDICTS)

    def _named(self, kind: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UserError(f"name {name!r}", "letters, digits, dots, dashes and underscores", "choose another name")
        return self.path / kind / name


def write_fragments(store_path: str | Path, name: str, parts: Iterable[pa.Table]) -> tuple[str, ...]:
    """Write rows as they come, holding few at a time, into data files that no version of the table names yet.

    Any process may do so, without the lock. `Store.commit_fragments` makes the rows visible.

    Returns:
        a description of each file, in the order of its rows.

    Raises:
        UserError: the disk is full.
    """
    path, schema = Store(store_path).table_path(name), TABLES[name]
    batches = (batch for part in parts for batch in typed(part, schema).to_batches())
    with room(Path(store_path)):
        found = lance.fragment.write_fragments(
            pa.RecordBatchReader.from_batches(schema, batches),
            str(path),
            mode="append" if exists(path) else "create",
            data_storage_version=FORMAT,
            data_cache_bytes=_WRITE_CACHE,
        )
    return tuple(json.dumps(fragment.to_json()) for fragment in found)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when it does not exist."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
