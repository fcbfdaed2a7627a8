"""What a benchmark reports: its figures, and the columns of the original row by which it breaks them down."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.grading.figures import Figure, mean
from trainer.grading.general import THRESHOLDS
from trainer.grading.graded import Graded

Rows = Sequence[Graded]
Axis = Callable[[Graded], str | None]
"""The group of a response, None where its row does not tell."""
Value = Callable[[Graded], float | None]
"""What a response earns, None where its task has nothing of the kind."""


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is scored.

    Attributes:
        title: its name.
        figures: (responses on one view, those of the same samples without any frame) -> figures, the main one first.
            Responses are at least one.
        axes: breakdowns by name; their groups have the figures of `grouped`.
        grouped: the figures of a group; default: those of `figures`, the main one and what goes with it.
        counts: what else is to be counted.
        note: where our figure is not the official one, in a sentence.
    """

    title: str
    figures: Callable[[Rows, Rows], dict[str, Figure]]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    grouped: Callable[[Rows], dict[str, Figure]] | None = None
    counts: Callable[[Rows], dict[str, int]] | None = None
    note: str = ""

    def of_group(self, rows: Rows) -> dict[str, Figure]:
        """The figures of one group of a breakdown."""
        return self.grouped(rows) if self.grouped else self.figures(rows, ())


def column(*names: str) -> Axis:
    """The axis of an original row's first column of these names that holds text or a number."""

    def group(row: Graded) -> str | None:
        for name in names:
            value = row.origin.get(name)
            if isinstance(value, str | int | float) and str(value).strip():
                return str(value).strip()
        return None

    return group


def accuracy(rows: Rows) -> dict[str, Figure]:
    """{"accuracy": share of right answers}; nothing where no task has an accuracy."""
    return figure_of("accuracy", rows, lambda row: row.reward.accuracy)


def figure_of(name: str, rows: Rows, value: Value) -> dict[str, Figure]:
    """{name: mean of `value` over the rows that have one}; nothing where none has."""
    had = [(number, row.video_id) for row in rows if (number := value(row)) is not None]
    return {name: mean([number for number, _ in had], [video for _, video in had])} if had else {}


def reaches(value: Value, threshold: float) -> Value:
    """Whether a value reaches a threshold (>=), as 1 or 0."""

    def reached(row: Graded) -> float | None:
        number = value(row)
        return None if number is None else float(number >= threshold)

    return reached


def iou(row: Graded) -> float | None:
    """The best IoU over the true spans; 0 where the response names no span, None where the task has none."""
    return row.reward.iou


def grounding(rows: Rows) -> dict[str, Figure]:
    """mIoU and R1@IoU 0.3, 0.5, 0.7: of several true spans the nearest counts, what names none has IoU 0."""
    out = figure_of("miou", rows, iou)
    for threshold in THRESHOLDS:
        out |= figure_of(f"r1@{threshold}", rows, reaches(iou, threshold))
    return out


def general(rows: Rows) -> dict[str, Figure]:
    """What any set has by its tasks: accuracy, partial credit, mIoU and R1@IoU."""
    out = accuracy(rows) | figure_of("credit", rows, lambda row: row.reward.credit)
    return out | grounding(rows)


def alone(figures: Callable[[Rows], dict[str, Figure]]) -> Callable[[Rows, Rows], dict[str, Figure]]:
    """Figures that need no blind responses beside them."""
    return lambda rows, blind: figures(rows)


def groups(rows: Rows, axis: Axis) -> dict[str, list[Graded]]:
    """Responses by group, in the order of the groups' names; empty when not one row tells its group."""
    out: dict[str, list[Graded]] = {}
    for row in rows:
        out.setdefault(axis(row) or "unknown", []).append(row)
    return {} if set(out) <= {"unknown"} else dict(sorted(out.items()))


def key(dataset: str) -> str:
    """A dataset's name as benchmarks are looked up: "VSI-Bench", "vsi_bench" and "vsibench" are one."""
    return re.sub(r"[^a-z0-9]", "", dataset.lower())


def counted(rows: Rows, withheld: int) -> dict[str, Any]:
    """How many responses there are, how many failed and why, and how many could not be read or had no truth."""
    reasons: dict[str, int] = {}
    for row in rows:
        if row.failure:
            reasons[row.failure] = reasons.get(row.failure, 0) + 1
    unread = sum(bool(row.reward.parse_error) and not row.failure for row in rows)
    return {"n": len(rows), "unparseable": unread, "failed": reasons, "withheld": withheld}
