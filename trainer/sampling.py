"""Drawing tokens: one random number a token and response, and the distribution that is drawn from and trained.

Legend of shapes: N responses, T response tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Choose = Callable[[Tensor, int], Tensor]
"""(probabilities [N, V], step) -> token ids [N]."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response.

    tokens: long [T], its end token included, when it came.
    logprobs: float32 [T], under the distribution that is trained: at the temperature, without vision tokens.
    drawn: float32 [T], under the one that was drawn from: the same, or what top-p and top-k left of it.
    """

    tokens: Tensor
    logprobs: Tensor
    drawn: Tensor | None = None


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """The random numbers of each response: a function of its own seed alone, whatever shares its batch.

    Returns:
        float64 [len(seeds), steps], each in [0, 1).
    """
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(s)).random(steps) for s in seeds]))


def inverse_cdf(probabilities: Tensor, u: Tensor) -> Tensor:
    """Sample by inverting the cumulative distribution; a token of probability 0 is never chosen.

    Args:
        probabilities: [N, V], rows sum to about 1.
        u: [N], in [0, 1).

    Returns:
        long [N].
    """
    cdf = probabilities.double().cumsum(-1)
    # Scaling by the true total keeps u inside the table when rounding left the total below 1.
    target = u.to(cdf.device) * cdf[:, -1]
    # Probabilities that are no numbers have no place in the table: the last token is taken, with a log-prob of NaN.
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0].clamp(max=cdf.shape[-1] - 1)


def token_logprobs(logits: Tensor, banned_ids: Sequence[int], temperature: float) -> Tensor:
    """Log-probabilities at a temperature, with banned tokens at -inf: the distribution that is trained.

    At least in float32.

    Args:
        logits: [..., V]. temperature: 0 (greedy) reads as 1.
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / (temperature or 1.0)
    scaled[..., list(banned_ids)] = -torch.inf
    return scaled.log_softmax(-1)


def truncated(logprobs: Tensor, top_p: float, top_k: int) -> Tensor:
    """What top-k and then top-p leave of a distribution, renormalised; the most probable token always stays.

    Ties at the edge are cut by token number. top_p = 1 and top_k = 0 leave it as it is.

    Args:
        logprobs: [N, V], rows sum to 1 in probability.
        top_p: keep the fewest tokens whose probabilities (among those that top-k left) reach this sum, in (0, 1].
        top_k: keep this many; 0 keeps all.

    Returns:
        [N, V], -inf where cut.

    Raises:
        ValueError: top_p outside (0, 1], top_k below 0.
    """
    if not 0 < top_p <= 1 or top_k < 0:
        raise ValueError(f"expected 0 < top_p <= 1 and top_k >= 0, got {top_p} and {top_k}")
    if top_p == 1 and top_k == 0:
        return logprobs
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    if top_k:
        ordered[..., top_k:] = -torch.inf
    p = ordered.double().softmax(-1)
    ordered[p.cumsum(-1) - p >= top_p] = -torch.inf
    return torch.empty_like(logprobs).scatter_(-1, order, ordered).log_softmax(-1)
