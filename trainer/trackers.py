"""Trackers (TensorBoard, trackio, wandb and their like) through accelerate: what they do never stops a run.

Each works in a thread of its own behind a bounded queue, so that neither an error nor a server that does not answer
costs the run anything. metrics.jsonl has every step, whatever a tracker has.
"""

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from pipeline.errors import UserError

PROJECT = "strive-video"  # under which trackers with a server file the runs
WAITING = 1000  # rows that may wait for a slow tracker
PATIENCE = 10.0  # seconds that the end of a run waits for each tracker

_END = object()


def names() -> tuple[str, ...]:
    """Trackers that accelerate knows, by name."""
    return tuple(sorted(str(name) for name in LOGGER_TYPE_TO_CLASS))


def check_trackers(wanted: Sequence[str]) -> None:
    """Raises UserError when accelerate knows no tracker of such a name; one that is not installed is no mistake."""
    for name in wanted:
        if name not in names():
            raise UserError(
                f"trackers {name!r}",
                f"expected some of {', '.join(names())}",
                "--set 'trackers=[\"tensorboard\"]', or leave it out: metrics.jsonl is always written",
            )


class Trackers:
    """The trackers of one run."""

    def __init__(
        self,
        wanted: Sequence[str | GeneralTracker],
        out: Path,
        settings: Mapping[str, Any],
        *,
        say: Callable[[str], None] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Start them. To be called after the run's Accelerator is made. Until `close`, stdout goes to stderr.

        Args:
            wanted: names, or trackers made by oneself, as for `Accelerator(log_with=...)`.
            out: the run's folder: its name is the run's, and TensorBoard writes into it.
            settings: of the run, stored with it where the tracker can.
            say: gets the one line that tells of a tracker that was dropped. Default: it goes to stderr.
            patience: seconds that `close` waits for each.
        """
        self._say = say or _on_stderr
        self._patience = patience
        self._stdout = contextlib.ExitStack()
        if wanted:  # trackers greet their users on stdout, where a program may be waiting for JSON
            self._stdout.enter_context(contextlib.redirect_stdout(sys.stderr))
        self._working = [_Worker(tracker, out, flat(settings, texts=True), self._drop) for tracker in wanted]

    def log(self, row: Mapping[str, Any]) -> None:
        """Pass a row of metrics on: its numbers, nested ones as `seconds/rollout`; returns at once."""
        values = {name: value for name, value in flat(row).items() if name != "step"}
        for worker in self._working:
            worker.put(int(row["step"]), values)

    def close(self) -> None:
        """Let each write what it was given, for as long as the patience lasts."""
        for worker in self._working:
            worker.end()
        for worker in self._working:
            worker.join(self._patience)
        self._stdout.close()

    def _drop(self, name: str, why: str) -> None:
        self._say(f"tracker {name} dropped: {why}. The run goes on; metrics.jsonl has every step.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """One tracker and its thread. What it raises, it is dropped for, once."""

    def __init__(
        self,
        tracker: str | GeneralTracker,
        out: Path,
        settings: Mapping[str, Any],
        drop: Callable[[str, str], None],
    ) -> None:
        self._tracker, self._out, self._settings, self._drop = tracker, out, dict(settings), drop
        self.name = tracker if isinstance(tracker, str) else str(tracker.name)
        self._rows: queue.Queue[Any] = queue.Queue(WAITING)
        self._dropped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"tracker {self.name}", daemon=True)
        self._thread.start()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """A row to log; the tracker is dropped when too many wait."""
        if self._dropped.is_set():
            return
        try:
            self._rows.put_nowait((step, values))
        except queue.Full:
            self._fail(f"it is {WAITING} steps behind")

    def end(self) -> None:
        """No more rows will come."""
        # A full queue means that the tracker is stuck: nobody waits for its end, `join` says so.
        with contextlib.suppress(queue.Full):
            self._rows.put_nowait(_END)

    def join(self, patience: float) -> None:
        """Wait for the end of its work, at most `patience` seconds."""
        if self._dropped.is_set():
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            self._fail(f"it did not finish within {patience:g} s")

    def _fail(self, why: str) -> None:
        with self._lock:
            if self._dropped.is_set():
                return
            self._dropped.set()
        self._drop(self.name, why)

    def _work(self) -> None:
        # Whatever a foreign library raises, sys.exit() too, ends with its being dropped.
        try:
            tracker = _made(self._tracker, self._out)
            tracker.start()
            tracker.store_init_configuration(self._settings)
            while (item := self._rows.get()) is not _END:
                if self._dropped.is_set():
                    break
                step, values = item
                tracker.log(values, step=step)
            tracker.finish()
        except (Exception, SystemExit) as error:
            self._fail(f"{type(error).__name__}: {error}".strip().rstrip(":."))


def _made(tracker: str | GeneralTracker, out: Path) -> Any:
    """The tracker itself, by its name in accelerate."""
    if not isinstance(tracker, str):
        return tracker
    kind: Any = LOGGER_TYPE_TO_CLASS[tracker]
    if kind.requires_logging_directory:
        return kind(tracker, out)  # writes into out/<its name>
    return kind(PROJECT, **({"name": out.name} if tracker in ("trackio", "wandb") else {}))


def flat(values: Mapping[str, Any], prefix: str = "", *, texts: bool = False) -> dict[str, Any]:
    """The finite numbers of a nested mapping, by their path: {"seconds": {"rollout": 2.0}} -> {"seconds/rollout": 2.0}.

    Args:
        texts: keep all else as text, too: None is "none", a list its Python form.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/", texts=texts)
        elif isinstance(value, bool):
            found[prefix + name] = value if texts else int(value)
        elif isinstance(value, int | float) and abs(value) < float("inf"):
            found[prefix + name] = value
        elif texts:
            found[prefix + name] = "none" if value is None else str(value)
    return found


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr)
