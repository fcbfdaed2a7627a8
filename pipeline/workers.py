"""Spawned worker processes for a stage: one pipe each, a deadline an item, and replacement of those that hang or die.

Lance and fork do not mix, and a decoder that hangs can only be killed with its process: hence processes, spawned.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Failure, Item, Key, Outcome, Stage
from pipeline.store.location import Location

_CONTEXT = multiprocessing.get_context("spawn")
_BARREN = 3  # workers in a row that may die before their first item: one may be killed from outside, not all of them

Engine = Callable[[Stage, Location, Sequence[Sequence[Item]], int, str], Iterator[tuple[list[Item], Outcome]]]
"""Who computes a stage, with the signature of `execute`."""


def execute(
    stage: Stage, store: Location, batches: Sequence[Sequence[Item]], workers: int, device: str
) -> Iterator[tuple[list[Item], Outcome]]:
    """Process batches in `workers` processes; yield each with its outcome, in the order in which they end.

    A worker that exceeds the deadline or dies is replaced. Its batch is tried again item by item. An item that hangs
    alone comes back as a failure ("deadline"), and so does one at which a second worker dies ("worker died"): the
    first may have been killed for somebody else's memory.

    Raises:
        UserError: as raised by the stage's setup in a worker.
        RuntimeError: the stage raised anything else, or its workers die before their first item: a fault of the
            program, not of an item.
    """
    barren = 0
    queue = deque(list(batch) for batch in batches)
    crew = [_Worker(stage, store, device) for _ in range(min(workers, len(queue)))]
    suspects: set[Key] = set()  # at which a worker has died
    try:
        while queue or any(worker.batch for worker in crew):
            active = [worker for worker in crew if worker.batch or not worker.ready]
            limits = [worker.expires for worker in active if worker.expires is not None]
            patience = max(0.0, min(limits) - time.monotonic()) if limits else None
            heard = wait([worker.pipe for worker in active], patience)
            for place, worker in enumerate(crew):
                reason = ""
                if worker.pipe in heard:
                    try:
                        answer = worker.receive()
                    except (EOFError, ConnectionError):
                        reason = "worker died"
                    else:
                        if queue:  # before the answer is dealt with: the worker goes on meanwhile
                            worker.give(queue.popleft(), stage.deadline_s)
                        if answer is not None:
                            barren = 0
                            yield answer
                elif worker.expires is not None and worker.expires <= time.monotonic() and not worker.pipe.poll():
                    reason = "deadline"
                if not reason:
                    continue
                batch, how = worker.batch, worker.end(patience_s=5.0 if reason == "worker died" else 0.0)
                barren += not batch
                if barren > _BARREN:
                    raise RuntimeError(f"workers of {stage.name} die before their first item ({how})")
                crew[place] = _Worker(stage, store, device)
                if not batch or len(batch) > 1 or (reason == "worker died" and batch[0].key not in suspects):
                    suspects.update(item.key for item in batch)
                    queue.extendleft([item] for item in reversed(batch))
                    continue
                message = f"its process died ({how})" if reason != "deadline" else f"not done in {stage.deadline_s} s"
                yield batch, Outcome(None, [Failure(batch[0].key, batch[0].fingerprint, reason, message)])
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """The parent's side of one process."""

    def __init__(self, stage: Stage, store: Location, device: str) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process: SpawnProcess = _CONTEXT.Process(
            target=_serve, args=(theirs, stage, store, device), name=f"worker of {stage.name}", daemon=True
        )
        self.process.start()
        theirs.close()  # or its end would stay open here and a death would not be heard
        self.ready = False
        self.batch: list[Item] = []
        self.expires: float | None = None

    def give(self, batch: list[Item], deadline_s: float | None) -> None:
        self.batch = batch
        self.expires = None if deadline_s is None else time.monotonic() + deadline_s * len(batch)
        try:
            self.pipe.send(batch)
        except ConnectionError:  # it died idle: the pipe says so when it is next read
            return

    def receive(self) -> tuple[list[Item], Outcome] | None:
        """One message: readiness (None) or the outcome of the batch."""
        kind, value = self.pipe.recv()
        raise_told(kind, value)
        if kind == "ready":
            self.ready = True
            return None
        batch, self.batch, self.expires = self.batch, [], None
        return batch, value

    def end(self, patience_s: float = 0.0) -> str:
        """Kill the process, unless it ends by itself in time; say how it ended."""
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(pipe: Connection, stage: Stage, store: Location, device: str) -> None:
    """The worker's life: set up, then batch after batch until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        kind, value = attempt(stage.setup, store, device)
        pipe.send(("ready" if kind == "done" else kind, value))
        while kind == "done":
            batch = pipe.recv()
            kind, value = attempt(stage.process, batch)
            pipe.send((kind, value))
    except (EOFError, ConnectionError):
        return
    except Exception:  # the outcome cannot be pickled
        pipe.send(("error", traceback.format_exc()))


def attempt(work: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Call something in a worker: ("done", result), ("user error", the three parts of one) or ("error", traceback)."""
    try:
        return "done", work(*arguments)
    except UserError as error:
        return "user error", (error.value, error.expectation, error.next_command)
    except Exception:
        return "error", traceback.format_exc()


def raise_told(kind: str, value: Any) -> None:
    """Raise here what `attempt` caught in a worker.

    Raises:
        UserError: as the stage raised it.
        RuntimeError: with the traceback of anything else.
    """
    if kind == "user error":
        raise UserError(*value)
    if kind == "error":
        raise RuntimeError(f"in a worker:\n{value}")


def _die_with_parent() -> None:
    """End this process when its parent is killed, even while a decoder hangs in the main thread."""
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(1)
