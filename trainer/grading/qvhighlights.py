"""QVHighlights: moment retrieval among several true moments.

R1 goes by the nearest moment. The official mAP (standalone_eval of moment_detr) ranks the windows that were predicted
for a query, each of which may find one moment; a response names one window. With one window the area under precision
and recall is plain: of n true moments it finds one or none, so the average precision is 1 / n or 0.
"""

from collections.abc import Sequence

from pipeline.measures import temporal_iou
from pipeline.readers import Span
from trainer.grading.benchmark import Benchmark, Rows, Value, alone, figure_of, grounding
from trainer.grading.figures import Figure
from trainer.grading.graded import Graded

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds that mAP is averaged over: 0.50, 0.55 .. 0.95."""
LENGTHS = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
"""Lengths of moments, seconds: above the first, up to the second."""


def average_precision(span: Span | None, truth: Sequence[Span], ious: Sequence[float] = IOUS) -> float:
    """Average precision of one predicted window, in [0, 1], the mean over thresholds of IoU (reached by >=).

    Args:
        span: that was predicted, seconds; None: nothing was, which is 0. truth: the true moments, at least one.
    """
    if span is None:
        return 0.0
    nearest = max(temporal_iou(span, moment) for moment in truth)
    return sum(nearest >= threshold for threshold in ious) / len(ious) / len(truth)


def of_lengths(low: float, high: float, ious: Sequence[float] = IOUS) -> Value:
    """The average precision among moments of some lengths; a query that has none of them has no value."""

    def value(row: Graded) -> float | None:
        truth = [(start, end) for start, end in row.truth if low < end - start <= high]
        return average_precision(row.span, truth, ious) if truth else None

    return value


def figures(rows: Rows) -> dict[str, Figure]:
    """mIoU and R1@IoU, then mAP, mAP at 0.5 and 0.75, and mAP of short, middle and long moments."""
    out = grounding(rows) | figure_of("map", rows, of_lengths(0.0, float("inf")))
    for threshold in (0.5, 0.75):
        out |= figure_of(f"map@{threshold}", rows, of_lengths(0.0, float("inf"), (threshold,)))
    for name, length in LENGTHS.items():
        out |= figure_of(f"map_{name}", rows, of_lengths(*length))
    return out


def moments(row: Graded) -> str:
    """one moment or several."""
    return "one" if len(row.truth) == 1 else "several"


BENCHMARK = Benchmark(
    "QVHighlights",
    alone(figures),
    {"moments": moments},
    note="mAP is that of the one window that a response names; of several moments it can find one. A response "
    "without a window counts as 0, where the official script wants one.",
)
