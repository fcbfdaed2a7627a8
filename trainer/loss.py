"""The clipped policy loss, token by token, how it is averaged, and what is logged of it.

Shape suffixes: T tokens of one or more responses, one behind the other; R responses. Log-probabilities are natural
logarithms. `owners_T` says whose token it is, by the number of the response.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CLIP_LOW = 0.2
CLIP_HIGH = 0.28

Level = Literal["token", "sequence", "constant"]
Ratio = Literal["token", "sequence"]


@dataclass(frozen=True)
class Size:
    """What the averages of a step run over: its live (not dead) response tokens and responses, in ALL micro-batches."""

    tokens: int
    responses: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.responses < 1:
            raise ValueError(f"a step needs at least one live token, got {self.tokens} in {self.responses} responses")


@dataclass(frozen=True)
class Objective:
    """Which loss a run minimises.

    Attributes:
        clip_low, clip_high: see `ppo_clip`. level, longest: see `reduced`. ratio: see `log_ratios`.
        kl: weight of `k3_T`, the penalty for leaving the reference; 0 needs none.
    """

    clip_low: float = CLIP_LOW
    clip_high: float = CLIP_HIGH
    level: Level = "token"
    ratio: Ratio = "token"
    kl: float = 0.0
    longest: int = 1

    def loss(
        self,
        logp_T: Tensor,
        old_logp_T: Tensor,
        advantages_T: Tensor,
        owners_T: Tensor,
        size: Size,
        reference_logp_T: Tensor | None = None,
    ) -> Tensor:
        """The part of the step's loss that a micro-batch of whole responses brings; all parts add up to the loss.

        Args:
            logp_T, old_logp_T, advantages_T: see `ppo_clip`. owners_T: long [T], ascending from any number.
            size: of the whole step. reference_logp_T: the tokens' log-probabilities under the reference, with kl.

        Returns:
            A scalar with gradient.
        """
        if self.ratio == "sequence":
            shift_T = log_ratios(logp_T, old_logp_T, owners_T)
            loss_T = ppo_clip(shift_T, torch.zeros_like(shift_T), advantages_T, self.clip_low, self.clip_high)
        else:
            loss_T = ppo_clip(logp_T, old_logp_T, advantages_T, self.clip_low, self.clip_high)
        if reference_logp_T is not None:
            loss_T = loss_T + self.kl * k3(logp_T, reference_logp_T)
        return reduced(loss_T, owners_T, size, self.level, self.longest)

    def clipped(self, logp_T: Tensor, old_logp_T: Tensor, advantages_T: Tensor, owners_T: Tensor) -> float:
        """`clip_fraction` by the ratio that this objective clips."""
        if self.ratio == "sequence" and logp_T.numel():
            shift_T = log_ratios(logp_T, old_logp_T, owners_T)
            return clip_fraction(shift_T, torch.zeros_like(shift_T), advantages_T, self.clip_low, self.clip_high)
        return clip_fraction(logp_T, old_logp_T, advantages_T, self.clip_low, self.clip_high)


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


def log_ratios(logp_T: Tensor, old_logp_T: Tensor, owners_T: Tensor) -> Tensor:
    """The mean of (new - old) over the tokens of a response, at each of its tokens: one ratio a response.

    Its exponential is the geometric mean of the tokens' ratios, which GSPO clips (arXiv 2507.18071): rewards are given
    to whole responses, and one rare token must not decide alone whether a response is clipped.
    """
    names, place_T, count_R = owners_T.unique(return_inverse=True, return_counts=True)
    change_T = logp_T - old_logp_T.detach()
    mean_R = change_T.new_zeros(len(names)).index_add(0, place_T, change_T) / count_R
    found_T: Tensor = mean_R[place_T]
    return found_T


def reduced(loss_T: Tensor, owners_T: Tensor, size: Size, level: Level = "token", longest: int = 1) -> Tensor:
    """The part of the step's loss that these tokens bring. Parts of all micro-batches add up, as do their gradients.

    Args:
        loss_T: per-token losses of one micro-batch, which holds responses as wholes.
        level: token, the mean over all tokens of the step (DAPO): a token weighs the same, a long response more.
            sequence, the mean over responses of the mean over their tokens (GRPO, GSPO): a response weighs the same,
            so a token of a long wrong one is punished less. constant, the sum over tokens divided by responses x
            `longest` (Dr. GRPO, arXiv 2503.20783): as token, with a divisor that does not change from step to step.
        longest: the longest response that may be sampled.
    """
    if level == "token":
        return token_mean(loss_T, size.tokens)
    if level == "constant":
        return loss_T.sum() / (size.responses * longest)
    _, place_T, count_R = owners_T.unique(return_inverse=True, return_counts=True)
    total: Tensor = (loss_T / count_R[place_T]).sum()
    return total / size.responses


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


def k3(logp_T: Tensor, other_logp_T: Tensor) -> Tensor:
    """An estimate of KL(new || other) at each token that `new` sampled: exp(other - new) - (other - new) - 1, >= 0.

    Unbiased in value (http://joschu.net/blog/kl-approx.html); as a penalty it is the one of GRPO (arXiv 2402.03300).
    Gradient flows through `logp_T` only.
    """
    change_T = other_logp_T.detach() - logp_T
    return torch.expm1(change_T) - change_T


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

    The mean of (ratio - 1) - log(ratio), which is `k3` with the roles changed. It is only logged.
    """
    if logp_T.numel() == 0:
        return 0.0
    log_ratio_T = (logp_T - old_logp_T).double()
    return (torch.expm1(log_ratio_T) - log_ratio_T).mean().item()
