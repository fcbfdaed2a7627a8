"""One graded response: what was asked of which benchmark, what came, and what it earned by the reward functions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.parsing import parse_answer
from pipeline.readers import Span
from pipeline.rewards import DEFAULT_RULE, Reward, RewardRule, score
from pipeline.sources.draft import GROUNDED


@dataclass(frozen=True)
class Graded:
    """One scored response.

    Attributes:
        task: of the sample. view: that the policy saw (anchor, importance or blind). reward: its parts.
        sample_id, dataset, source, video_id: of the sample. origin: its original row.
        span: that the response names, seconds; None where it names none. truth: the sample's true spans.
        failure: why there is no response; empty when there is one.
    """

    task: str
    view: str
    reward: Reward
    sample_id: str = ""
    dataset: str = ""
    source: str = ""
    video_id: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    span: Span | None = None
    truth: tuple[Span, ...] = ()
    failure: str = ""


def is_withheld(row: Mapping[str, Any]) -> bool:
    """Whether a prediction has no truth to be graded by: a choice without its letter, an open question without text."""
    return row["task"] != "grounding" and not row["answer"]


def grade(row: Mapping[str, Any], rule: RewardRule = DEFAULT_RULE) -> Graded:
    """Grade one row of a predictions file. A failed one counts as an empty response: wrong, and unparseable.

    Args:
        row: as `trainer.predictions` writes it; its truth is not withheld.

    Raises:
        ValueError: the sample itself cannot be scored (`pipeline.rewards.score`).
    """
    text, options = row["response"] or "", row["options"]
    reward = score(text, row["task"], options, row["answer"], row["spans"], row["duration_s"], rule)
    grounded = row["task"] in GROUNDED
    return Graded(
        task=row["task"],
        view=row["view"],
        reward=reward,
        sample_id=row["sample_id"],
        dataset=row["dataset"],
        source=row["source"],
        video_id=row["video_id"],
        origin=json.loads(row["origin"] or "{}"),
        span=parse_answer(text, row["task"], options).span if grounded else None,
        truth=tuple((float(start), float(end)) for start, end in row["spans"]),
        failure=row["failure"],
    )
