"""How a run ends before its last step: somebody asks it to, or its loss is no number any more."""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a run was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stoppable(tell: Callable[[str], None]) -> Iterator[Stop]:
    """The first SIGTERM or SIGINT (ctrl-C) asks to stop after the step under way; the next one acts as always.

    Python delivers signals to the main thread; elsewhere nothing is changed, and nobody asks.

    Args:
        tell: shows the user that the signal was heard.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)
        put_back()
        tell(f"{stop.signal.name}: the step under way is finished and saved, then the run ends; once more ends it now")

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        put_back()


class NotFiniteError(ArithmeticError):
    """A step's loss or gradient is NaN or infinite. Nothing was changed by it.

    Attributes:
        step: counted from 1. values: what is not finite, by name. batch: JSON-like, what the step was computed from.
    """

    def __init__(self, step: int, values: Mapping[str, float], batch: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"step {step}: {', '.join(f'{name} {value}' for name, value in values.items())}")
        self.step, self.values, self.batch = step, dict(values), list(batch)


def is_finite(update: Mapping[str, float | None]) -> bool:
    """Whether the loss and the gradient norm of an update are numbers; a step without either is."""
    return all(math.isfinite(update[name] or 0.0) for name in ("loss", "grad_norm"))


def save_batch(error: NotFiniteError, out: Path, lr: float) -> UserError:
    """Write what a broken step was computed from into the run's folder.

    Returns:
        the error to raise: what happened, where the batch lies, and what to do.
    """
    file = out / f"broken-step-{error.step:08d}.json"
    content = {"step": error.step, "values": {k: str(v) for k, v in error.values.items()}, "batch": error.batch}
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return UserError(
        str(error),
        f"expected finite numbers; its samples and responses are in {file}",
        f"lower --lr (now {lr}) in another --out; the newest checkpoint in {out} is whole",
    )
