"""Actors of a Ray cluster for a stage: the contract of `pipeline.workers.execute`, on as many machines as Ray has.

Ray places the actors, carries stages, batches and outcomes, and tells when an actor is gone. Whatever decides about
rows stays here and in the runner: who gets which batch, what is tried again, and what is committed.
"""

import logging
import math
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.stage import Failure, Item, Key, Outcome, Stage
from pipeline.workers import Engine, attempt, raise_told

_PACKAGES = ("cli", "pipeline", "toyworld", "trainer")  # whose code must be the same on all nodes
_ADDRESS = re.compile(r"([^:/\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
_CHECK = "ray status --address HOST:PORT, or leave --address out to use this machine alone"
_KNOCK_S = 5.0  # in which a cluster must answer; Ray itself would try for minutes
_BARREN = 3  # actors in a row that may die before their first item
_LIVES = 2.0  # deaths of workers, after which an item counts as their cause
_LOST_NODE = 0.25  # of such a death, when the whole node went: rarely an item's doing
_PATIENCE_S = 30.0  # without one actor that is ready, before somebody is told
_LONGEST_LINE = 200  # characters of an error of Ray's
_LONGEST_TMP = 40  # characters; Ray's sockets lie 60 below, and the path of a socket has 107 at most

# Of a cluster of our own: it listens on this machine only, its token stays in memory, nobody is told of its use.
_PRIVATE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


class RayEngine:
    """Computes the stages of a command on Ray. For a `with` statement, which gets `execute` and lets the cluster go.

    Nothing is started or connected to before there is a batch. Until the end, what Ray prints goes to stderr.

    Args:
        address: auto or host:port of a running cluster. None: one of our own, on this machine, which ends with us.
        gpus: share of a GPU that each actor gets when it computes on one: a part of 1, or whole ones. None: 1.
        say: gets a line when there is no room for even one actor.

    Raises:
        UserError: Ray is not installed, or an argument is out of its range.
    """

    def __init__(
        self, address: str | None = None, gpus: float | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        if find_spec("ray") is None:
            raise UserError("--engine ray", "Ray is not installed", "pip install 'strive-video[ray]'")
        if address is not None and address != "auto" and not _ADDRESS.fullmatch(address):
            raise UserError(f"--address {address}", "auto or host:port", "--address auto, on a node of the cluster")
        if gpus is not None and not (0 < gpus < 1 or (gpus >= 1 and gpus == int(gpus))):
            raise UserError(f"--gpus-per-worker {gpus:g}", "a part of 1, or a whole number", "try 0.5, or --device cpu")
        self._address, self._gpus, self._say = address, gpus, say
        self._ray: Any = None
        self._ends = ExitStack()

    def __enter__(self) -> Engine:
        return self.execute

    def __exit__(self, *_: object) -> None:
        self._ray = None
        self._ends.close()

    def execute(
        self, stage: Stage, store_path: str, batches: Sequence[Sequence[Item]], workers: int, device: str
    ) -> Iterator[tuple[list[Item], Outcome]]:
        """Process batches in actors, each of which has one at a time; yield each with its outcome as it ends.

        A batch whose actor hangs or dies is tried again item by item, by another. An item that hangs alone comes back
        as a failure ("deadline"), and so does one at which a second worker dies ("worker died").

        Args:
            workers: actors; those that Ray finds no room for yet join in when it does. 0: as many as have room now.
            device: cpu, cuda, or auto: cuda where the cluster has GPUs.

        Raises:
            UserError: there is no cluster, other code on a node, or as raised by the stage's setup.
            RuntimeError: the stage raised anything else: a fault of the program, not of an item.
        """
        queue = deque(list(batch) for batch in batches)
        if not queue:
            return
        self._connect(workers)
        where, share = self._share(device)
        hire = _Hire(self._ray, stage, store_path, where, share)
        crew = [hire() for _ in range(min(workers or self._room(share), len(queue)))]
        deaths: Counter[Key] = Counter()
        barren = 0
        told = time.monotonic() + _PATIENCE_S
        try:
            while queue or any(actor.batch for actor in crew):
                for actor in crew:
                    if actor.ready and not actor.batch and queue:
                        actor.give(queue.popleft())
                heard = _wait(self._ray, crew, told)
                if heard is None:
                    if time.monotonic() < told:
                        continue
                    self._say(f"{stage.name} waits until Ray has room for {hire.wants}; in all it has {self._has()}")
                    told = math.inf
                    continue
                try:
                    answer = heard.receive(queue)
                except _GoneError as gone:
                    barren += not heard.ready
                    if barren > _BARREN:
                        raise RuntimeError(
                            f"workers of {stage.name} die before their first item ({gone.how})"
                        ) from gone
                    crew[crew.index(heard)] = hire()
                    batch = heard.batch
                    for item in batch:
                        deaths[item.key] += gone.weight
                    last = len(batch) == 1 and (gone.reason == "deadline" or deaths[batch[0].key] >= _LIVES)
                    if last:
                        failure = Failure(batch[0].key, batch[0].fingerprint, gone.reason, gone.how)
                        yield batch, Outcome(None, [failure])
                    else:
                        queue.extendleft([item] for item in reversed(batch))
                else:
                    barren *= not heard.ready
                    told = math.inf
                    if answer is not None:
                        yield answer
        finally:
            for actor in crew:
                actor.end()

    def _connect(self, workers: int) -> None:
        if self._ray is not None:
            return
        with ExitStack() as ends:
            ends.enter_context(redirect_stdout(sys.stderr))
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self._address is None:
                ends.enter_context(_environment(_PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}))
                folder = ends.enter_context(_folder())
                options |= {"num_cpus": workers or os.cpu_count(), "include_dashboard": False, "_temp_dir": folder}
            elif self._address != "auto":
                _knock(self._address)
            import ray

            ends.callback(ray.shutdown)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "lance is not fork-safe")  # whatever is forked here execs at once
                    ray.init(address=self._address or "local", **options)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                if self._address is None:
                    raise
                raise UserError(f"--address {self._address}", _line(str(error)), _CHECK) from error
            ray._private.worker._worker_logs_enabled = False  # who died is told by the run's own report
            self._ends, self._ray = ends.pop_all(), ray

    def _share(self, device: str) -> tuple[str, float]:
        """The device that actors compute on, and their share of a GPU."""
        there = self._ray.cluster_resources().get("GPU", 0)
        if device == "cpu" or (device == "auto" and not there and self._gpus is None):
            return "cpu", 0.0
        share = self._gpus or 1.0
        if self._address is None and share > there:
            raise UserError(f"{share:g} GPUs a worker", f"Ray finds {there:g} on this machine", "try --device cpu")
        return "cuda", share

    def _room(self, share: float) -> int:
        """Actors that fit into the cluster as it is, were it empty."""
        there = self._ray.cluster_resources()
        cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
        return max(1, int(min(cpus, gpus / share) if share else cpus))

    def _has(self) -> str:
        there = self._ray.cluster_resources()
        return ", ".join(f"{there.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


class _GoneError(Exception):
    """An actor hangs or is dead. `weight`: how much of a death its items are to blame for."""

    def __init__(self, reason: str, how: str, weight: float) -> None:
        super().__init__(how)
        self.reason, self.how, self.weight = reason, how, weight


class _Remote:
    """The side of an actor that lives on the cluster."""

    def setup(self, stage: Stage, store_path: str, device: str, folder: str) -> tuple[str, Any]:
        """Get ready. Told: node and code of this process."""
        import ray

        # Paths that were typed are relative to the folder of the command. Where that is not, they shall not be found.
        os.chdir(folder if os.path.isdir(folder) else "/")
        self._stage = stage
        kind, value = attempt(stage.setup, store_path, device)
        context = ray.get_runtime_context()
        return kind, (context.get_node_id(), _code()) if kind == "done" else value

    def process(self, batch: Sequence[Item]) -> tuple[tuple[str, Any], Any]:
        """What the stage did, and apart from it, because it may be large, its outcome."""
        kind, value = attempt(self._stage.process, batch)
        return ((kind, None), value) if kind == "done" else ((kind, value), None)


class _Hire:
    """Makes actors of a stage."""

    def __init__(self, ray: Any, stage: Stage, store_path: str, device: str, share: float) -> None:
        self.ray, self.deadline_s = ray, stage.deadline_s
        self.wants = "1 CPU" + (f", {share:g} GPU" if share else "")
        self.code = _code()
        self._make = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0, max_task_retries=0)(_Remote)
        self._arguments = (ray.put(stage), store_path, device, os.getcwd())

    def __call__(self) -> "_Actor":
        handle = self._make.remote()
        return _Actor(self, handle, handle.setup.remote(*self._arguments))


