"""Stratified importance sampling: frames in proportion to their relevance, with coverage of the whole timeline."""

import numpy as np
import numpy.typing as npt

from pipeline.samplers.draw import Draw, Floats, check_scores, is_flat, scaled


def log_weights(scores: Floats, mix: float, temperature: float) -> npt.NDArray[np.float64]:
    """Log of w = mix * p + (1 - mix) / K: relevance p over a floor that leaves every frame a chance.

    p is the softmax of the scores, scaled to [0, 1] by their minimum and maximum, over `temperature`. The scale makes
    one temperature serve scorers whose cosines span 0.1 and scorers whose cosines span 1. Taken in logs, so that a low
    temperature does not underflow.

    Args:
        scores: [K], finite, not all equal.
        mix: 0 is uniform, 1 is relevance alone.
        temperature: above 0, in units of the scores' range.
    """
    z = scaled(scores) / temperature
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
    with np.errstate(divide="ignore"):
        mixed: npt.NDArray[np.float64] = np.logaddexp(np.log(mix) + log_p, np.log(1.0 - mix) - np.log(z.size))
    return mixed


def stratified_importance(
    scores: Floats, times: Floats, budget: int, seed: int, mix: float, temperature: float, bins: int
) -> Draw:
    """Draw a view: a frame or more in each of `bins` equal parts of the timeline, the rest where the scores are high.

    Each frame gets one key, log w plus Gumbel noise. The best key of each part is taken, then the best of what is
    left: sampling without replacement in proportion to w, under the coverage constraint. Scores that tell nothing
    (`is_flat`) are replaced by coverage alone: as many parts as frames, one frame at random in each.
    Parts of the timeline that hold no frame (a gap in a video of variable rate) are passed over.

    Args:
        scores: [K] relevance of each cached frame.
        times: [K] their times in seconds, ascending.
        budget: frames wanted; all K are returned when there are no more than that.
        seed: of the Gumbel noise.
        mix: share of relevance in w, 0..1.
        temperature: see `log_weights`.
        bins: parts of the timeline, 1..budget.
    """
    count = check_scores(scores, times, budget)
    t = np.asarray(times, dtype=np.float64)
    if not (0.0 <= mix <= 1.0 and temperature > 0.0 and 1 <= bins <= budget):
        raise ValueError(f"mix {mix} must be in 0..1, temperature {temperature} above 0, bins {bins} in 1..{budget}")
    flat = is_flat(scores)
    if count <= budget:
        return Draw(list(range(count)), flat)
    parts = budget if flat else bins
    noise = -np.log(-np.log(np.random.default_rng(seed).uniform(np.finfo(np.float64).tiny, 1.0, count)))
    keys = noise if flat else noise + log_weights(scores, mix, temperature)
    length = t[-1] - t[0]
    part = np.minimum((t - t[0]) / length * parts, parts - 1).astype(np.int64) if length > 0 else np.zeros(count, int)
    order = np.argsort(-keys, kind="stable")
    _, first = np.unique(part[order], return_index=True)  # position of each part's best key
    chosen = order[first]
    rest = order[~np.isin(order, chosen)]
    return Draw(sorted(np.concatenate([chosen, rest[: budget - len(chosen)]]).tolist()), flat)
