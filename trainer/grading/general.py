"""The general figures of any responses: accuracy, credit, mIoU, R1@IoU and format rate, by task and by view."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.groups import wilson
from pipeline.rewards import Reward
from trainer.grading.graded import Graded

THRESHOLDS = (0.3, 0.5, 0.7)
"""IoUs of R1@IoU, as Charades-STA and ActivityNet Captions are reported."""


def recall_at(ious: Sequence[float], threshold: float) -> float:
    """R1@IoU: share of predictions whose temporal IoU reaches the threshold (>=). Raises ValueError for none."""
    if not ious:
        raise ValueError("recall of no predictions")
    return sum(iou >= threshold for iou in ious) / len(ious)


def metrics(rewards: Sequence[Reward]) -> dict[str, Any]:
    """The figures of a set of responses. An unparseable response counts as wrong and as IoU 0, and is counted.

    Returns:
        n, reward, format_rate, unparseable; with responses of tasks that have an accuracy: accuracy, accuracy_low,
        accuracy_high (95 % Wilson) and accuracy_n; with responses of tasks that have partial credit: credit (numbers:
        MRA, open answers: ROUGE-L) and credit_n; with responses of tasks that have an IoU: miou, r1@0.3, r1@0.5, r1@0.7
        and iou_n. A figure that nothing was measured for is absent.
    """
    out: dict[str, Any] = {"n": len(rewards)}
    if not rewards:
        return out
    out["reward"] = math.fsum(r.reward for r in rewards) / len(rewards)
    out["format_rate"] = math.fsum(r.format for r in rewards) / len(rewards)
    out["unparseable"] = sum(bool(r.parse_error) for r in rewards)
    accuracies = [r.accuracy for r in rewards if r.accuracy is not None]
    if accuracies:
        right = math.fsum(accuracies)
        low, high = wilson(right, len(accuracies))
        out |= {"accuracy": right / len(accuracies), "accuracy_low": low, "accuracy_high": high}
        out["accuracy_n"] = len(accuracies)
    credits = [r.credit for r in rewards if r.credit is not None]
    if credits:
        out |= {"credit": math.fsum(credits) / len(credits), "credit_n": len(credits)}
    ious = [r.iou for r in rewards if r.iou is not None]
    if ious:
        out["miou"] = math.fsum(ious) / len(ious)
        out |= {f"r1@{threshold}": recall_at(ious, threshold) for threshold in THRESHOLDS}
        out["iou_n"] = len(ious)
    return out


def report(graded: Iterable[Graded]) -> dict[str, Any]:
    """All figures of an evaluation: `all`, `by_task`, `by_view`, and `by_task_and_view` under "task/view"."""
    everything = list(graded)
    return {
        "all": metrics([g.reward for g in everything]),
        "by_task": _by(everything, lambda g: g.task),
        "by_view": _by(everything, lambda g: g.view),
        "by_task_and_view": _by(everything, lambda g: f"{g.task}/{g.view}"),
    }


def _by(graded: Sequence[Graded], name: Callable[[Graded], str]) -> dict[str, dict[str, Any]]:
    names = sorted({name(g) for g in graded})
    return {one: metrics([g.reward for g in graded if name(g) == one]) for one in names}
