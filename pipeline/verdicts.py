"""Verdicts: which samples have something to teach, by the rewards of their draws, and when that is certain.

Everything here is a pure function of numbers, vectorised over samples. Legend of shapes: N samples, K draws planned.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.rewards import DEFAULT_RULE, RewardRule, is_binary

MAX_BINARY_VARIANCE = 0.25
GRADED_SHARE = 0.1
"""Threshold of graded rewards as a share of the binary one: IoU spreads less, 0.1 of variance would reject nearly
all."""

EPSILON = 1e-9  # 8 draws with 1 right have 0.109375, but sums of other counts may end a bit below their true value
EXACT_DRAWS = 8
"""With so many draws or fewer a sample is stopped only when no further draw can change its verdict."""

KEPT, ALL_WRONG, ALL_RIGHT, BELOW = "", "all wrong", "all right", "below threshold"
TOO_HARD, TOO_EASY, BLIND, UNDECIDED = "too hard", "too easy", "answered blind", "undecided"
REASONS = (ALL_WRONG, ALL_RIGHT, BELOW, TOO_HARD, TOO_EASY, BLIND, UNDECIDED)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """When a sample is kept.

    Attributes:
        thresholds: least population variance by task; None: no filter by variance.
        min_acc, max_acc: bounds of the mean reward, both inclusive; None: no bound.
        max_blind_acc: largest mean reward without any frame; None: nobody asks.
        reward: how reward parts are joined.
        stop_error: with more than EXACT_DRAWS draws of a binary reward, the probability at which a verdict that may
            still change counts as certain.
    """

    thresholds: Mapping[str, float] | None
    min_acc: float | None = None
    max_acc: float | None = None
    max_blind_acc: float | None = None
    reward: RewardRule = DEFAULT_RULE
    stop_error: float = 0.01

    def __post_init__(self) -> None:
        for name in ("min_acc", "max_acc", "max_blind_acc", "stop_error"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} {value}", "a share, 0 to 1", f"strive-data select {option} 0.5")
        if (self.min_acc or 0.0) > (1.0 if self.max_acc is None else self.max_acc):
            raise UserError(
                f"--min-acc {self.min_acc} --max-acc {self.max_acc}", "the first not above the second", "swap them"
            )

    def threshold(self, task: str) -> float | None:
        """Least population variance of a task's rewards; None: no filter."""
        return None if self.thresholds is None else self.thresholds[task]

    def text(self) -> str:
        """The rule in force, in one line."""
        parts = []
        if self.thresholds is not None:
            by_value: dict[float, list[str]] = {}
            for task, value in self.thresholds.items():
                by_value.setdefault(value, []).append(task)
            parts += [f"variance of the reward >= {value:g} ({', '.join(t)})" for value, t in by_value.items()]
        if self.min_acc is not None:
            parts.append(f"mean reward >= {self.min_acc:g}")
        if self.max_acc is not None:
            parts.append(f"mean reward <= {self.max_acc:g}")
        if self.max_blind_acc is not None:
            parts.append(f"mean reward without frames <= {self.max_blind_acc:g}")
        return "; ".join(parts) or "no filter: every sample with rollouts is kept"


