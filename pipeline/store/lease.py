"""Who may commit to a store on an object store: the holder of its lease, which ends by itself.

An object store has no lock that dies with its process. What it has is that an absent key can be put by one only. So
leases are numbered: number n is claimed by creating `leases/n.lance`, a table of one row, in which Lance lets one
process win. The highest number counts. Its holder says every few seconds, in `leases/n.json`, until when it holds it;
a lease that has ended, or whose time is over, is followed by the next number. A holder that was stopped for longer
than its lease sees the higher number, or that its time is over, and commits no more.

A lease takes over from one whose time is over by the clock of the one that takes it: clocks that differ by less than
_MARGIN_S do no harm. A process of this machine that is dead is not waited for.
"""

import getpass
import json
import os
import secrets
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import lance
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store import objects
from pipeline.store.location import Location

LEASE_S = 60.0
"""How long a lease lasts without a sign of life. A third of it is what its holder leaves unused."""

WAIT_S = 10.0
"""How long a writer waits for another one, which may be at a single commit."""

_MARGIN_S = 10.0  # longer than it says, before another takes a lease
_FOLDER = "leases"
_TABLE = ".lance"
_BEAT = ".json"


@dataclass(frozen=True)
class Holder:
    """What is written down of a holder: who it is, since when and until when (seconds since 1970)."""

    id: str
    who: str
    machine: str  # kernel and process namespace: where `pid` means something
    pid: int
    started: str
    since: float
    until: float
    ended: bool = False

    def alive(self, now: float) -> bool:
        """Whether it may still commit, as far as can be told from here."""
        if self.ended or now > self.until + _MARGIN_S:
            return False
        return not (self.machine == _machine() and _start_of(self.pid) != self.started)


class Lease:
    """A lease that this process holds, renewed by a thread until `release`."""

    def __init__(self, store: Location, number: int, holder: Holder) -> None:
        self._store, self._number, self._holder = store, number, holder
        self._lost_to = ""
        self._last_s = LEASE_S
        self._safe_until = _clock() + self._last_s * 2 / 3
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Called before each commit.

        Raises:
            UserError: the lease is another's by now, or its time is over.
        """
        if not self._lost_to and _clock() < self._safe_until:
            return
        raise UserError(
            f"store {self._store}",
            f"this process no longer holds its lease ({self._lost_to or 'it could not be renewed in time'})",
            "the same command again: what was committed before is kept",
        )

    def release(self) -> None:
        """End it, so that the next writer need not wait. Of a store that does not answer it ends by itself."""
        self._stop.set()
        self._thread.join()
        if not self._lost_to:
            with suppress(UserError, OSError, ValueError, RuntimeError):
                self._write(replace(self._holder, until=time.time(), ended=True))

    def _beat(self) -> None:
        while not self._stop.wait(self._last_s / 4):
            before = _clock()
            try:
                number, other = _newest(self._store)
                if number > self._number:
                    self._lost_to = f"{other.who} took it over" if other else "another took it over"
                    return
                self._write(replace(self._holder, until=time.time() + self._last_s))
            except (UserError, OSError, ValueError, RuntimeError):
                continue  # tried again; `check` says when it is too late
            self._safe_until = before + self._last_s * 2 / 3

    def _write(self, holder: Holder) -> None:
        objects.write(self._store / _FOLDER / f"{self._number:08d}{_BEAT}", json.dumps(asdict(holder)).encode())


def take(store: Location, wait_s: float | None = None) -> Lease:
    """The lease of a store, as soon as nobody else has it.

    Args:
        wait_s: how long to wait for another holder. Default: WAIT_S.

    Raises:
        UserError: another process has it; the message says who and until when.
    """
    patience = _clock() + (WAIT_S if wait_s is None else wait_s)
    while True:
        number, other = _newest(store)
        if other is None or not other.alive(time.time()):
            mine = _holder()
            # The look may be old: what was claimed since and forgotten again could be claimed a second time.
            if _claim(store, number + 1, mine) and _highest(store) == number + 1:
                _forget(store, number)
                return Lease(store, number + 1, mine)
        elif _clock() > patience:
            raise UserError(
                f"store {store}",
                f"another process is writing to it: {other.who}, since {_shown(other.since)}; its lease ends at "
                f"{_shown(other.until + _MARGIN_S)} unless renewed",
                "wait until that command ends; if it was killed, until then",
            )
        time.sleep(secrets.SystemRandom().uniform(0.05, 0.3))


def _highest(store: Location) -> int:
    """The highest number that was claimed; 0 when there was none."""
    return max((int(path[:8]) for path in objects.names(store / _FOLDER) if f"{_TABLE}/_versions/" in path), default=0)


def _newest(store: Location) -> tuple[int, Holder | None]:
    """The highest number that was claimed, and its holder; None when there was none, or it is gone by now."""
    number = _highest(store)
    if not number:
        return 0, None
    beat = objects.read(store / _FOLDER / f"{number:08d}{_BEAT}")
    if beat is not None:
        return number, Holder(**json.loads(beat))
    return number, _claimant(store / _FOLDER / f"{number:08d}{_TABLE}")


def _claim(store: Location, number: int, holder: Holder) -> bool:
    """Whether this holder, and no other, has created the table of a number."""
    table = store / _FOLDER / f"{number:08d}{_TABLE}"
    row = pa.table({"holder": [json.dumps(asdict(holder))]})
    with objects.reaching(table):
        try:
            lance.write_dataset(row, table.uri, mode="create", storage_options=table.storage)
        except OSError as error:
            if "already exists" not in str(error) and "onflict" not in str(error):
                raise
    found = _claimant(table)
    return found is not None and found.id == holder.id


def _claimant(table: Location) -> Holder | None:
    """Whose table it is; None when the next holder has removed it meanwhile."""
    with objects.reaching(table):
        try:
            first = lance.dataset(table.uri, version=1, storage_options=table.storage).to_table()
        except (OSError, ValueError) as error:
            if "not found" not in str(error).lower():
                raise
            return None
    return Holder(**json.loads(first["holder"][0].as_py()))


def _forget(store: Location, number: int) -> None:
    """Remove what is left of the leases up to a number: the highest one alone counts."""
    folder = store / _FOLDER
    for path in objects.names(folder):
        if int(path[:8]) <= number:
            objects.remove(folder / path)


def _holder() -> Holder:
    now, pid = time.time(), os.getpid()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    who = f"{user}@{socket.gethostname()}, process {pid}"
    return Holder(uuid.uuid4().hex, who, _machine(), pid, _start_of(pid), now, now + LEASE_S)


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_of(pid: int) -> str:
    """When a process of this machine began, in ticks since the boot; "" when there is no such process or it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _clock() -> float:
    """Seconds that go on while the machine sleeps, and are not set by anybody."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
