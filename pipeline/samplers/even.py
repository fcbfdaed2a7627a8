"""Uniform sampling: frames spread evenly over the video, whatever the question."""

import numpy as np

from pipeline.samplers.draw import Draw, Floats, check, is_flat


def uniform(n_frames: int, budget: int) -> list[int]:
    """The frames at the centres of `budget` equal segments; all frames when there are no more than that.

    Args:
        n_frames: cached frames of the video, at least 1.
        budget: frames wanted, at least 1.
    """
    check(n_frames, budget)
    if n_frames <= budget:
        return list(range(n_frames))
    return [(2 * i + 1) * n_frames // (2 * budget) for i in range(budget)]


def spread(n_frames: int, budget: int, seed: int | None) -> list[int]:
    """One frame in each of `budget` equal segments: at random, or without a seed at their centres (`uniform`)."""
    if seed is None or n_frames <= budget:
        return uniform(n_frames, budget)
    check(n_frames, budget)
    edges = np.arange(budget + 1) * n_frames // budget
    chosen: list[int] = np.random.default_rng(seed).integers(edges[:-1], edges[1:]).tolist()
    return chosen


def uniform_sampler(scores: Floats, times: Floats, budget: int, seed: int | None) -> Draw:
    """`spread` with the arguments of a sampler. Scores are looked at only to say whether they told anything.

    Args:
        scores: [K], not used for the choice. times: [K]. budget: frames wanted. seed: None takes the centres.
    """
    return Draw(spread(len(times), budget, seed), is_flat(scores))
