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
_PIXEL_BATCH = 64  # rows of a scan that holds pixels; Lance's default of 8192 would be more than a gigabyte


def exists(path: Path) -> bool:
    # A kill during the first commit leaves data files without a version: such a table is not there yet.
    versions = path / "_versions"
    return versions.is_dir() and any(p.suffix == ".manifest" for p in versions.iterdir())


def opened(path: Path) -> Any:
    return lance.dataset(str(path)) if exists(path) else None


def read(dataset: Any, columns: list[str], filter: str | None) -> pa.Table:
    if "pixels" not in columns:
        return dataset.to_table(columns=columns, filter=filter)
    scanner = dataset.scanner(
        columns=columns, filter=filter, batch_size=_PIXEL_BATCH, batch_readahead=2, io_buffer_size=64 << 20
    )
    return scanner.to_table()


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
