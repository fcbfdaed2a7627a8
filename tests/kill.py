"""kill -9 of a real command at random moments: what must hold after each of them is checked by the caller."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 120.0
ORPHANS_S = 30.0  # workers of a killed command must be gone by then


def kill_at_random_moments(
    command: Sequence[str | Path],
    store: Path,
    *,
    reset: Callable[[], None],
    check: Callable[[], None],
    moments: int = 10,
    seed: int = 0,
) -> int:
    """Run a command to its end once, then kill it at random moments of its work, then run it to its end again.

    Killed runs follow each other without a reset, each going on from where the last was killed, until one ends by
    itself; then everything starts anew. So starting, going on and ending are all hit. Moments are drawn from the time
    between the first change in the store and the end, as measured on the first run and on every run that ends, because
    a busy machine becomes slower and faster.

    Args:
        command: it must end with exit code 0, also when nothing is left to do.
        store: folder that the command writes to.
        reset: brings the store back to before the command.
        check: called after every kill and at the end; asserts what must always hold (it opens, no row is doubled).
        moments: kills wanted; twice as many runs are tried at most.

    Returns:
        how many runs were killed before their end.
    """
    chance = random.Random(seed)
    words = [str(word) for word in command]
    reset()
    first_write, length = _timed(words, store)
    check()
    reset()
    killed = runs = 0
    fresh = True
    while killed < moments and runs < 2 * moments:
        runs += 1
        ended = _ended_within(words, first_write + chance.random() * (length - first_write))
        if ended is None:
            killed += 1
            fresh = False
        else:
            if fresh:
                first_write, length = first_write * ended / length, ended
            reset()
            fresh = True
        check()
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    check()
    return killed


def _timed(words: Sequence[str], store: Path) -> tuple[float, float]:
    """Seconds from the start of a run to its first change in the store, and to its end."""
    before = _state(store)
    begun = time.monotonic()
    with _started(words) as process:
        first_write: float | None = None
        while process.poll() is None:
            if first_write is None and _state(store) != before:
                first_write = time.monotonic() - begun
            assert time.monotonic() - begun < PATIENCE_S, "the command does not end"
            time.sleep(0.005)
        length = time.monotonic() - begun
        assert process.returncode == 0, process.stderr and process.stderr.read()
    return first_write or 0.0, length


@contextmanager
def _started(words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A running command in a session of its own; killed at the end if it still runs."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _state(store: Path) -> list[str]:
    return [str(path) for path in sorted(store.rglob("*")) if path.name != "store.json"]


def _ended_within(words: Sequence[str], seconds: float) -> float | None:
    """Start a command and kill -9 it, and it alone, after some time: None; or the seconds in which it ended."""
    with _started(words) as process:
        begun = time.monotonic()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            _await_orphans(process.pid)
            return None
        assert code == 0, process.stderr and process.stderr.read()
        return time.monotonic() - begun


def _await_orphans(session: int) -> None:
    """Wait until the processes that a killed command had started are gone: they notice it themselves."""
    limit = time.monotonic() + ORPHANS_S
    while left := _alive(session):
        assert time.monotonic() < limit, f"processes {left} outlive the command that started them"
        time.sleep(0.02)


def _alive(session: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it ended while we looked
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(entry.name))
    return found
