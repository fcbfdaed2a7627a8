"""Advantages: how much better a rollout is than the others of its pool.

Shape suffixes: M views, G responses for each view.
"""

import math
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from pipeline.groups import is_dead, population_variance

EPSILON = 1e-4
"""Added to the standard deviation. A live binary pool of up to 64 rollouts has a deviation of at least 0.12, so there
it changes less than 0.1 %; it matters only where IoUs differ by less than about 0.001, and keeps that from being
blown up to advantages of one."""


@overload
def joint_advantages(rewards: Tensor) -> Tensor: ...


@overload
def joint_advantages(rewards: Sequence[Tensor]) -> list[Tensor]: ...


def joint_advantages(rewards: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """Normalise rewards jointly over the whole pool of one sample: (r - mean) / (std + EPSILON).

    Mean and standard deviation are taken over all M x G rewards, as in Figure 2 of STRIVE (arXiv 2604.01824). The
    paper's epsilon and estimator are not public; ours are the population standard deviation (the same variance that
    `select` filters by) and EPSILON. With M = 1 the pool is one group and this is GRPO, by the same arithmetic.
    A dead pool (max == min) gets exactly 0 everywhere.

    Args:
        rewards: [M, G] of one sample, or one such tensor for each sample; floating point.

    Returns:
        Advantages of the same shape, dtype and device, computed in float64; a list for a list.

    Raises:
        ValueError: a pool is empty or holds a reward that is not finite.
    """
    if not isinstance(rewards, Tensor):
        return [joint_advantages(pool) for pool in rewards]
    values: list[float] = rewards.reshape(-1).tolist()
    if is_dead(values):
        return torch.zeros_like(rewards)
    # fsum rounds once, so the result does not depend on how the pool is laid out in views.
    mean = math.fsum(values) / len(values)
    scale = math.sqrt(population_variance(values)) + EPSILON
    advantages = torch.tensor([(value - mean) / scale for value in values], dtype=torch.float64)
    return advantages.reshape(rewards.shape).to(rewards)
