"""Which rollouts of a pool to train on: the subset of greatest variance (PODS, arXiv 2504.13818).

Rollouts are cheap beside updates; the extremes of a pool carry most of its signal.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def max_variance_subset(rewards: Sequence[float], size: int, seed: int = 0) -> list[int]:
    """The `size` rollouts whose rewards have the greatest population variance, exactly, in O(n log n).

    Such a subset always is some of the lowest and some of the highest rewards (PODS, Theorem 1), so one pass over the
    sorted rewards compares all splits, in exact fractions. Among equal rewards the seed chooses, so that no view is
    favoured by its place; among equally good splits the most even one is taken, then the one with more high rewards.

    Args:
        rewards: of the whole pool, finite.
        size: how many to keep; the whole pool when it has no more.

    Returns:
        Places in the pool, ascending.

    Raises:
        ValueError: size is below 2, so that nothing could differ.
    """
    if size < 2:
        raise ValueError(f"a subset needs at least 2 rollouts, got {size}")
    if size >= len(rewards):
        return list(range(len(rewards)))
    chance = np.random.default_rng(seed).permutation(len(rewards))
    order = sorted(range(len(rewards)), key=lambda i: (rewards[i], chance[i]))
    values = [Fraction(rewards[i]) for i in order]
    # Starts as all of the highest; each turn lets the lowest of those go for one more of the lowest of all.
    top = values[len(values) - size :]
    total, squares = sum(top, Fraction(0)), sum((v * v for v in top), Fraction(0))
    best, chosen = (size * squares - total * total, -size, 0), 0
    for low in range(1, size + 1):
        come, gone = values[low - 1], values[len(values) - size + low - 1]
        total += come - gone
        squares += come * come - gone * gone
        found = (size * squares - total * total, -abs(size - 2 * low), -low)
        if found > best:
            best, chosen = found, low
    return sorted(order[:chosen] + order[len(order) - size + chosen :])