def thresholds(text: str, reward: RewardRule = DEFAULT_RULE) -> dict[str, float]:
    """The least variance by task, as `--min-var` says it.

    A bare value ("0.1") holds for binary rewards and a tenth of it for graded ones (IoU, MRA, ROUGE). Named ones
    ("choice=0.1,grounding=0.01") hold as they are; tasks that are not named then have the bare value's, "0.1,number=0",
    or 0.1 without one.

    Raises:
        UserError: not a number, an unknown task, or outside 0..0.25, which is all that rewards in 0..1 can reach.
    """
    bare, named = 0.1, {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        task, equals, value = part.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 <= number <= MAX_BINARY_VARIANCE:
            raise UserError(
                f"--min-var {text}",
                f"the variance of a reward lies in 0..{MAX_BINARY_VARIANCE}, {value!r} does not",
                "strive-data select --min-var 0.1, or choice=0.1,grounding=0.01",
            )
        if equals and task not in schemas.TASKS:
            raise UserError(f"--min-var {text}", f"{task!r} is none of {', '.join(schemas.TASKS)}", "name one of them")
        if equals:
            named[task] = number
        else:
            bare = number
    scaled = {task: bare if is_binary(task, reward) else bare * GRADED_SHARE for task in schemas.TASKS}
    return scaled | named


@dataclass(frozen=True)
class Draws:
    """Rewards drawn so far, by sample: all float64 or int64 [N].

    n draws of K planned, with their sum, sum of squared distances from their mean (`spread`), smallest and largest.
    """

    n: Ints
    total: Floats
    spread: Floats
    low: Floats
    high: Floats

    @property
    def mean(self) -> Floats:
        return np.divide(self.total, self.n, out=np.zeros(len(self.n)), where=self.n > 0)

    @property
    def dead(self) -> Bools:
        """max == min: float noise in a sum makes no dead group alive."""
        dead: Bools = self.low == self.high
        return dead

    @property
    def variance(self) -> Floats:
        """Population variance, exactly 0 for dead groups."""
        value = np.divide(self.spread, self.n, out=np.zeros(len(self.n)), where=self.n > 0)
        return np.where(self.dead, 0.0, value)


def judge(draws: Draws, threshold: float | None, rule: Rule) -> npt.NDArray[np.object_]:
    """Why each sample of one task is left out by the rewards of its draws, "" when it is kept; object [N].

    A threshold of 0 or None keeps all, any other drops the dead.
    """
    mean, variance, dead = draws.mean, draws.variance, draws.dead
    out = np.full(len(mean), KEPT, dtype=object)
    if rule.max_acc is not None:
        out[mean > rule.max_acc + EPSILON] = TOO_EASY
    if rule.min_acc is not None:
        out[mean < rule.min_acc - EPSILON] = TOO_HARD
    if threshold:
        out[(variance < threshold - EPSILON) | dead] = BELOW
        out[dead & (mean == 0.0)] = ALL_WRONG
        out[dead & (mean == 1.0)] = ALL_RIGHT
    return out


def chance_kept(draws: Draws, planned: int, threshold: float | None, rule: Rule, binary: bool) -> Floats:
    """Probability that a sample would be kept once all planned draws are made, [N].

    0 and 1 are exact: no further draw can change the verdict. In between, for a binary reward, the further draws are
    taken as beta-binomial after a uniform prior on the sample's success rate (predictive probability); for a graded
    reward nothing is known: NaN.

    Args:
        planned: K. Samples with K draws or more have their verdict.
        binary: whether every reward is 0 or 1.
    """
    if not binary:
        return _graded(draws, planned, threshold, rule)
    out = np.zeros(len(draws.n))
    keep = _kept_counts(planned, threshold, rule)
    for pair in set(zip(draws.n.tolist(), np.rint(draws.total).astype(int).tolist(), strict=True)):
        n, right = pair
        rows = (draws.n == n) & (np.rint(draws.total) == right)
        out[rows] = _predictive(n, right, max(planned, n), keep if planned >= n else _kept_counts(n, threshold, rule))
    return out


def certain(chance: Floats, planned: int, binary: bool, stop_error: float) -> Bools:
    """Which verdicts stand: exact ones, and with more than EXACT_DRAWS draws those that change with a probability of
    at most `stop_error`."""
    error = stop_error if binary and planned > EXACT_DRAWS else 0.0
    with np.errstate(invalid="ignore"):
        stands: Bools = (chance <= error) | (chance >= 1.0 - error)
    return stands


def _kept_counts(planned: int, threshold: float | None, rule: Rule) -> tuple[bool, ...]:
    """For 0..K right answers of K: whether such a sample is kept."""
    right = np.arange(planned + 1, dtype=np.float64)
    spread = right * (planned - right) / planned
    ends = np.where(right == planned, 1.0, 0.0), np.where(right == 0, 0.0, 1.0)
    whole = Draws(np.full(planned + 1, planned), right, spread, *ends)
    return tuple(bool(reason == KEPT) for reason in judge(whole, threshold, rule))


@lru_cache(maxsize=65_536)
def _predictive(n: int, right: int, planned: int, keep: tuple[bool, ...]) -> float:
    """Beta-binomial probability of ending at a kept count, after `right` of `n` and a uniform prior."""
    left = planned - n
    kept = keep[right : right + left + 1]
    if all(kept) or not any(kept):
        return float(kept[0])
    a, b = right + 1, n - right + 1

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    logs = [
        math.lgamma(left + 1) - math.lgamma(j + 1) - math.lgamma(left - j + 1) + log_beta(j + a, left - j + b)
        for j in range(left + 1)
    ]
    return math.fsum(math.exp(x - log_beta(a, b)) for x, good in zip(logs, kept, strict=True) if good)


def _graded(draws: Draws, planned: int, threshold: float | None, rule: Rule) -> Floats:
    """1 or 0 where every completion with rewards in 0..1 is kept or left out, else NaN."""
    n, left = draws.n, np.maximum(planned - draws.n, 0)
    whole = np.maximum(n + left, 1)
    least, most = draws.total / whole, (draws.total + left) / whole
    keep = np.ones(len(n), dtype=bool)
    drop = np.zeros(len(n), dtype=bool)
    if rule.min_acc is not None:
        keep &= least >= rule.min_acc - EPSILON
        drop |= most < rule.min_acc - EPSILON
    if rule.max_acc is not None:
        keep &= most <= rule.max_acc + EPSILON
        drop |= least > rule.max_acc + EPSILON
    if threshold:
        # Further draws at the mean add no distance; any other adds some.
        keep &= ~draws.dead & (draws.spread / whole >= threshold - EPSILON)
        drop |= _largest_variance(draws, left, whole) < threshold - EPSILON
        drop |= (left == 0) & draws.dead
    return np.where(keep, 1.0, np.where(drop, 0.0, np.nan))


def _largest_variance(draws: Draws, left: Ints, whole: Ints) -> Floats:
    """The largest population variance that `left` further rewards in 0..1 can lead to: they lie at 0 and 1."""
    best = np.zeros(len(left))
    squares = draws.spread + draws.n * draws.mean**2
    for ones in range(int(left.max(initial=0)) + 1):
        fits = ones <= left
        value = (squares + ones) / whole - ((draws.total + ones) / whole) ** 2
        best = np.where(fits, np.maximum(best, value), best)
    return best


def facts(rule: Rule) -> dict[str, Any]:
    """The rule as plain values, for the card and the fingerprint."""
    return {
        "thresholds": None if rule.thresholds is None else dict(rule.thresholds),
        "min_acc": rule.min_acc,
        "max_acc": rule.max_acc,
        "max_blind_acc": rule.max_blind_acc,
        "reward": json.loads(json.dumps(rule.reward.__dict__)),
    }
