"""Lance 14 does not hear when the disk does not take the last piece of a file, and commits what is cut short."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.store import Store


def rows(first: int, last: int) -> pa.Table:
    row = {"stage": "t", "message": "m", "kept": False, "fingerprint": "f"}
    found = [row | {"key": str(i), "reason": f"{i} " * 200} for i in range(first, last)]
    return pa.Table.from_pylist(found, schema=schemas.QUARANTINE)


@contextmanager
def limited(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_file_that_is_cut_short_is_not_committed(tmp_path: Path) -> None:
    whole = Store(tmp_path / "whole", create=True)
    whole.append("quarantine", rows(0, 3))
    (file,) = (whole.table_path("quarantine") / "data").iterdir()
    size = file.stat().st_size
    for lacking in (1, 20, size // 8, size - 10):
        store = Store(tmp_path / str(lacking), create=True)
        store.append("quarantine", rows(7, 8))
        with limited(size - lacking), pytest.raises(UserError, match="takes no more"):
            store.append("quarantine", rows(0, 3))
        assert store.table("quarantine").equals(rows(7, 8))
        store.append("quarantine", rows(0, 3))
        assert store.table("quarantine").equals(pa.concat_tables([rows(7, 8), rows(0, 3)]))
