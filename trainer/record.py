"""What is kept of a step: its row of metrics.jsonl, and everything it was computed from when it breaks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.rewards import Reward
from trainer.metrics import pool_metrics
from trainer.pools import Pool
from trainer.rollout import Sampled

PARTS = ("accuracy", "credit", "iou", "format")


@dataclass(frozen=True)
class Tally:
    """What the figures of a step need of a pool, small enough to be sent to the other processes of a run.

    Attributes:
        scores: of each view's responses. lengths: tokens of each response. cut: how many were cut off.
    """

    scores: Sequence[Sequence[Reward]]
    lengths: Sequence[int]
    cut: int


def tally(pool: Pool, cut: Callable[[Sampled], bool]) -> Tally:
    """The tally of a pool. `cut`: whether a response was cut off before its end."""
    drawn = [s for view in pool.views for s in view.responses]
    return Tally([list(view.scores) for view in pool.views], [len(s.tokens) for s in drawn], sum(map(cut, drawn)))


def step_metrics(
    pools: Sequence[Tally], update: Mapping[str, float | None], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """A row of metrics.jsonl: STRIVE's three curves (reward std, dead groups, gradient norm) and what explains them.

    Args:
        pools: all that were drawn, also those that were replaced. update: of `Trainer.update`. seconds: by phase.

    Returns:
        the figures of `pool_metrics` and `update`; rollouts, tokens; parts: mean of each reward part over the responses
        that have it; lengths: mean and max tokens, and cut, the share cut off; seconds.
    """
    lengths = [length for pool in pools for length in pool.lengths]
    scores = [view for pool in pools for view in pool.scores]
    return {
        **pool_metrics([[[score.total for score in view] for view in pool.scores] for pool in pools]),
        **update,
        "rollouts": len(lengths),
        "tokens": sum(lengths),
        "parts": reward_parts([score for view in scores for score in view]),
        "lengths": {
            "mean": sum(lengths) / len(lengths),
            "max": max(lengths),
            "cut": sum(pool.cut for pool in pools) / len(lengths),
        },
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }


def reward_parts(scores: Sequence[Reward]) -> dict[str, float]:
    """The mean of each reward part over the responses that have it; parts that none has are left out."""
    found = {name: [value for score in scores if (value := getattr(score, name)) is not None] for name in PARTS}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def describe_batch(
    pools: Sequence[Pool], advantages: Sequence[Sequence[Tensor]], text: Callable[[Sampled], str]
) -> list[dict[str, Any]]:
    """What a step was computed from, JSON-like: samples, views, responses with their rewards and advantages."""
    return [
        {
            "sample_id": pool.group.sample["sample_id"],
            "question": pool.group.sample["question"],
            "answer": pool.group.sample["answer"],
            "variants": list(pool.group.variants),
            "views": [
                [
                    {"text": text(s), "tokens": len(s.tokens), "logprob": str(float(s.logprobs.sum())), "reward": r}
                    | {"advantage": float(a)}
                    for s, r, a in zip(view.responses, view.rewards, by_view, strict=True)
                ]
                for view, by_view in zip(pool.views, each, strict=True)
            ],
        }
        for pool, each in zip(pools, advantages, strict=True)
    ]
