"""Pools: what was drawn for the samples of a step, which of it is trained on, and the rows that carry gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pipeline.groups import is_dead
from pipeline.rewards import Reward
from trainer.families import Prompt, VisionFeatures
from trainer.packing import Row, Segment
from trainer.rollout import Sampled
from trainer.stream import Group
from trainer.subset import max_variance_subset


@dataclass(frozen=True)
class Drawn:
    """A view as the policy saw it, what it answered (G responses), and what each answer earned."""

    prompt: Prompt
    features: VisionFeatures
    responses: Sequence[Sampled]
    scores: Sequence[Reward]

    @property
    def rewards(self) -> list[float]:
        """What is optimised: the total of each score."""
        return [score.total for score in self.scores]

    def only(self, places: Sequence[int]) -> Self:
        """The view with some of its responses."""
        return replace(self, responses=[self.responses[i] for i in places], scores=[self.scores[i] for i in places])


@dataclass(frozen=True)
class Pool:
    """All that was drawn for one sample.

    Attributes:
        group: the sample and its views. views: those that have responses, in the order of the group.
        first: the view drawn on first: the anchor when the group has several; a subset may have left it no response.
    """

    group: Group
    views: Sequence[Drawn]
    first: Drawn

    @property
    def rewards(self) -> list[list[float]]:
        """Rewards, view by view."""
        return [view.rewards for view in self.views]

    @property
    def dead(self) -> bool:
        """Whether all of its rewards are equal."""
        return is_dead([reward for view in self.views for reward in view.rewards])

    def joined(self, other: "Pool") -> "Pool":
        """Both draws on the same sample, this one's views first."""
        return replace(self, views=[*self.views, *other.views])

    @staticmethod
    def filled(pools: Sequence["Pool"], fresh: Sequence["Pool"]) -> list["Pool"]:
        """The pools with fresh ones in the places of the dead; dead ones beyond go, fresh ones beyond are added."""
        left = iter(fresh)
        kept = [next(left, None) if pool.dead else pool for pool in pools]
        return [*(pool for pool in kept if pool is not None), *left]

    def subset(self, size: int, seed: int) -> "Pool":
        """Its `size` rollouts of greatest variance (`max_variance_subset`); views without any of them are left out."""
        kept = set(max_variance_subset([r for view in self.views for r in view.rewards], size, seed))
        views, start = [], 0
        for view in self.views:
            places = [i for i in range(len(view.rewards)) if start + i in kept]
            start += len(view.rewards)
            if places:
                views.append(view.only(places))
        return replace(self, views=views)


def waves(views: int, responses: int) -> tuple[list[int], list[int]]:
    """How a pool of views x responses rollouts is drawn in two waves.

    Returns:
        (responses of each view in the first wave, in the second): half of the pool, rounded down, on the first view;
        what is left as evenly as possible on the others.
    """
    total = views * responses
    first = total // 2
    each, more = divmod(total - first, views - 1)
    return [first, *[0] * (views - 1)], [0, *[each + (place < more) for place in range(views - 1)]]


@dataclass(frozen=True)
class LiveRow:
    """A prompt with responses of a live pool behind it, and their advantages [G].

    old_logprobs: the rollouts' own, one [T] a response. None: the update computes them, because the responses were
    drawn on other views than the prompt's.
    """

    row: Row
    advantages: Tensor
    old_logprobs: Sequence[Tensor] | None
    features: VisionFeatures

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(segment.tokens) for segment in self.row.segments]


def live_rows(
    prompts: Sequence[Prompt],
    features: Sequence[VisionFeatures],
    sampled: Sequence[Sequence[Sampled]],
    advantages: Sequence[Sequence[Tensor] | Tensor],
) -> list[LiveRow]:
    """The rows that carry gradient: pools whose advantages are all 0 are dropped before any log-prob is computed.

    Args:
        prompts, features, sampled: an entry a view, pool after pool. advantages: of each pool, [G] for each view.
    """
    flat = [(a, any(bool(view.any()) for view in pool)) for pool in advantages for a in pool]
    return [
        LiveRow(Row(p, [Segment(s.tokens) for s in group]), a, [s.logprobs for s in group], f)
        for p, f, group, (a, alive) in zip(prompts, features, sampled, flat, strict=True)
        if alive
    ]


def rows_on_own_views(pools: Sequence[Pool], advantages: Sequence[Sequence[Tensor]]) -> list[LiveRow]:
    """`live_rows` of pools: the update sees each response behind the view that it was drawn on."""
    views = [view for pool in pools for view in pool.views]
    return live_rows([v.prompt for v in views], [v.features for v in views], [v.responses for v in views], advantages)


def rows_on_anchors(pools: Sequence[Pool], advantages: Sequence[Sequence[Tensor]]) -> list[LiveRow]:
    """One row a live pool: all of its responses behind its anchor, whatever view each was drawn on.

    NoisyRollout (arXiv 2504.13055): variants widen what is tried, the policy learns it from the plain view.
    """
    rows = []
    for pool, each in zip(pools, advantages, strict=True):
        joined = torch.cat(list(each))
        if joined.any():
            segments = [Segment(s.tokens) for view in pool.views for s in view.responses]
            rows.append(LiveRow(Row(pool.first.prompt, segments), joined, None, pool.first.features))
    return rows


def old_logprobs(rows: Sequence[LiveRow], logp: Tensor) -> Tensor:
    """Log-probs [R] of the policy that drew the responses; of rows drawn on other views, the present ones, detached."""
    place, parts = 0, []
    for row in rows:
        n = sum(row.lengths)
        own = row.old_logprobs
        parts.append(logp[place : place + n].detach() if own is None else torch.cat(list(own)).to(logp.device))
        place += n
    return torch.cat(parts)
