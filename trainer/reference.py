"""The reference: the policy that a run started from, whose log-probabilities the KL penalty compares with."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainer import adapters
from trainer.config import RunConfig
from trainer.packing import Packed
from trainer.policy import Policy, load_policy
from trainer.pools import LiveRow


class Reference(Protocol):
    """Who is asked how likely the start found a response."""

    def logprobs(self, packed: Packed, rows: Sequence[LiveRow], temperature: float) -> Tensor:
        """Log-probabilities [R] of a packed batch of these rows, without gradient."""
        ...


class FrozenCopy:
    """A second copy of the policy in memory, which never learns.

    Args:
        shares_vision: the trained policy's vision tower is frozen too, so the features of its rows are this one's.
    """

    def __init__(self, policy: Policy, *, shares_vision: bool) -> None:
        self.policy, self.shares_vision = policy, shares_vision
        policy.model.requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, packed: Packed, rows: Sequence[LiveRow], temperature: float) -> Tensor:
        """See `Reference`."""
        shared = self.shares_vision
        features = [r.features for r in rows] if shared else self.policy.encode([r.row.prompt for r in rows])
        return self.policy.logprobs(packed, features, temperature)


class BelowAdapters(FrozenCopy):
    """The trained policy itself with its adapters switched off: no second copy."""

    def __init__(self, policy: Policy, *, shares_vision: bool) -> None:
        self.policy, self.shares_vision = policy, shares_vision

    @torch.no_grad()
    def logprobs(self, packed: Packed, rows: Sequence[LiveRow], temperature: float) -> Tensor:
        """See `Reference`."""
        with adapters.disabled(self.policy.model):
            return super().logprobs(packed, rows, temperature)


def reference_of(config: RunConfig, policy: Policy) -> Reference | None:
    """The reference that a run needs; None when it has no KL penalty.

    A copy is read from `config.policy` again, so a resumed run compares with the same weights as before.
    """
    if not config.kl:
        return None
    if config.lora_rank:
        return BelowAdapters(policy, shares_vision=config.freeze_vision)
    return FrozenCopy(load_policy(config.policy, str(policy.device)), shares_vision=config.freeze_vision)
