"""Advantages: how much better a rollout is than the others of its pool.

A pool holds the rewards of one sample, view by view; views may have different numbers of responses (two waves, a
subset). With r the rewards, m(v) the mean of a view, m the mean of the pool, and s a scale:

    joint         (r - m) / s                                 STRIVE, Figure 2 (arXiv 2604.01824)
    per-view      (r - m(v)) / s(v)                           GRPO in each view on its own (arXiv 2402.03300)
    hierarchical  (r - m(v)) / s(v) + (m(v) - m) / s(between)     a within-view and a between-view part, as Share-GRPO
                                                              (arXiv 2505.16673) and DIVA-GRPO (arXiv 2603.01106) add

s is a population standard deviation + EPSILON: of the pool, of the view, of the view means weighted by their responses.
Neither STRIVE's epsilon and estimator nor the weights of the hierarchical parts are public: these are ours. With one
view the three are the same numbers, to the bit. Whatever does not differ (a pool, a view, the view means) gets exactly
0, so advantages of a pool sum to 0 in every mode.

Shape suffixes: M views, G responses for each view.
"""

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from pipeline.groups import is_dead, population_variance

Mode = Literal["joint", "per-view", "hierarchical"]
Views = Sequence[Sequence[float]]
"""The rewards of one pool: for each view those of its responses."""

EPSILON = 1e-4
"""Added to the standard deviation. A live binary pool of up to 64 rollouts has a deviation of at least 0.12, so there
it changes less than 0.1 %; it matters only where IoUs differ by less than about 0.001, and keeps that from being
blown up to advantages of one."""


def advantages(views: Views, mode: Mode = "joint", scale: float | None = None) -> list[list[float]]:
    """Advantages of one pool, in float64.

    Args:
        views: rewards of each view's responses.
        mode: see the top of this file.
        scale: stands for every s: 1.0 divides by nothing (Dr. GRPO, arXiv 2503.20783), a task's spread makes samples
            comparable. None: the deviation of what is compared, + EPSILON. With one scale for both of its parts
            `hierarchical` is `joint`.

    Returns:
        A list a view, in the order of its responses.

    Raises:
        ValueError: a pool or a view is empty, or a reward is not finite.
    """
    pool = [reward for view in views for reward in view]
    if is_dead(pool):
        return [[0.0] * len(view) for view in views]
    # fsum rounds once, so a mean does not depend on how the pool is laid out in views.
    mean = math.fsum(pool) / len(pool)
    if mode == "joint":
        deviation = scale or math.sqrt(population_variance(pool)) + EPSILON
        return [[(reward - mean) / deviation for reward in view] for view in views]
    within = [_within(view, scale) for view in views]
    if mode == "per-view" or len(views) == 1:
        return within
    return [[a + part for a in view] for view, part in zip(within, _between(views, mean, scale), strict=True)]


def _within(view: Sequence[float], scale: float | None) -> list[float]:
    """The rewards of one view against their own mean; zeros where they are all equal."""
    if is_dead(view):
        return [0.0] * len(view)
    mean = math.fsum(view) / len(view)
    deviation = scale or math.sqrt(population_variance(view)) + EPSILON
    return [(reward - mean) / deviation for reward in view]


def _between(views: Views, mean: float, scale: float | None) -> list[float]:
    """The mean of each view against the mean of the pool, over the spread of the view means."""
    means = [math.fsum(view) / len(view) for view in views]
    each = [m for m, view in zip(means, views, strict=True) for _ in view]
    if is_dead(each):
        return [0.0] * len(views)
    deviation = scale or math.sqrt(population_variance(each)) + EPSILON
    return [(m - mean) / deviation for m in means]


def spreads(views: Views, mode: Mode = "joint") -> list[float]:
    """What `advantages` divides by without a `scale` and without EPSILON: the deviations of all that is live.

    Returns:
        joint, hierarchical: that of the pool, or nothing when it is dead. per-view: those of the views that differ.
    """
    compared = views if mode == "per-view" else [[reward for view in views for reward in view]]
    return [math.sqrt(population_variance(rewards)) for rewards in compared if not is_dead(rewards)]


@overload
def joint_advantages(rewards: Tensor) -> Tensor: ...


@overload
def joint_advantages(rewards: Sequence[Tensor]) -> list[Tensor]: ...


def joint_advantages(rewards: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """`advantages` of the joint mode for pools with as many responses in every view.

    Args:
        rewards: [M, G] of one sample, or one such tensor for each sample; floating point.

    Returns:
        Advantages of the same shape, dtype and device, computed in float64; a list for a list.

    Raises:
        ValueError: a pool is empty or holds a reward that is not finite.
    """
    if not isinstance(rewards, Tensor):
        return [joint_advantages(pool) for pool in rewards]
    [found] = advantages([rewards.reshape(-1).tolist()])
    return torch.tensor(found, dtype=torch.float64).reshape(rewards.shape).to(rewards)
