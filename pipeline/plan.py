"""What a selection is asked for, and what it came to."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.runner import Report

MODES = ("cut", "weight")
VIEWS = ("anchor", "variants")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Plan:
    """What to select, and from what.

    Attributes:
        name: of the curated dataset. tag: of this version; by default one that follows from the content.
        source, split: only samples of this source or split.
        exclude: "leaks", "duplicates" or both: leave out what those commands found, before the policy is asked.
        views: "anchor", or "variants": the draws are dealt to all views in turn.
        draws: K, at most. blind_draws, one_frame_draws: probes without frames and with one; 0 asks none.
        per_source, max_samples: budgets, spent on samples whose videos differ. scorer: whose embeddings tell.
        mode: "cut" leaves samples out by their variance, "weight" keeps them with a weight that grows with it.
        seed: of the choice under a budget.
    """

    name: str = "default"
    tag: str | None = None
    source: str | None = None
    split: str | None = None
    exclude: Sequence[str] = ()
    views: str = "anchor"
    draws: int = 8
    blind_draws: int = 0
    one_frame_draws: int = 0
    per_source: int | None = None
    max_samples: int | None = None
    scorer: str | None = None
    mode: str = "cut"
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--draws", self.draws, 1),
            ("--blind-draws", self.blind_draws, 0),
            ("--one-frame-draws", self.one_frame_draws, 0),
            ("--per-source", self.per_source, 1),
            ("--max-samples", self.max_samples, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{option} {value}", f"{least} or more", "strive-data select --help")
        for option, chosen, known in (("--views", self.views, VIEWS), ("--mode", self.mode, MODES)):
            if chosen not in known:
                raise UserError(f"{option} {chosen}", f"one of {', '.join(known)}", "strive-data select --help")
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise UserError(f"--tag {self.tag}", "letters, digits, dots, dashes and underscores", "choose another tag")

    def options(self) -> str:
        """What shapes the pool and the choice, as JSON."""
        names = ("source", "split", "exclude", "per_source", "max_samples", "scorer", "mode", "seed")
        return json.dumps({name: getattr(self, name) for name in names})


@dataclass
class SelectReport:
    """What a selection came to, in samples. `per_task` has pool, kept and every reason for each task.

    `rule` is the rule in force, in one line; `calls` counts the draws that the verdicts stand on, `calls_planned` those
    that fixed drawing would have made for the same samples, `drawn_now` those of this run.
    """

    name: str
    tag: str
    version: int
    path: str
    card: str
    pool: int
    kept: int
    dropped: dict[str, int]
    per_task: dict[str, dict[str, int]]
    rule: str
    views: str
    draws: int
    policy: str
    reward_mean: float
    reward_var: float
    calls: int
    calls_planned: int
    drawn_now: int
    rollouts: list[Report] = field(repr=False)

    @property
    def calls_saved(self) -> float:
        """Share of the planned draws that were not needed."""
        return 1.0 - self.calls / self.calls_planned if self.calls_planned else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "calls_saved": self.calls_saved,
            "rollouts": [report.as_dict() for report in self.rollouts],
        }
