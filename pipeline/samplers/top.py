"""Top-k: the frames with the highest scores, and no coverage. What the other samplers are measured against."""

import numpy as np

from pipeline.samplers.draw import Draw, Floats, check_scores, is_flat, noisy, scaled
from pipeline.samplers.even import spread


def top_k(scores: Floats, times: Floats, budget: int, seed: int | None) -> Draw:
    """The `budget` highest scores; of equal ones the earlier frames. Scores that tell nothing leave `spread`.

    Args:
        scores: [K] relevance of each cached frame.
        times: [K] their times in seconds, ascending.
        budget: frames wanted; all K are returned when there are no more than that.
        seed: None is the method itself; a seed adds noise to the scores (`draw.noisy`).
    """
    count = check_scores(scores, times, budget)
    flat = is_flat(scores)
    if flat or count <= budget:
        return Draw(spread(count, budget, seed), flat)
    order = np.argsort(-noisy(scaled(scores), seed), kind="stable")
    return Draw(sorted(order[:budget].tolist()), False)
