"""Inverse transform sampling as in BOLT (arXiv 2503.21483): equal steps through the cumulated relevance."""

import numpy as np

from pipeline.samplers.draw import Draw, Floats, check_scores, is_flat, scaled
from pipeline.samplers.even import spread


def inverse_transform(scores: Floats, times: Floats, budget: int, seed: int | None, power: float) -> Draw:
    """Frames at equal steps of the cumulated relevance: dense where it is high, never quite absent where it is low.

    Scores are scaled to 0..1 and raised to `power`; their sum is scaled to 1 and cumulated; the frames are those at
    which it reaches u = linspace(1/n, 1 - 1/n, n), or 1/2 for n = 1. Two steps that meet on one frame would repeat it:
    the second moves to the nearest free frame. Scores that tell nothing, 0/0 in the formula, leave `spread`.

    Args:
        scores: [K] relevance of each cached frame.
        times: [K] their times in seconds, ascending.
        budget: frames wanted, n; all K are returned when there are no more than that.
        seed: None is the method itself; with a seed u is at random within each of n equal steps.
        power: above 0; high takes the best frames only.
    """
    count = check_scores(scores, times, budget)
    if not power > 0.0:
        raise ValueError(f"power {power} must be above 0")
    flat = is_flat(scores)
    if flat or count <= budget:
        return Draw(spread(count, budget, seed), flat)
    reached = np.cumsum(scaled(scores) ** power)
    if seed is not None:
        u = (np.arange(budget) + np.random.default_rng(seed).uniform(size=budget)) / budget
    else:
        u = np.linspace(1 / budget, 1 - 1 / budget, budget) if budget > 1 else np.array([0.5])
    wanted = np.minimum(np.searchsorted(reached, u * reached[-1]), count - 1)
    return Draw(distinct(wanted.tolist(), np.asarray(times, dtype=np.float64)), False)


def distinct(wanted: list[int], times: Floats) -> list[int]:
    """Each wanted frame once, ascending; a repeat moves to the nearest frame that is free, of two the earlier one.

    Args:
        wanted: frame indices, at most as many as there are frames.
        times: [K] seconds, ascending: what nearest is measured by.
    """
    left: dict[int, int] = {}  # taken frame -> a frame before it that is nearer to the next free one
    right: dict[int, int] = {}
    for index in wanted:
        place = index
        if index in left:
            before, after = _free(left, index), _free(right, index)
            earlier = before >= 0 and (
                after >= len(times) or times[index] - times[before] <= times[after] - times[index]
            )
            place = before if earlier else after
        left[place], right[place] = place - 1, place + 1
    return sorted(left)


def _free(steps: dict[int, int], index: int) -> int:
    """The first frame on the way from `index` that is not taken; the way is shortened for the next who walks it."""
    walked = []
    while index in steps:
        walked.append(index)
        index = steps[index]
    for place in walked:
        steps[place] = index
    return index
