"""A figure of an evaluation: its value, its 95 % interval, and its difference between two checkpoints.

Intervals of rates are Wilson's. All others, and all differences, are percentile bootstraps over videos: questions about
one video are right or wrong together, so videos are drawn with replacement and bring all their questions along. A
difference is paired: both checkpoints are measured on the videos that one draw took.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.groups import wilson

Floats = npt.NDArray[np.float64]
Join = Callable[[Floats], Floats]
"""Means of the parts [..., P] -> the figure [...]."""

DRAWS = 1000  # of a bootstrap
_CELLS = 1 << 22  # counts that are held at once
_SEED = 20240229  # the same videos are drawn in every run
_LEVELS = (2.5, 97.5)


@dataclass(frozen=True)
class Figure:
    """What the means of one or several sets of values come to.

    Attributes:
        parts: of each set the values, and the video that each is about. Sets are not empty.
        join: the figure of their means; default: the mean of the means.
    """

    parts: tuple[tuple[tuple[float, ...], tuple[str, ...]], ...]
    join: Join = lambda means: means.mean(axis=-1)

    @property
    def n(self) -> int:
        """Values that it stands on."""
        return sum(len(values) for values, _ in self.parts)

    @property
    def value(self) -> float:
        """The figure itself."""
        return float(self.join(np.array([np.mean(values) for values, _ in self.parts])))

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of answers: one set of zeros and ones."""
        return len(self.parts) == 1 and set(self.parts[0][0]) <= {0.0, 1.0}


def mean(values: Sequence[float], videos: Sequence[str]) -> Figure:
    """The mean of one set of values, each with its video. Raises ValueError for none."""
    return joined([(values, videos)])


def joined(parts: Sequence[tuple[Sequence[float], Sequence[str]]], join: Join | None = None) -> Figure:
    """A figure of several sets of (values, videos). Raises ValueError where one is empty."""
    if not parts or not all(len(values) == len(videos) > 0 for values, videos in parts):
        raise ValueError("a figure of no values")
    fixed = tuple((tuple(map(float, values)), tuple(videos)) for values, videos in parts)
    return Figure(fixed) if join is None else Figure(fixed, join)


def interval(figure: Figure) -> tuple[float, float] | None:
    """95 %: Wilson's of a rate, else the bootstrap's; None where that has one video only, or too few draws.

    Returns:
        (low, high).
    """
    if figure.is_rate:
        values = figure.parts[0][0]
        return wilson(sum(values), len(values))
    return _percentiles(resampled([figure])[:, 0], figure)


def difference(first: Figure, other: Figure) -> tuple[float, tuple[float, float] | None]:
    """How much `other` is above `first`, and the paired bootstrap interval of that.

    Both stand on the same questions, part by part.

    Raises:
        ValueError: they stand on different videos.
    """
    if [sorted(videos) for _, videos in first.parts] != [sorted(videos) for _, videos in other.parts]:
        raise ValueError("two figures of different questions are not paired")
    drawn = resampled([first, other])
    return other.value - first.value, _percentiles(drawn[:, 1] - drawn[:, 0], first)


def resampled(figures: Sequence[Figure], draws: int = DRAWS) -> Floats:
    """Figures of `draws` bootstrap samples of the videos, the same sample for all of them: float64 [draws, figures].

    NaN in a sample where no video of a part was drawn.
    """
    names = sorted({name for figure in figures for _, videos in figure.parts for name in videos})
    place = {name: i for i, name in enumerate(names)}
    columns = [_per_video(part, place) for figure in figures for part in figure.parts]
    sums, counts = (np.stack([column[k] for column in columns], axis=1) for k in (0, 1))
    rng = np.random.default_rng(_SEED)
    rows: list[Floats] = []
    step = max(1, _CELLS // len(names))
    for begin in range(0, draws, step):
        times = drawn_videos(rng, min(step, draws - begin), len(names))
        seen = times @ counts
        means = np.divide(times @ sums, seen, out=np.full(seen.shape, np.nan), where=seen > 0)
        edges = np.cumsum([0, *(len(figure.parts) for figure in figures)]).tolist()
        parts = [means[:, low:high] for low, high in pairwise(edges)]
        rows.append(np.stack([figure.join(part) for figure, part in zip(figures, parts, strict=True)], axis=1))
    return np.concatenate(rows)


def drawn_videos(rng: np.random.Generator, draws: int, videos: int) -> Floats:
    """How often each video is in each of `draws` samples with replacement of that many: float64 [draws, videos]."""
    chosen = rng.integers(0, videos, (draws, videos)) + videos * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * videos).reshape(draws, videos).astype(np.float64)


def table_of(figures: dict[str, Figure]) -> dict[str, dict[str, Any]]:
    """Figures as JSON: value, low and high (None without an interval), n, and by what method."""
    out: dict[str, dict[str, Any]] = {}
    for name, figure in figures.items():
        low, high = interval(figure) or (None, None)
        how = "wilson" if figure.is_rate else "bootstrap"
        out[name] = {"value": figure.value, "low": low, "high": high, "n": figure.n, "interval": how}
    return out


def _per_video(part: tuple[Sequence[float], Sequence[str]], place: dict[str, int]) -> tuple[Floats, Floats]:
    """Sum and count of a part's values by video: float64 [videos] each."""
    at = np.array([place[name] for name in part[1]])
    values = np.asarray(part[0], dtype=np.float64)
    sums, counts = np.bincount(at, values, len(place)), np.bincount(at, minlength=len(place))
    return sums.astype(np.float64), counts.astype(np.float64)


def _percentiles(drawn: Floats, figure: Figure) -> tuple[float, float] | None:
    """The 95 % interval of bootstrap samples; None where half of them miss a part, or one video is all there is."""
    whole = drawn[np.isfinite(drawn)]
    if 2 * len(whole) < len(drawn) or len({name for _, videos in figure.parts for name in videos}) < 2:
        return None
    low, high = np.percentile(whole, _LEVELS)
    return float(low), float(high)
