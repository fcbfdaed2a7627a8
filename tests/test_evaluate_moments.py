"""QVHighlights' mAP: values by hand, and the area under precision and recall written out for one window."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import temporal_iou
from tests.test_evaluate_benchmarks import row, values
from trainer.grading.qvhighlights import IOUS, average_precision

Moment = tuple[float, float]
MOMENTS = st.tuples(st.integers(0, 140), st.integers(2, 60)).map(lambda pair: (float(pair[0]), float(sum(pair))))


def test_the_thresholds_are_the_official_ones() -> None:
    assert [float(f"{iou:.2f}") for iou in np.linspace(0.5, 0.95, 10)] == list(IOUS)


@pytest.mark.parametrize(
    ("span", "truth", "expected"),
    [
        ((0, 10), [(0, 10)], 1.0),  # all of ten thresholds
        ((0, 5), [(0, 10)], 0.1),  # IoU of exactly 0.5 reaches the first
        ((0, 4.9), [(0, 10)], 0.0),
        ((0, 11), [(0, 20)], 0.2),  # exactly 0.55
        ((0, 7.5), [(0, 10)], 0.6),  # exactly 0.75: 0.5 .. 0.75
        ((0, 9.5), [(0, 10)], 1.0),
        ((0, 10), [(0, 10), (20, 30)], 0.5),  # one of two moments
        ((20, 27), [(0, 10), (20, 30), (40, 50)], 0.5 / 3),  # 0.7: five thresholds, one of three
        ((50, 60), [(0, 10)], 0.0),
        (None, [(0, 10)], 0.0),
    ],
)
def test_values_by_hand(span: Moment | None, truth: list[Moment], expected: float) -> None:
    assert average_precision(span, truth) == pytest.approx(expected)


def area(span: Moment, truth: list[Moment], threshold: float) -> float:
    """The interpolated area as the official script computes it, for windows in order of score; there is one."""
    hits = [max(temporal_iou(span, moment) for moment in truth) >= threshold]
    found = np.cumsum(hits)
    precision, recall = found / np.arange(1, len(hits) + 1), found / len(truth)
    precision, recall = np.r_[0, precision, 0], np.r_[0, recall, 1]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


@given(MOMENTS, st.lists(MOMENTS, min_size=1, max_size=5))
def test_it_is_the_area_under_precision_and_recall(span: Moment, truth: list[Moment]) -> None:
    expected = np.mean([area(span, truth, threshold) for threshold in IOUS])
    assert average_precision(span, truth) == pytest.approx(expected)


def test_figures_of_a_set() -> None:
    lines: list[dict[str, Any]] = [
        row("qvhighlights", "grounding", "0 - 8", spans=[(0, 8), (20, 60)]),  # short and long: one found, one not
        row("qvhighlights", "grounding", "0 - 15", spans=[(0, 20)]),  # middle, IoU 0.75
        row("qvhighlights", "grounding", "soon", spans=[(0, 10)]),  # short, no window
    ]
    found = values(lines)
    assert found["map"] == pytest.approx((0.5 + 0.6 + 0) / 3)
    assert found["map@0.5"] == found["map@0.75"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["map_short"] == pytest.approx((1 + 0) / 2)
    assert found["map_middle"] == pytest.approx(0.6)
    assert found["map_long"] == 0.0
    assert found["r1@0.7"] == pytest.approx(2 / 3)
