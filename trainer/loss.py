"""The clipped policy loss, token by token, and what is logged of it.

Shape suffixes: T tokens of one or more responses, one behind the other. Log-probabilities are natural logarithms.
"""

import torch
from torch import Tensor

CLIP_LOW = 0.2
CLIP_HIGH = 0.28


def ppo_clip(
    logp_T: Tensor, old_logp_T: Tensor, advantages_T: Tensor, clip_low: float = CLIP_LOW, clip_high: float = CLIP_HIGH
) -> Tensor:
    """The loss of each token: -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A), ratio = exp(new - old).

    PPO (arXiv 1707.06347) with the wider upper bound of DAPO (arXiv 2503.14476). Gradient flows through `logp_T` only.

    Args:
        logp_T: log-probability of each sampled token under the policy that is trained.
        old_logp_T: the same under the policy that sampled it.
        advantages_T: the advantage of the response that each token belongs to.
        clip_low, clip_high: how far the ratio may fall below or rise above 1 before its gradient stops.

    Returns:
        [T], in the dtype of `logp_T`.
    """
    ratio_T = torch.exp(logp_T - old_logp_T.detach())
    advantages_T = advantages_T.detach().to(logp_T.dtype)
    clipped_T = ratio_T.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)


def token_mean(loss_T: Tensor, live_tokens: int) -> Tensor:
    """The part of the step's loss that these tokens bring: their sum over the live tokens of the WHOLE step.

    Every token of a step weighs the same, however the responses are cut into micro-batches: the parts of all
    micro-batches add up to the mean over all live response tokens, and so do their gradients.

    Args:
        loss_T: per-token losses of one micro-batch.
        live_tokens: response tokens of all live (not dead) pools in the step.

    Raises:
        ValueError: the step has no live token, so it has no loss.
    """
    if live_tokens < 1:
        raise ValueError(f"a step needs at least one live token, got {live_tokens}")
    return loss_T.sum() / live_tokens


@torch.no_grad()
def clip_fraction(
    logp_T: Tensor, old_logp_T: Tensor, advantages_T: Tensor, clip_low: float = CLIP_LOW, clip_high: float = CLIP_HIGH
) -> float:
    """Share of tokens, 0..1, whose gradient the clipping stops; 0 for no tokens. Arguments as in `ppo_clip`."""
    if logp_T.numel() == 0:
        return 0.0
    ratio_T = torch.exp(logp_T - old_logp_T)
    above_T = (ratio_T > 1.0 + clip_high) & (advantages_T > 0)
    below_T = (ratio_T < 1.0 - clip_low) & (advantages_T < 0)
    return (above_T | below_T).double().mean().item()


@torch.no_grad()
def approx_kl(logp_T: Tensor, old_logp_T: Tensor) -> float:
    """KL(old || new) in nats a token, estimated on tokens that `old` sampled; 0 for no tokens.

    The mean of (ratio - 1) - log(ratio): unbiased and never negative (http://joschu.net/blog/kl-approx.html). It is
    only logged.
    """
    if logp_T.numel() == 0:
        return 0.0
    log_ratio_T = (logp_T - old_logp_T).double()
    return (torch.expm1(log_ratio_T) - log_ratio_T).mean().item()
