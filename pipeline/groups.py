"""Statistics of a group of rewards: the variance that selection filters by, the dead test, intervals of rates."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.floating]

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def _finite(values: Values) -> npt.NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"rewards must be finite and at least one, got {x.size}, {int(np.isfinite(x).sum())} finite")
    return x


def is_dead(values: Values) -> bool:
    """Whether all rewards of a group are equal, so that no advantage is left: `max == min`.

    The standard deviation does not tell: eight rewards of 0.9 have one of 6e-8 in float32.

    Args:
        values: rewards of any shape, at least one, finite.
    """
    x = _finite(values)
    return bool(x.max() == x.min())


def population_variance(values: Values) -> float:
    """Mean squared distance from the mean (ddof 0) over all values; exactly 0.0 when they are all equal.

    With N binary rewards of which k are 1 it is k/N * (1 - k/N): at most 0.25, and 0.109375 for 1 of 8.

    Args:
        values: rewards of any shape, at least one, finite.
    """
    x = _finite(values).ravel()
    if x.max() == x.min():
        return 0.0
    mean = math.fsum(x) / x.size
    return math.fsum((v - mean) ** 2 for v in x.tolist()) / x.size


def between_share(rewards: Values) -> float:
    """Share of a pool's variance that lies between its views: Var(view means) / Var(all), in [0, 1]; 0 for a dead pool.

    A high share says that views differ in luck (evidence in sight or not) more than responses differ in quality.

    Args:
        rewards: [M, G], the G rewards of each of M views.
    """
    x = _finite(rewards)
    if x.ndim != 2:
        raise ValueError(f"rewards must be [M, G], got shape {x.shape}")
    total = population_variance(x)
    if total == 0.0:
        return 0.0
    means = [math.fsum(row) / len(row) for row in x.tolist()]
    return min(1.0, population_variance(means) / total)


def wilson(successes: float, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927): it stays in [0, 1] and does not collapse at 0 or n successes.

    Args:
        successes: 0..trials; a sum of partial credits gives a conservative interval.
        trials: how many were tried.
        z: normal quantile; the default gives 95 %.

    Returns:
        (low, high); (0, 1) without trials.

    Raises:
        ValueError: successes lie outside 0..trials.
    """
    low, high = wilson_all(np.array([successes]), np.array([trials]), z)
    return float(low[0]), float(high[0])


def wilson_all(
    successes: npt.NDArray[np.floating], trials: npt.NDArray[np.integer], z: float = Z_95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`wilson` of many rates at once: arrays [n] in, arrays (low, high) [n] out."""
    s, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    outside = ~((s >= 0) & (s <= n))
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"expected 0 <= successes <= trials, got {s[i]:g} of {n[i]:g}")
    count = np.maximum(n, 1.0)
    rate = s / count
    scale = 1 + z * z / count
    centre = rate + z * z / (2 * count)
    spread = z * np.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    low = np.where(s == 0, 0.0, (centre - spread) / scale)
    high = np.where(s == n, 1.0, (centre + spread) / scale)
    return low, high
