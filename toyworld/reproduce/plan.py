"""What is run: arms, seeds and tables of the evidence, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toyworld.reproduce.start import NOISE


@dataclass(frozen=True)
class Scale:
    """What decides how long it takes. All arms have the same rollouts and steps.

    Attributes:
        clips, test_clips: of the toy world, five questions each. groups: samples a step. pool: rollouts a sample.
        seeds: runs of every arm; beyond_seeds: of the recipes that are looked for beyond the papers.
        noise: of the start policy. draws: of the selection.
    """

    clips: int = 300
    test_clips: int = 120
    steps: int = 60
    groups: int = 8
    pool: int = 16
    seeds: int = 3
    beyond_seeds: int = 5
    noise: float = NOISE
    lr: float = 1e-4
    temperature: float = 0.8
    max_tokens: int = 32
    draws: int = 8


FULL = Scale()
TINY = Scale(clips=8, test_clips=2, steps=2, groups=2, pool=8, seeds=1, beyond_seeds=1, noise=0.1, draws=4)
"""So small that it shows nothing: what the tests run."""

MIN_VAR = 0.1

# Curated datasets. What is drawn at random has a version for each seed, with the tag "seed<n>".
SELECTED, POOL, RANDOM = "selected", "all", "random"
SHIFTED, SPATIAL, GROUNDED = "phase-shifts", "spatial-only", "grounded-choice"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: of its run folders, `<name>-<seed>`. title: in tables.
        dataset: curated dataset. views: M; the pool is dealt evenly to them.
        settings: of `strive-train run`, beyond what all arms share. sft: imitation instead.
    """

    name: str
    title: str
    dataset: str = SELECTED
    views: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)
    sft: bool = False

    def tag(self, seed: int) -> str | None:
        """The version of its dataset; None is the newest."""
        return f"seed{seed}" if self.dataset == RANDOM else None


ANCHOR, IMPORTANCE, STRIVE = "grpo-anchor", "grpo-importance", "strive"
UNIFORM, SPACE, SFT = "strive-phase-shifts", "strive-spatial", "sft"

ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(ANCHOR, "GRPO, anchor", views=1, settings={"view": "anchor"}),
        Arm(IMPORTANCE, "GRPO, one importance view", views=1, settings={"view": "importance"}),
        Arm(STRIVE, "STRIVE"),
        Arm(UNIFORM, "STRIVE without importance (phase shifts)", SHIFTED),
        Arm(SPACE, "STRIVE, spatial views only", SPATIAL),
        Arm(SFT, "SFT on the same samples", views=1, sft=True),
        Arm("random", "random, of the same size", RANDOM, 1, {"view": "anchor"}),
        Arm("all", "all", POOL, 1, {"view": "anchor"}),
        Arm("reward-answer", "answer only", GROUNDED, settings={"reward": "accuracy=1,iou=0"}),
        Arm("reward-iou", "temporal IoU only", GROUNDED, settings={"reward": "accuracy=0,iou=1"}),
        Arm("reward-dual", "dual", GROUNDED),
        Arm("per-view", "per-view", settings={"advantage": "per-view"}),
        Arm("hierarchical", "hierarchical", settings={"advantage": "hierarchical"}),
    )
}

BEYOND: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        ARMS[ANCHOR],
        ARMS[IMPORTANCE],
        ARMS[STRIVE],
    )
}
"""Recipes that are to beat both controls."""


TRAINING = ("reward_std", "dead_group_share", "between_share", "grad_norm_cv")
VIEWS = ("accuracy_importance", "accuracy_anchor")


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        subject: the arm that is compared with each of the others. arms: it and the others.
        measures: columns. names: what arms are called here, where it is not their title.
    """

    title: str
    subject: str
    arms: Sequence[str]
    measures: Sequence[str] = (*TRAINING, *VIEWS, "miou_importance")
    names: Mapping[str, str] = field(default_factory=dict)

    def title_of(self, arm: str) -> str:
        """What an arm is called here."""
        return self.names.get(arm, {**BEYOND, **ARMS}[arm].title)


TABLES = (
    Table("Arms", STRIVE, (ANCHOR, IMPORTANCE, STRIVE, UNIFORM, SPACE, SFT)),
    Table("Selection", ANCHOR, ("random", "all", ANCHOR), names={ANCHOR: "variance-selected"}),
    Table(
        "Reward, on grounded choice",
        "reward-dual",
        ("reward-answer", "reward-iou", "reward-dual"),
        (*TRAINING, "accuracy_grounded", "miou_grounded", *VIEWS),
    ),
    Table("Advantage", STRIVE, (STRIVE, "per-view", "hierarchical"), names={STRIVE: "joint"}),
)
CONTROLS = (ANCHOR, IMPORTANCE)


@dataclass(frozen=True)
class Run:
    """One training run: an arm with a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm.name}-{self.seed}"

    def settings(self, scale: Scale) -> dict[str, Any]:
        """All settings that are not the defaults, but for store, policy and out."""
        shared = {"dataset": self.arm.dataset, "tag": self.arm.tag(self.seed), "steps": scale.steps, "lr": scale.lr}
        shared |= {"groups": scale.groups, "seed": self.seed}
        if self.arm.sft:
            return shared
        shared |= {"variants": self.arm.views, "responses": scale.pool // self.arm.views}
        shared |= {"temperature": scale.temperature, "max_tokens": scale.max_tokens}
        return shared | dict(self.arm.settings)


def runs_of(scale: Scale, beyond: bool) -> list[Run]:
    """All runs, the first seed of every arm first, so that an early look shows something of everything."""
    arms, seeds = (BEYOND, scale.beyond_seeds) if beyond else (ARMS, scale.seeds)
    return [Run(arm, seed) for seed in range(seeds) for arm in arms.values()]
