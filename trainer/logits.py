"""Log-probabilities of targets in portions of positions: [R, V] of a large vocabulary never exists as a whole.

Legend of shapes: R positions with a target, H hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.products import through
from trainer.sampling import token_logprobs

ELEMENTS = 2**24
"""Logits that exist at a time, 64 MiB of float32; 110 positions of a vocabulary of 152,000."""


def target_logprobs(
    head: Any, states: Tensor, targets: Tensor, banned_ids: Sequence[int], temperature: float, elements: int = ELEMENTS
) -> Tensor:
    """Log-probability of each target, float32 [R].

    With more than one portion, a portion's logits are computed again in the backward pass instead of being kept:
    values and gradients are the same, peak memory is that of one portion.

    Args:
        head: states -> logits [.., V]. states: [R, H]. targets: long [R].
        elements: logits of a portion; at least one position.
    """
    portion = max(1, elements // head.weight.shape[0])

    def part(h: Tensor, t: Tensor) -> Tensor:
        return token_logprobs(through(head, h), banned_ids, temperature).gather(-1, t[:, None])[:, 0]

    if len(states) <= portion:
        return part(states, targets)
    pieces = zip(states.split(portion), targets.split(portion), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([part(h, t) for h, t in pieces])
    return torch.cat([checkpoint(part, h, t, use_reentrant=False) for h, t in pieces])
