"""What is run: arms, seeds and tables of the evidence, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from toyworld.reproduce.annotations import MIXED_UP, WRONG
from toyworld.reproduce.start import NOISE, TAUGHT


@dataclass(frozen=True)
class Scale:
    """What decides how long it takes. All arms have the same rollouts and steps.

    Attributes:
        clips, test_clips: of the toy world, five questions each. groups: samples a step. pool: rollouts a sample.
        seeds: runs of every arm; beyond_seeds: of the recipes beyond the papers, and of the arms of `more`;
            screen_seeds: of recipes that are only screened.
        taught: lessons of the start policy; 0: the shipped policy with noise. noise: of the policy that the arms of
            rewards, and on wrong annotations, start from. draws: of the selections.
        wrong, mixed_up: shares of the annotations of WRONG_STORE and MIXED_STORE that are wrong.
    """

    clips: int = 300
    test_clips: int = 120
    steps: int = 80
    groups: int = 8
    pool: int = 32
    seeds: int = 3
    beyond_seeds: int = 5
    screen_seeds: int = 2
    taught: int = TAUGHT
    noise: float = NOISE
    wrong: float = WRONG
    mixed_up: float = MIXED_UP
    lr: float = 1e-4
    temperature: float = 1.0
    max_tokens: int = 32
    draws: int = 16

    def world(self) -> dict[str, Any]:
        """All of it but the numbers of seeds: more of them add to what was done, the rest makes it another thing."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("seeds")}


FULL = Scale()
TINY = Scale(
    clips=8,
    test_clips=2,
    steps=2,
    groups=1,
    pool=16,
    seeds=1,
    beyond_seeds=1,
    screen_seeds=1,
    taught=0,
    noise=0.1,
    draws=4,
)
"""So small that it shows nothing: what the tests run."""

MIN_VAR = 0.1

# Stores: of the toy world; of the same clips, some annotated wrongly; most with what belongs to other questions.
STORE, WRONG_STORE, MIXED_STORE = "store", "wrong-store", "mixed-store"

