"""Lance datasets by where they lie: whether one is there, how it is read, what is put into it, and when it is full."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import polars as pl
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store import objects
from pipeline.store.location import Location
from pipeline.store.seals import seal

FORMAT: Any = "2.2"  # Lance storage version: the newest stable one; large_binary without compression needs >= 2.1
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_SEALED = (errno.EACCES, errno.EPERM, errno.EROFS)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # Lance tells the system's error number in its text alone
_DAMAGE = re.compile(r"LanceError\((IO|Arrow)\)|Not found: |corrupt|is outside file|failed to decode")
_PIXEL_BATCH = 64  # rows of a scan that holds pixels; Lance's default of 8192 would be more than a gigabyte


def exists(table: Location) -> bool:
    # A kill during the first commit leaves data files without a version: such a table is not there yet.
    return any(name.endswith(".manifest") for name in objects.files(table / "_versions"))


def opened(table: Location) -> Any:
    """The newest version of a table; None when it is not there. Raises UserError: it does not open."""
    if not exists(table):
        return None
    try:
        with objects.reaching(table):
            return lance.dataset(table.uri, storage_options=table.storage)
    except (OSError, ValueError) as error:
        raise _damaged(table, error) from error


def read(
    table: Location, dataset: Any, columns: list[str], filter: str | None, with_row_address: bool = False
) -> pa.Table:
    """Some columns of some rows. Raises UserError: a file of the table is damaged."""
    options: dict[str, Any] = {"columns": columns, "filter": filter, "with_row_address": with_row_address}
    if "pixels" in columns:
        options |= {"batch_size": _PIXEL_BATCH, "batch_readahead": 2, "io_buffer_size": 64 << 20}
    with whole(table):
        return dataset.scanner(**options).to_table()


@contextmanager
def whole(table: Location) -> Iterator[None]:
    """Around what reads a table. Raises UserError: a file of it is damaged, or its object store refuses."""
    try:
        with objects.reaching(table):
            yield
    except (OSError, ValueError, RuntimeError) as error:
        if not _DAMAGE.search(str(error)):
            raise
        raise _damaged(table, error) from error


def written(table: Location, rows: pa.Table, mode: str) -> None:
    """Write rows in one commit, and seal their files."""
    with objects.reaching(table):
        options = {"data_storage_version": FORMAT, "storage_options": table.storage}
        sealed(table, lance.write_dataset(rows, table.uri, mode=mode, **options))


def sealed(table: Location, dataset: Any) -> None:
    """Seal the files of a version; an object store keeps checksums of its own, and has no file to read them from."""
    if table.local:
        seal(table.path, dataset)


def scanned(table: Location, version: int | None = None) -> pl.LazyFrame:
    """A version of a table, for polars to read what it needs of it."""
    return pl.scan_lance(table.uri, version=version, storage_options=table.storage)


def size(table: Location) -> int:
    """Bytes on disk, old versions included; on an object store: of the data files of the newest version."""
    if table.local:
        return folder_bytes(table.path)
    dataset = opened(table)
    if dataset is None:
        return 0
    return sum(file.file_size_bytes or 0 for part in dataset.get_fragments() for file in part.data_files())


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when it does not exist."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _damaged(table: Location, error: Exception) -> UserError:
    said = " ".join(str(error).split()).split(", /")[0][:200]
    return UserError(f"table {table}", f"it is damaged ({said})", "strive-data verify, then with --repair; see --help")


def typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = set(schema.names) - set(rows.column_names)
    if missing:
        raise ValueError(f"columns {sorted(missing)} are missing")
    return rows.select(schema.names).cast(schema)


@contextmanager
def room(store: Location) -> Iterator[None]:
    """Around what writes to a store.

    Raises:
        UserError: there is no room left on its disk, it may not be written to, or its object store refuses. What was
            committed before stays.
    """
    try:
        with objects.reaching(store):
            yield
    except OSError as error:
        numbers = {error.errno, *map(int, _OS_ERROR.findall(str(error)))}
        if str(store).lstrip("/") in str(error) and not numbers.isdisjoint(_SEALED):
            raise UserError(
                f"store {store}", "it may not be written to here", "change its permissions, or choose another --store"
            ) from error
        if numbers.isdisjoint(_FULL):
            raise
        found = next(number for number in _FULL if number in numbers)
        raise UserError(
            f"store {store}",
            f"its disk takes no more ({errno.errorcode[found]}); what was committed before is kept",
            "make room, then the same command again: it does only the rest",
        ) from error
