"""Adaptive keyframe sampling as in AKS (arXiv 2502.21271): split the timeline until relevance is worth its coverage."""

import numpy as np
import numpy.typing as npt

from pipeline.samplers.draw import Draw, Floats, check_scores, is_flat, noisy, scaled
from pipeline.samplers.even import spread


def recursive_split(scores: Floats, times: Floats, budget: int, seed: int | None, threshold: float, depth: int) -> Draw:
    """Halve the timeline again and again, each half with half of the frames wanted; take the best of what stays whole.

    A segment stays whole when its best frames stand out, mean(best n) - mean(all) > `threshold` of scores scaled to
    0..1, or at `depth`, or when one frame is wanted of it. A threshold of 0 is nearly top-k, one of 1 is one frame in
    each of `budget` segments. Unlike in the published code no frame is lost to rounding: an odd one goes to the half
    with the higher mean, and what a half cannot hold goes to the other. Scores that tell nothing leave `spread`.

    Args:
        scores: [K] relevance of each cached frame.
        times: [K] their times in seconds, ascending; halves have equally many frames.
        budget: frames wanted; all K are returned when there are no more than that.
        seed: None is the method itself; a seed adds noise to the scores (`draw.noisy`).
        threshold: in units of the scores' range.
        depth: halvings at most, 0 or more.
    """
    count = check_scores(scores, times, budget)
    if not (threshold >= 0.0 and depth >= 0):
        raise ValueError(f"threshold {threshold} and depth {depth} must be 0 or more")
    flat = is_flat(scores)
    if flat or count <= budget:
        return Draw(spread(count, budget, seed), flat)
    unit = noisy(scaled(scores), seed)
    sums = np.concatenate([[0.0], np.cumsum(unit)])
    chosen: list[int] = []
    open_segments = [(0, count, budget, depth)]
    while open_segments:
        start, end, wanted, left = open_segments.pop()
        segment = unit[start:end]
        if wanted == 1:
            chosen.append(start + int(segment.argmax()))
        elif wanted == end - start:
            chosen.extend(range(start, end))
        elif left == 0 or _stands_out(segment, wanted, threshold, (sums[end] - sums[start]) / (end - start)):
            chosen.extend((start + np.argsort(-segment, kind="stable")[:wanted]).tolist())
        else:
            middle = (start + end) // 2
            first = (sums[middle] - sums[start]) * (end - middle) > (sums[end] - sums[middle]) * (middle - start)
            share = wanted // 2 + (wanted % 2 if first else 0)
            share = min(max(share, wanted - (end - middle)), middle - start)
            halves = ((start, middle, share, left - 1), (middle, end, wanted - share, left - 1))
            open_segments.extend(half for half in halves if half[2])
    return Draw(sorted(chosen), False)


def _stands_out(segment: npt.NDArray[np.float64], wanted: int, threshold: float, mean: float) -> bool:
    """Whether the mean of the best `wanted` exceeds the mean of all by more than `threshold`."""
    if segment.max() - mean <= threshold:  # nearly always, and far cheaper than finding the best ones
        return False
    best = np.partition(segment, len(segment) - wanted)[-wanted:]
    return bool(best.mean() - mean > threshold)
