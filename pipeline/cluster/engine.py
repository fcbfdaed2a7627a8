"""Actors of a Ray cluster for a stage: the contract of `pipeline.workers.execute`, on as many machines as Ray has.

Ray places the actors, carries stages, batches and outcomes, and tells when an actor is gone. Whatever decides about
rows stays here and in the runner: who gets which batch, what is tried again, and what is committed.
"""

import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from pipeline.cluster.actors import GoneError, Hire, marked, wait
from pipeline.cluster.connection import check_address, connected
from pipeline.errors import UserError
from pipeline.stage import Failure, Item, Key, Outcome, Stage
from pipeline.store.location import Location
from pipeline.workers import Engine

_BARREN = 3  # actors in a row that may die before their first item
_LIVES = (
    2.0  # deaths of workers, after which a batch counts as their cause: the first may have been killed from outside
)
_PATIENCE_S = 30.0  # without one actor that is ready, before somebody is told


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
        check_address(address)
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
        self, stage: Stage, store: Location, batches: Sequence[Sequence[Item]], workers: int, device: str
    ) -> Iterator[tuple[list[Item], Outcome]]:
        """Process batches in actors, each of which has one at a time; yield each with its outcome as it ends.

        A batch whose actor dies is done again by another, and item by item when that one dies too, or when it hangs. An
        item that hangs alone comes back as a failure ("deadline"), and so does one that is alone when two workers die,
        one after the other ("worker died").

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
        if self._ray is None:
            self._ray = self._ends.enter_context(connected(self._address, workers or os.cpu_count() or 1))
        where, share = self._share(device)
        with marked(store) if self._address else nullcontext("") as mark:
            hire = Hire(self._ray, stage, store, where, share, mark)
            yield from self._worked(stage, queue, hire, min(workers or self._room(share), len(queue)))

    def _worked(
        self, stage: Stage, queue: deque[list[Item]], hire: Hire, workers: int
    ) -> Iterator[tuple[list[Item], Outcome]]:
        crew = [hire() for _ in range(workers)]
        deaths: defaultdict[tuple[Key, ...], float] = defaultdict(float)
        barren = 0
        patience_ends = time.monotonic() + _PATIENCE_S
        try:
            while queue or any(actor.batch for actor in crew):
                for actor in crew:
                    if actor.ready and not actor.batch and queue:
                        actor.give(queue.popleft())
                heard = wait(self._ray, crew, patience_ends)
                if heard is None:
                    if time.monotonic() < patience_ends:
                        continue
                    self._say(f"{stage.name} waits until Ray has room for {hire.wants}; in all it has {self._has()}")
                    patience_ends = math.inf
                    continue
                try:
                    answer = heard.receive(queue)
                except GoneError as gone:
                    barren += not heard.ready
                    if barren > _BARREN:
                        raise RuntimeError(
                            f"workers of {stage.name} die before their first item ({gone.how})"
                        ) from gone
                    crew[crew.index(heard)] = hire()
                    batch = heard.batch
                    keys = tuple(item.key for item in batch)
                    deaths[keys] += gone.weight
                    if batch and gone.reason == "worker died" and deaths[keys] < _LIVES:
                        queue.appendleft(batch)
                    elif len(batch) == 1:
                        failure = Failure(batch[0].key, batch[0].fingerprint, gone.reason, gone.how)
                        yield batch, Outcome(None, [failure])
                    else:
                        queue.extendleft([item] for item in reversed(batch))
                else:
                    barren *= not heard.ready
                    patience_ends = math.inf
                    if answer is not None:
                        yield answer
        finally:
            for actor in crew:
                actor.end()

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
