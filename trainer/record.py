"""What is kept of a step: its row of metrics.jsonl, and everything it was computed from when it breaks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from pipeline.rewards import Reward
from trainer.metrics import pool_metrics
from trainer.pools import Pool
from trainer.rollout import Sampled

PARTS = ("accuracy", "credit", "iou", "format")


def step_metrics(
    pools: Sequence[Pool],
    update: Mapping[str, float | None],
    seconds: Mapping[str, float],
    cut: Callable[[Sampled], bool],
) -> dict[str, Any]:
    """A row of metrics.jsonl: STRIVE's three curves (reward std, dead groups, gradient norm) and what explains them.

    Args:
        pools: all that were drawn, also those that were replaced. update: of `Trainer.update`. seconds: by phase.
        cut: whether a response was cut off before its end.

    Returns:
        the figures of `pool_metrics` and `update`; rollouts, tokens; parts: mean of each reward part over the responses
        that have it; lengths: mean and max tokens, and cut, the share cut off; seconds.
    """
    drawn = [s for pool in pools for view in pool.views for s in view.responses]
    lengths = [len(s.tokens) for s in drawn]
    return {
        **pool_metrics([pool.rewards for pool in pools]),
        **update,
        "rollouts": len(lengths),
        "tokens": sum(lengths),
        "parts": reward_parts([score for pool in pools for view in pool.views for score in view.scores]),
        "lengths": {
            "mean": sum(lengths) / len(lengths),
            "max": max(lengths),
            "cut": sum(map(cut, drawn)) / len(lengths),
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
