"""Lance datasets by their folder: whether one is there, how it is read, what is put into it, and when it is full."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from pipeline.errors import UserError

FORMAT: Any = "2.2"  # Lance storage version: the newest stable one; large_binary without compression needs >= 2.1
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_SEALED = (errno.EACCES, errno.EPERM, errno.EROFS)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # Lance tells the system's error number in its text alone
_DAMAGE = re.compile(r"LanceError\(IO\)|Not found: |corrupt|is outside file|failed to decode")
_PIXEL_BATCH = 64  # rows of a scan that holds pixels; Lance's default of 8192 would be more than a gigabyte


def exists(path: Path) -> bool:
    # A kill during the first commit leaves data files without a version: such a table is not there yet.
    versions = path / "_versions"
    return versions.is_dir() and any(p.suffix == ".manifest" for p in versions.iterdir())


def opened(path: Path) -> Any:
    """The newest version of a table; None when it is not there. Raises UserError: it does not open."""
    if not exists(path):
        return None
    try:
        return lance.dataset(str(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read(dataset: Any, columns: list[str], filter: str | None) -> pa.Table:
    """Some columns of some rows. Raises UserError: a file of the table is damaged."""
    options: dict[str, Any] = {"columns": columns, "filter": filter}
    if "pixels" in columns:
        options |= {"batch_size": _PIXEL_BATCH, "batch_readahead": 2, "io_buffer_size": 64 << 20}
    try:
        return dataset.scanner(**options).to_table()
    except (OSError, ValueError) as error:
        if not _DAMAGE.search(str(error)):
            raise
        raise _damaged(Path(dataset.uri), error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split()).split(", /")[0][:200]
    return UserError(f"table {path}", f"it is damaged ({said})", "strive-data verify, then with --repair; see --help")


def typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = set(schema.names) - set(rows.column_names)
    if missing:
        raise ValueError(f"columns {sorted(missing)} are missing")
    return rows.select(schema.names).cast(schema)


@contextmanager
def room(store: Path) -> Iterator[None]:
    """Around what writes to a store.

    Raises:
        UserError: there is no room left on its disk, or it may not be written to. What was committed before stays.
    """
    try:
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
