"""The live line of a run: on a terminal one line that is rewritten at each step, elsewhere a line now and then."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TextIO

EVERY = 10  # steps between lines where the line cannot be rewritten

_CLEAR = "\r\x1b[K"
_PHASES = ("stream", "rollout", "update")
_WIDTH = 80  # columns of a terminal that does not tell


class LiveLine:
    """Shows the rows of metrics.jsonl as they come.

    On a terminal the line has the figures of the newest step. Elsewhere, in a log file, a line comes every `every`
    steps, and at the last step, with the means over the steps since the line before. A stream that can no longer be
    written, such as a pipe whose reader has gone, ends the showing and not the run.
    """

    def __init__(
        self,
        steps: int,
        *,
        shown: bool = True,
        every: int = EVERY,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`steps`: of the whole run. `shown`: False shows nothing, as beside the main process. Default: on stderr."""
        self._stream = sys.stderr if stream is None else stream
        self._steps, self._every, self._clock = steps, every, clock
        self._shown, self._rewrites = shown, shown and self._stream.isatty()
        self._begun, self._count = clock(), 0
        self._waiting: list[Mapping[str, Any]] = []
        self._line = ""
        # Remarks come from other threads and from signal handlers, which must not wait for what they interrupt.
        self._notes: deque[str] = deque()
        self._lock = threading.Lock()

    def show(self, row: Mapping[str, Any]) -> None:
        """Show a row: step, and whatever else of it is known here."""
        self._count += 1
        each = (self._clock() - self._begun) / self._count
        left = each * (self._steps - int(row["step"]))
        self._waiting.append(row)
        if self._rewrites:
            with self._lock:
                self._line = line_of(self._waiting, self._steps, left)
                self._write(_CLEAR + self._line[: _columns(self._stream) - 1])
                self._say()
            self._waiting.clear()
        elif len(self._waiting) >= self._every or row["step"] == self._steps:
            with self._lock:
                self._write(line_of(self._waiting, self._steps, left) + "\n")
                self._say()
            self._waiting.clear()

    def note(self, text: str) -> None:
        """A remark on a line of its own, at once or behind what is being written; the live line goes on below it."""
        self._notes.append(text)
        if self._lock.acquire(blocking=False):
            try:
                self._say()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Leave the last line standing. Steps that no line has shown yet get one."""
        with self._lock:
            self._say()
            if self._rewrites and self._line:
                self._write("\n")
            elif self._waiting:
                self._write(line_of(self._waiting, self._steps, None) + "\n")
            self._line = ""
            self._waiting.clear()

    def _say(self) -> None:
        """Write the remarks that wait; to be called with the lock."""
        while self._notes:
            text = self._notes.popleft()
            if self._rewrites and self._line:
                self._write(f"{_CLEAR}{text}\n{self._line[: _columns(self._stream) - 1]}")
            else:
                self._write(text + "\n")

    def _write(self, text: str) -> None:
        if not self._shown:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more: the run goes on
            self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def line_of(rows: Sequence[Mapping[str, Any]], steps: int, left: float | None) -> str:
    """The means over some rows of metrics in one line; what no row has is left out, what all have as null is a dash.

    Args:
        rows: consecutive ones, at least one.
        steps: of the whole run.
        left: seconds until its end.
    """
    first, last = int(rows[0]["step"]), int(rows[-1]["step"])
    parts = [f"step {last}/{steps}" if first == last else f"steps {first}-{last}/{steps}"]
    for name, label, form in (
        ("reward_mean", "reward", "{:.3f}"),
        ("dead_group_share", "dead", "{:.0%}"),
        ("reward_std", "std", "{:.3f}"),
        ("loss", "loss", "{:.3g}"),
        ("grad_norm", "grad", "{:.3g}"),
    ):
        if any(name in row for row in rows):
            mean = _mean([row.get(name) for row in rows])
            parts.append(f"{label} {'–' if mean is None else form.format(mean)}")
    tokens, seconds = sum(float(row.get("tokens") or 0) for row in rows), sum(map(seconds_of, rows))
    if tokens and seconds:
        parts.append(f"{short(tokens / seconds)} tok/s")
    for phase in _PHASES:
        spent = _mean([row["seconds"].get(phase) for row in rows if isinstance(row.get("seconds"), Mapping)])
        if spent is not None:
            parts.append(f"{phase} {spent:.2f} s")
    if left is not None and last < steps:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def seconds_of(row: Mapping[str, Any]) -> float:
    """Seconds of a step: the sum of its phases; 0 where none was measured."""
    phases = row.get("seconds")
    return sum(float(v) for v in phases.values() if v is not None) if isinstance(phases, Mapping) else 0.0


def short(count: float) -> str:
    """A rate in at most four characters before its unit: 87, 950, 1.2k, 15k."""
    if count < 999.5:
        return f"{count:.0f}" if count >= 10 else f"{count:.1f}"
    return f"{count / 1000:.1f}k" if count < 9950 else f"{count / 1000:.0f}k"


def duration(seconds: float) -> str:
    """A time span by its two largest units: 40 s, 12 min, 3 h 05 min, 2 d 04 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24:02d} h"


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (OSError, ValueError):  # no terminal behind it, or none that tells
        return _WIDTH
