"""Actors that compute a stage: the side that lives on the cluster, and the driver's side that gives and receives."""

import math
import os
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.cluster.connection import one_line
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.stage import Item, Outcome, Stage
from pipeline.store.location import Location
from pipeline.workers import attempt, raise_told

_PACKAGES = ("cli", "pipeline", "toyworld", "trainer")  # whose code must be the same on all nodes
_SHARED_S = 70.0  # in which a new file is to be seen on all nodes; NFS may keep for a minute that there was none
_LOST_NODE = 0.25  # of a death, when the whole node went: rarely a batch's doing


class GoneError(Exception):
    """An actor hangs or is dead. `weight`: how much of a death its batch is to blame for."""

    def __init__(self, reason: str, how: str, weight: float) -> None:
        super().__init__(how)
        self.reason, self.how, self.weight = reason, how, weight


class _Remote:
    """The side of an actor that lives on the cluster."""

    def setup(self, stage: Stage, store: Location, device: str, folder: str, code: str, mark: str) -> tuple[str, Any]:
        """Get ready, in the folder of the command, with the code and the store that it has. Told: the node."""
        return attempt(self._prepare, stage, store, device, folder, code, mark)

    def _prepare(self, stage: Stage, store: Location, device: str, folder: str, code: str, mark: str) -> str:
        import ray

        here = f"node {ray.util.get_node_ip_address()}"
        if code_print() != code:
            raise UserError(here, "its strive-video is not the one of the command", "install the same on all nodes")
        if mark and not seen(mark):
            raise UserError(
                here, f"does not see the store {store}", "put it where all nodes reach it by one path or URI"
            )
        # Paths that were typed are relative to the folder of the command. Where that is not, they shall not be found.
        os.chdir(folder if os.path.isdir(folder) else "/")
        self._stage = stage
        stage.setup(store, device)
        return str(ray.get_runtime_context().get_node_id())

    def process(self, batch: Sequence[Item]) -> tuple[tuple[str, Any], Any]:
        """What the stage did, and apart from it, because it may be large, its outcome."""
        kind, value = attempt(self._stage.process, batch)
        return ((kind, None), value) if kind == "done" else ((kind, value), None)


class Hire:
    """Makes actors of a stage."""

    def __init__(self, ray: Any, stage: Stage, store: Location, device: str, share: float, mark: str) -> None:
        self.ray, self.deadline_s = ray, stage.deadline_s
        self.wants = "1 CPU" + (f", {share:g} GPU" if share else "")
        self._make = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0, max_task_retries=0)(_Remote)
        self._arguments = (ray.put(stage), store, device, os.getcwd(), code_print(), mark)

    def __call__(self) -> "Actor":
        handle = self._make.remote()
        return Actor(self, handle, handle.setup.remote(*self._arguments))


class Actor:
    """The driver's side of an actor."""

    def __init__(self, hire: Hire, handle: Any, setup: Any) -> None:
        self.hire, self.handle = hire, handle
        self.word, self.outcome = setup, None  # what it will say, and what it will have made
        self.ready = False
        self.node = ""
        self.batch: list[Item] = []
        self.since = time.monotonic()
        self.expires: float | None = None

    def give(self, batch: list[Item]) -> None:
        self.batch, self.since = batch, time.monotonic()
        self.expires = None if self.hire.deadline_s is None else self.since + self.hire.deadline_s * len(batch)
        self.word, self.outcome = self.handle.process.options(num_returns=2).remote(batch)

    def receive(self, queue: deque[list[Item]]) -> tuple[list[Item], Outcome] | None:
        """What it said: its batch with the outcome, or that it is ready (None). The next batch of the queue is given to
        it before the outcome is brought here.

        Raises:
            GoneError: it hangs or is dead.
        """
        ray = self.hire.ray
        if not ray.wait([self.word], timeout=0, fetch_local=False)[0]:
            self.end()
            raise GoneError("deadline", f"not done in {self.hire.deadline_s} s", 1.0)
        try:
            kind, value = ray.get(self.word)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in a worker:\n{error}") from error
        except ray.exceptions.RayError as error:
            self.end()
            raise self._gone(error) from error
        raise_told(kind, value)
        if not self.ready:
            self.ready, self.node = True, value
            return None
        batch, outcome, self.batch = self.batch, self.outcome, []
        self.expires, self.outcome = None, None
        if queue:
            self.give(queue.popleft())
        try:
            return batch, ray.get(outcome)
        except ray.exceptions.RayError:  # its node was lost between the word and the outcome
            queue.appendleft(batch)
            return None

    def end(self) -> None:
        """Kill it, whatever it does."""
        if self.hire.ray.is_initialized():
            self.hire.ray.kill(self.handle)

    def _gone(self, error: Exception) -> GoneError:
        ray = self.hire.ray
        alive = any(node["NodeID"] == self.node and node["Alive"] for node in ray.nodes())
        lost = isinstance(error, ray.exceptions.ActorUnavailableError) or not alive
        return GoneError("worker died", f"its process died ({one_line(error)})", _LOST_NODE if lost else 1.0)


def wait(ray: Any, crew: Sequence[Actor], until: float) -> Actor | None:
    """The actor that has said something or is beyond its deadline; the one that began first of several. None: no actor
    was ready by the moment `until`."""
    busy = sorted((actor for actor in crew if actor.batch or not actor.ready), key=lambda actor: actor.since)
    limits = [actor.expires for actor in busy if actor.expires is not None]
    if until < math.inf:
        limits.append(until)
    patience = max(0.0, min(limits) - time.monotonic()) if limits else None
    heard, _ = ray.wait([actor.word for actor in busy], timeout=patience, fetch_local=False)
    now = time.monotonic()
    late = (actor for actor in busy if actor.expires is not None and actor.expires <= now)
    return next((actor for actor in busy if actor.word in heard), None) or next(late, None)


@contextmanager
def marked(store: Location) -> Iterator[str]:
    """A file in the folder of the store, for as long as a stage runs: who sees it, sees this store, and not another one
    under the same path. An object store needs none."""
    if not store.local:
        yield ""
        return
    mark = store.path / f".one-store-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)


def seen(mark: str, patience_s: float = _SHARED_S) -> bool:
    """Whether the mark is here, or comes in time: a shared disk may show a new file late."""
    limit = time.monotonic() + patience_s
    while not os.path.exists(mark):
        if time.monotonic() > limit:
            return False
        time.sleep(0.5)
    return True


def code_print() -> str:
    """Fingerprint of the program's files, as they are on this node."""
    root = Path(__file__).resolve().parent.parent.parent
    files = sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py"))
    return fingerprint([(str(file.relative_to(root)), file.read_text(encoding="utf-8")) for file in files])
