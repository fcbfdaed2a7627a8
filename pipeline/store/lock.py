"""One process commits: the lock of a store in a folder, the lease of one on an object store."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.store.files import room
from pipeline.store.lease import Lease, take
from pipeline.store.location import Location


@dataclass
class _Held:
    """What this process holds of a store, and how often: flock is per descriptor, not per process."""

    descriptor: int = -1
    lease: Lease | None = None
    holders: int = 0

    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()
        else:
            os.close(self.descriptor)


_held: dict[str, _Held] = {}


@contextmanager
def writing(store: Location) -> Iterator[None]:
    """Around what commits to a store: `holding` and `files.room`, with their errors."""
    with holding(store), room(store):
        yield


@contextmanager
def holding(store: Location) -> Iterator[None]:
    """Be the one process that commits; may be nested. A lock ends with its process, a lease soon after it.

    Raises:
        UserError: another process is, or (on an object store) this one has been too slow to stay it.
    """
    place = str(store.path.resolve()) if store.local else store.uri
    held = _held.get(place)
    if held is None:
        held = _held[place] = _flock(store) if store.local else _Held(lease=take(store))
    elif held.lease is not None:
        held.lease.check()
    held.holders += 1
    try:
        yield
    finally:
        held.holders -= 1
        if not held.holders:
            del _held[place]
            held.release()


def _flock(store: Location) -> _Held:
    with room(store):
        descriptor = os.open(store.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"store {store}", "another process is writing to it", "wait until that command ends") from None
    return _Held(descriptor)
