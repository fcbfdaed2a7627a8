"""Intervals by the bootstrap, paired over held-out samples and seeds (Efron and Tibshirani 1993, chapters 8 and 13).

Shape suffixes: S seeds, N held-out samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS, LEVEL = 4000, 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether all of it lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether all of it lies below 0."""
        return self.high < 0


def interval(values: ArrayLike, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Interval:
    """Percentile interval of the mean of a table whose rows and columns are both drawn anew, with replacement.

    Seeds and samples are crossed: every seed answers every sample. Drawing both counts the chance of training and the
    chance of the questions. For a difference of two arms give the table of differences: what the arms share, the order
    of the data in a seed and the difficulty of a sample, then cancels.

    Args:
        values: float [S, N], finite. With one row only samples are drawn, with one column only seeds.
        level: of the interval. seed: of the draws; the same table gives the same interval.

    Raises:
        ValueError: not a table, empty, or not finite.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"expected a table of finite values with seeds and samples, got shape {table.shape}")
    rng = np.random.default_rng(seed)
    rows, columns = (_weights(rng, draws, n) for n in table.shape)
    means = np.einsum("ds,ds->d", rows, columns @ table.T)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.mean()), float(low), float(high))


def _weights(rng: np.random.Generator, draws: int, n: int) -> NDArray[np.float64]:
    """[draws, n] shares with which each of n things stands in a sample of n drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
