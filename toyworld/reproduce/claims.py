"""What the papers claim, and whether it holds here: judged by the figures alone. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toyworld.reproduce.bootstrap import Interval
from toyworld.reproduce.figures import ratios, seed_differences
from toyworld.reproduce.plan import (
    ANCHOR,
    IMPORTANCE,
    MIXED_RANDOM,
    MIXED_SELECTED,
    SFT,
    STRIVE,
    UNIFORM,
    WRONG_RANDOM,
    WRONG_SELECTED,
)

STD_RATIO, DEAD_RATIO = 1.15, 0.6
"""What counts as holding, in every seed: reward deviation at least, dead groups at most so many times the control's."""

HOLDS, FAILS = "holds", "does not hold"
_SEEN = "accuracy_importance"
NAMES = {
    "reward_std": "reward std",
    "dead_group_share": "dead groups",
    "between_share": "variance between views",
    "grad_norm_cv": "gradient norm CV",
    "accuracy_importance": "accuracy, importance view",
    "accuracy_anchor": "accuracy, anchor view",
    "miou_importance": "mIoU, importance view",
    "miou_anchor": "mIoU, anchor view",
    "accuracy_grounded": "accuracy, grounded choice",
    "miou_grounded": "mIoU, grounded choice",
}
SHORT = {ANCHOR: "GRPO on the anchor", IMPORTANCE: "GRPO on one importance view"}


@dataclass(frozen=True)
class Claim:
    """One claim, the verdict in a few words, and the figures that it rests on."""

    paper: str
    text: str
    verdict: str
    evidence: str


_CHOSEN = "Selected by variance beats random of the same size"
_COMPARED = (
    ("The dual reward brings more accuracy than the answer alone", "reward-dual", "reward-answer", "accuracy_grounded"),
    ("The dual reward brings better spans than the answer alone", "reward-dual", "reward-answer", "miou_grounded"),
    (f"{_CHOSEN}, where all annotations are right", IMPORTANCE, "random", _SEEN),
    (f"{_CHOSEN}, where some annotations are wrong", WRONG_SELECTED, WRONG_RANDOM, _SEEN),
    (f"{_CHOSEN}, where most annotations are wrong", MIXED_SELECTED, MIXED_RANDOM, _SEEN),
    ("Selected by variance is better than all samples, where all annotations are right", IMPORTANCE, "all", _SEEN),
    ("Reinforcement learning beats SFT on the same samples", STRIVE, SFT, _SEEN),
)
"""Claims of Temporal-RLT that one arm is above one other: the text, both arms, the measure."""


def claims(figures: Mapping[str, Any]) -> list[Claim]:
    """All claims, judged.

    Args:
        figures: `arms` by name (`figures.arm_figures`), and `against`: by table and arm what `differences` found.
    """
    arms = figures["arms"]
    aware = "Question-aware variants bring more accuracy than question-blind ones (phase shifts)"
    return [
        *over_controls(arms),
        _calmer(arms),
        *[
            _more_accurate(figures, f"accuracy_{view}", f"The policy is more accurate on {what}")
            for view, what in (("importance", "importance views"), ("anchor", "anchor views"))
        ],
        _one("STRIVE", figures, aware, STRIVE, UNIFORM, _SEEN),
        _mode(figures),
        *[_one("Temporal-RLT", figures, *compared) for compared in _COMPARED],
    ]


def shown(interval: Interval | Sequence[float]) -> str:
    """A difference with its interval, e.g. "+0.031 (+0.010 to +0.052)"."""
    mean, low, high = (interval.mean, interval.low, interval.high) if isinstance(interval, Interval) else interval
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _against(controls: Mapping[str, bool]) -> str:
    """holds, holds against some, or does not hold."""
    if all(controls.values()):
        return HOLDS
    some = [SHORT[name] for name, ok in controls.items() if ok]
    return f"holds against {' and '.join(some)} only" if some else FAILS


def over_controls(arms: Mapping[str, Any]) -> list[Claim]:
    """What STRIVE says of the rewards of a pool, seed by seed against both controls.

    Args:
        arms: figures of STRIVE and of both controls, with as many seeds.
    """
    return [
        _over_controls(arms, "reward_std", "Rewards of a pool differ more: their standard deviation is higher", True),
        _over_controls(arms, "dead_group_share", "Fewer groups are dead", False),
    ]


def _over_controls(arms: Mapping[str, Any], measure: str, text: str, more: bool) -> Claim:
    verdicts, parts = {}, []
    for control in (ANCHOR, IMPORTANCE):
        found = ratios(arms[STRIVE][measure]["seeds"], arms[control][measure]["seeds"])
        verdicts[control] = all(r >= STD_RATIO if more else r <= DEAD_RATIO for r in found)
        parts.append(f"{', '.join(f'{r:.3f}' for r in found)} times that of {SHORT[control]}")
    bar = f"at least {STD_RATIO}" if more else f"at most {DEAD_RATIO}"
    return Claim("STRIVE", text, _against(verdicts), f"{'; '.join(parts)} (a value a seed; {bar} in every seed)")


def _calmer(arms: Mapping[str, Any]) -> Claim:
    found = {
        control: seed_differences(arms[STRIVE]["grad_norm_cv"]["seeds"], arms[control]["grad_norm_cv"]["seeds"])
        for control in (ANCHOR, IMPORTANCE)
    }
    evidence = "; ".join(f"{shown(each)} against {SHORT[name]}" for name, each in found.items())
    return Claim(
        "STRIVE",
        "Gradient norms vary less over the steps",
        _against({name: each.below for name, each in found.items()}),
        f"coefficient of variation {evidence} (only seeds are drawn anew)",
    )


def _more_accurate(figures: Mapping[str, Any], measure: str, text: str) -> Claim:
    found = {control: figures["against"][STRIVE][control][measure] for control in (ANCHOR, IMPORTANCE)}
    evidence = "; ".join(f"{shown(each)} against {SHORT[name]}" for name, each in found.items())
    return Claim("STRIVE", text, _against({name: each[1] > 0 for name, each in found.items()}), evidence)


def _one(paper: str, figures: Mapping[str, Any], text: str, arm: str, other: str, measure: str) -> Claim:
    found = figures["against"][arm][other][measure]
    verdict = HOLDS if found[1] > 0 else f"{FAILS}: it is the other way round" if found[2] < 0 else FAILS
    return Claim(paper, text, verdict, f"{NAMES[measure]} {shown(found)}")


def _mode(figures: Mapping[str, Any]) -> Claim:
    found = {mode: figures["against"][STRIVE][mode]["accuracy_importance"] for mode in ("per-view", "hierarchical")}
    good = [mode for mode, each in found.items() if each[1] > 0]
    verdict = HOLDS if len(good) == len(found) else f"holds against {good[0]} only" if good else FAILS
    evidence = "; ".join(f"{shown(each)} against {mode}" for mode, each in found.items())
    text = "Advantages over the joint pool bring more accuracy than other ways of comparing"
    return Claim("STRIVE", text, verdict, f"accuracy on the importance view {evidence}")
