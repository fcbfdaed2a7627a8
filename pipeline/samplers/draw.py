"""What all samplers share: a draw, what a score can tell, and the checks of their arguments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = Sequence[float] | npt.NDArray[np.floating]

JITTER = 0.1
"""Standard deviation of the noise that tells apart views of a method without chance, in units of the scores' range."""


@dataclass(frozen=True)
class Draw:
    """Frame indices, distinct and ascending. `flat` says that the scores told nothing and coverage alone chose."""

    indices: list[int]
    flat: bool


def is_flat(scores: Floats) -> bool:
    """Whether scores tell nothing about which frame matters: all equal, or one that is not finite."""
    s = np.asarray(scores, dtype=np.float64)
    return s.size == 0 or not np.isfinite(s).all() or bool(s.max() == s.min())


def scaled(scores: Floats) -> npt.NDArray[np.float64]:
    """Scores [K], finite and not all equal, on 0..1 by their minimum and maximum."""
    s = np.asarray(scores, dtype=np.float64)
    low, high = s.min(), s.max()
    unit: npt.NDArray[np.float64] = (s - low) / (high - low)
    return unit


def noisy(unit: npt.NDArray[np.float64], seed: int | None) -> npt.NDArray[np.float64]:
    """Scaled scores [K] with normal noise of JITTER; as they are without a seed."""
    return unit if seed is None else unit + JITTER * np.random.default_rng(seed).standard_normal(unit.size)


def pad(indices: Sequence[int], budget: int) -> tuple[list[int], list[bool]]:
    """A draw at a fixed length, for those who need one: the last frame is repeated, and every repeat is flagged.

    Args:
        indices: at least one, at most `budget`.
        budget: the length wanted.

    Returns:
        indices [budget], and bool [budget]: whether the place holds a frame of the draw.
    """
    if not 1 <= len(indices) <= budget:
        raise ValueError(f"cannot pad {len(indices)} frames to {budget}")
    lacking = budget - len(indices)
    return [*indices, *[indices[-1]] * lacking], [True] * len(indices) + [False] * lacking


def largest_gap(chosen: Floats, times: Floats) -> float:
    """Largest part of the timeline without a chosen frame, as a share of its length; 0 for a single moment.

    Args:
        chosen: times of a view's frames, seconds, ascending, at least one.
        times: times of all cached frames, seconds, ascending.
    """
    start, end = float(times[0]), float(times[-1])
    if end <= start:
        return 0.0
    return float(np.diff([start, *map(float, chosen), end]).max() / (end - start))


def check(n_frames: int, budget: int) -> None:
    """ValueError unless there is something to choose and something to choose from."""
    if n_frames < 1 or budget < 1:
        raise ValueError(f"cannot choose {budget} of {n_frames} frames")


def check_scores(scores: Floats, times: Floats, budget: int) -> int:
    """The number of frames; ValueError when there is nothing to choose from, or not one score for each frame."""
    check(len(times), budget)
    if len(scores) != len(times):
        raise ValueError(f"{len(scores)} scores for {len(times)} frames")
    return len(times)