# Curated datasets. What is drawn at random has a version for each seed, with the tag "seed<n>".
SELECTED, POOL, RANDOM = "selected", "all", "random"
SHIFTED_POOL, SHIFTED, SPATIAL, GROUNDED = "phase-shifts-all", "phase-shifts", "spatial-only", "grounded-choice"
WEIGHTED = "weighted"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: of its run folders, `<name>-<seed>`. title: in tables.
        dataset: curated dataset. views: M; the pool is dealt evenly to them.
        times: so many times the samples a step, and pools that are as much smaller.
        settings: of `strive-train run`, beyond what all arms share. sft: imitation instead.
        half: updated on the half of the pool that differs most. store: whose samples.
        screened, more: with fewer or more seeds than others. blurred: from the policy with noise.
    """

    name: str
    title: str
    dataset: str = SELECTED
    views: int = 4
    times: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    sft: bool = False
    half: bool = False
    store: str = STORE
    screened: bool = False
    more: bool = False
    blurred: bool = False

    def tag(self, seed: int) -> str | None:
        """The version of its dataset; None is the newest."""
        return f"seed{seed}" if self.dataset == RANDOM else None


ANCHOR, IMPORTANCE, STRIVE = "grpo-anchor", "grpo-importance", "strive"
UNIFORM, SPACE, SFT = "strive-phase-shifts", "strive-spatial", "sft"
WRONG_SELECTED, WRONG_RANDOM = "wrong-selected", "wrong-random"
MIXED_SELECTED, MIXED_RANDOM = "mixed-selected", "mixed-random"
_ONE = {"view": "importance"}

ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(ANCHOR, "GRPO, anchor", views=1, settings={"view": "anchor"}),
        Arm(IMPORTANCE, "GRPO, one importance view", views=1, settings=_ONE),
        Arm(STRIVE, "STRIVE"),
        Arm("random", "random, of the same size", RANDOM, 1, settings=_ONE),
        Arm(UNIFORM, "STRIVE without importance (phase shifts)", SHIFTED),
        Arm(SPACE, "STRIVE, spatial views only", SPATIAL),
        Arm(SFT, "SFT on the same samples", views=1, sft=True),
        Arm("all", "all", POOL, 1, settings=_ONE),
        Arm(MIXED_SELECTED, "variance-selected", views=1, settings=_ONE, store=MIXED_STORE, more=True),
        Arm(MIXED_RANDOM, "random, of the same size", RANDOM, 1, settings=_ONE, store=MIXED_STORE, more=True),
        Arm(WRONG_SELECTED, "variance-selected", views=1, settings=_ONE, store=WRONG_STORE, blurred=True),
        Arm(WRONG_RANDOM, "random, of the same size", RANDOM, 1, settings=_ONE, store=WRONG_STORE, blurred=True),
        Arm("reward-answer", "answer only", GROUNDED, settings={"reward": "accuracy=1,iou=0"}, blurred=True),
        Arm("reward-iou", "temporal IoU only", GROUNDED, settings={"reward": "accuracy=0,iou=1"}, blurred=True),
        Arm("reward-dual", "dual", GROUNDED, blurred=True),
        Arm("per-view", "per-view", settings={"advantage": "per-view"}),
        Arm("hierarchical", "hierarchical", settings={"advantage": "hierarchical"}),
    )
}

SMALL, SMALL_GRPO = "small-pools", "small-pools-importance"

BEYOND: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        ARMS[ANCHOR],
        ARMS[IMPORTANCE],
        ARMS[STRIVE],
        Arm(SMALL, "STRIVE, four times the samples, pools a quarter as large", times=4),
        Arm(
            SMALL_GRPO,
            "GRPO, one importance view, four times the samples, pools a quarter as large",
            views=1,
            times=4,
            settings=_ONE,
        ),
        Arm("weighted", "STRIVE on all samples, drawn by their variance", WEIGHTED, screened=True),
        Arm("two-wave", "two waves", settings={"two_wave": True}, screened=True),
        Arm("anchor-update", "update on the anchor", settings={"update_on": "anchor"}, screened=True),
        Arm("subset", "best half of the pool (PODS)", half=True, screened=True),
        Arm("no-scale", "differences not divided", settings={"scale": "none"}, screened=True),
    )
}
"""Recipes that are to beat both controls, the first two. One of them is a control of its own: it says whether small
pools pay because of the views or because of the samples."""


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
    Table("Selection", IMPORTANCE, ("random", "all", IMPORTANCE), names={IMPORTANCE: "variance-selected"}),
    Table("Selection among wrong annotations", WRONG_SELECTED, (WRONG_RANDOM, WRONG_SELECTED)),
    Table("Selection where most is wrong", MIXED_SELECTED, (MIXED_RANDOM, MIXED_SELECTED)),
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
        shared |= {"groups": scale.groups * self.arm.times, "seed": self.seed}
        if self.arm.sft:
            return shared
        shared |= {"variants": self.arm.views, "responses": scale.pool // (self.arm.views * self.arm.times)}
        shared |= {"temperature": scale.temperature, "max_tokens": scale.max_tokens}
        if self.arm.half:
            shared["train_subset"] = scale.pool // 2
        return shared | dict(self.arm.settings)


def runs_of(scale: Scale, beyond: bool) -> list[Run]:
    """All runs, the first seed of every arm first, so that an early look shows something of everything."""
    arms = (BEYOND if beyond else ARMS).values()
    seeds = {arm.name: scale.beyond_seeds if beyond or arm.more else scale.seeds for arm in arms}
    seeds |= {arm.name: min(scale.beyond_seeds, scale.screen_seeds) for arm in arms if arm.screened}
    return [Run(arm, seed) for seed in range(max(seeds.values())) for arm in arms if seed < seeds[arm.name]]