class _Actor:
    """The driver's side of an actor."""

    def __init__(self, hire: _Hire, handle: Any, setup: Any) -> None:
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
            _GoneError: it hangs or is dead.
        """
        ray = self.hire.ray
        if not ray.wait([self.word], timeout=0, fetch_local=False)[0]:
            self.end()
            raise _GoneError("deadline", f"not done in {self.hire.deadline_s} s", 1.0)
        try:
            kind, value = ray.get(self.word)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in a worker:\n{error}") from error
        except ray.exceptions.RayError as error:
            self.end()
            raise self._gone(error) from error
        raise_told(kind, value)
        if not self.ready:
            self.node, code = value
            if code != self.hire.code:
                raise UserError(
                    f"node {self.node}", "its strive-video is not the one that runs here", "install the same"
                )
            self.ready = True
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

    def _gone(self, error: Exception) -> _GoneError:
        ray = self.hire.ray
        alive = any(node["NodeID"] == self.node and node["Alive"] for node in ray.nodes())
        lost = isinstance(error, ray.exceptions.ActorUnavailableError) or not alive
        return _GoneError("worker died", f"its process died ({_line(str(error))})", _LOST_NODE if lost else 1.0)


def _wait(ray: Any, crew: Sequence[_Actor], told: float) -> _Actor | None:
    """The actor that has said something or is beyond its deadline; the one that began first of several. None: no actor
    was ready by the moment `told`."""
    busy = sorted((actor for actor in crew if actor.batch or not actor.ready), key=lambda actor: actor.since)
    limits = [actor.expires for actor in busy if actor.expires is not None]
    if told < math.inf:
        limits.append(told)
    patience = max(0.0, min(limits) - time.monotonic()) if limits else None
    heard, _ = ray.wait([actor.word for actor in busy], timeout=patience, fetch_local=False)
    now = time.monotonic()
    late = (actor for actor in busy if actor.expires is not None and actor.expires <= now)
    return next((actor for actor in busy if actor.word in heard), None) or next(late, None)


def _code() -> str:
    """Fingerprint of the program's files, as they are on this node."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py"))
    return fingerprint([(str(file.relative_to(root)), file.read_text(encoding="utf-8")) for file in files])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables set, for Ray's own processes."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _knock(address: str) -> None:
    """Raises UserError: nobody listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}", f"nobody answers there ({error})", _CHECK) from error


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for Ray's logs and sockets, gone at the end."""
    place = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="strive-ray-", dir=place if len(place) <= _LONGEST_TMP else "/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _line(text: str) -> str:
    """What matters of an error of Ray's, in one line."""
    text = text.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return " ".join(text.split())[:_LONGEST_LINE]
