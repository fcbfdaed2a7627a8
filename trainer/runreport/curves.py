"""Curves as plain numbers: smoothing, thinning, the scale of an axis. All pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Points = list[tuple[float, float | None]]
"""(x, y) by rising x; None: nothing was measured there."""

LOG_FROM = 100.0  # largest over median value above which an axis is logarithmic: a spike would flatten all else
LOG_TO = 1e9  # largest over smallest value up to which it can be: beyond, it would flatten all by itself

_NOTHING = 1e-24


def smoothed(steps: Sequence[float], values: Sequence[float | None], beta: float) -> list[float | None]:
    """Weighted mean of each step's value and all before it; a value k steps back weighs beta^k. None stays None.

    Without bias at the beginning: weights are divided by their sum. beta = 0 gives the values back.

    Raises:
        ValueError: beta is not in 0 <= beta < 1.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta {beta} is not in [0, 1)")
    total = weight = 0.0
    last: float | None = None
    out: list[float | None] = []
    for step, value in zip(steps, values, strict=True):
        if value is None:
            out.append(None)
            continue
        fade = beta ** (step - last) if last is not None else 0.0
        total, weight, last = total * fade + value, weight * fade + 1.0, step
        out.append(total / weight)
    return out


def thinned(points: Points, most: int) -> Points:
    """At most about 2 x `most` points, of each stretch the lowest and the highest: no spike is lost.

    A stretch without any value stays a gap.
    """
    if len(points) <= 2 * most:
        return points
    out: Points = []
    size = len(points) / most
    for k in range(most):
        part = points[round(k * size) : round((k + 1) * size)]
        known = [(y, x) for x, y in part if y is not None]
        if not known:
            out.append((part[0][0], None))
            continue
        ends = sorted({(x, y) for y, x in (min(known), max(known))})
        out.extend(ends)
    return out


@dataclass(frozen=True)
class Scale:
    """An axis from low to high. With `log` positions go by the logarithm, and low is above 0."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """0 at low, 1 at high; what lies outside is at the nearer end."""
        a, b, v = self.low, self.high, min(max(value, self.low), self.high)
        return math.log(v / a) / math.log(b / a) if self.log else (v - a) / (b - a)


def scale_of(values: Sequence[float], share: bool = False) -> Scale:
    """The axis that holds all values: 0..1 for a share, from 0 for what is never negative, logarithmic for spikes."""
    if share and all(0 <= v <= 1 for v in values):
        return Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    if not values:
        return linear(0.0, 1.0)
    low, high = min(values), max(values)
    median = sorted(values)[len(values) // 2]
    if low > 0 and high > LOG_FROM * median and high / LOG_TO <= low:
        return logarithmic(low, high)
    return linear(min(low, 0.0), max(high, 0.0))


def linear(low: float, high: float, most: int = 4) -> Scale:
    """An axis of round ticks, about `most` steps, that holds low..high."""
    if high - low < max(1e-12 * max(abs(low), abs(high)), _NOTHING):  # no extent to speak of
        high = low + (abs(low) if abs(low) > _NOTHING else 1.0)
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10, 20) if unit * k >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(step * k for k in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def logarithmic(low: float, high: float) -> Scale:
    """An axis of powers of ten that holds low..high, both above 0; of many powers every n-th has a tick."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 5))
    ticks = tuple(10.0**k for k in range(first, last + 1, every))
    return Scale(10.0**first, 10.0**last, ticks, log=True)
