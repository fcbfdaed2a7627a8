"""Spans held to the truth: IoU and IoP at the thresholds, and what NExT-GQA makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import temporal_iou
from tests.answer_rows import NEXTGQA, by, graded, row, values
from trainer.grading import benchmarks
from trainer.grading.nextgqa import intersection_over_prediction

MOMENTS = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 2))


SPANS = st.tuples(MOMENTS, MOMENTS).map(lambda s: (min(s), max(s)))


def test_grounding_at_the_thresholds() -> None:
    """IoUs of exactly .3, .5 and .7 count; swapped ends are put in order; what cannot be read has IoU 0."""
    lines = [
        row("charades-sta", "grounding", "0 - 3", spans=[(0, 10)]),
        row("charades-sta", "grounding", "5 - 0", spans=[(0, 10)]),
        row("charades-sta", "grounding", "0 - 7", spans=[(0, 10)]),
        row("charades-sta", "grounding", "0 - 4.99", spans=[(0, 10)]),
        row("charades-sta", "grounding", "soon", spans=[(0, 10)]),
        row("charades-sta", "grounding", None, spans=[(0, 10)], failure="frames cannot be read"),
    ]
    found = values(lines)
    assert found["miou"] == pytest.approx((0.3 + 0.5 + 0.7 + 0.499) / 6)
    assert (found["r1@0.3"], found["r1@0.5"], found["r1@0.7"]) == pytest.approx((4 / 6, 2 / 6, 1 / 6))
    (part,) = benchmarks(graded(lines), {})
    assert part["counts"] == {"n": 6, "unparseable": 1, "failed": {"frames cannot be read": 1}, "withheld": 0}


def test_several_moments_count_by_the_nearest() -> None:
    lines = [
        row("qvhighlights", "grounding", "10 - 20", spans=[(0, 4), (10, 20)]),
        row("qvhighlights", "grounding", "0 - 1", spans=[(0, 4)]),
    ]
    assert values(lines)["miou"] == pytest.approx(0.625)
    assert by(lines, "moments", "miou") == {"one": 0.25, "several": 1.0}


@given(SPANS, SPANS.filter(lambda s: s[0] < s[1]))
def test_iop_is_the_share_of_the_prediction_and_never_below_iou(
    span: tuple[float, float], truth: tuple[float, float]
) -> None:
    found = intersection_over_prediction(span, truth)
    assert 0.0 <= found <= 1.0
    assert found >= temporal_iou(span, truth) - 1e-12
    if truth[0] <= span[0] and span[1] <= truth[1]:
        assert found == 1.0
    if span[0] > truth[1] or span[1] < truth[0]:
        assert found == 0.0


@pytest.mark.parametrize(
    ("span", "iop"),
    [((0, 10), 0.4), ((4, 8), 0.5), ((2, 6), 1.0), ((3, 3), 1.0), ((2, 2), 1.0), ((6, 6), 1.0), ((6.01, 6.01), 0.0),
     ((7, 9), 0.0), ((6, 9), 0.0)],
)  # fmt: skip
def test_iop_values(span: tuple[float, float], iop: float) -> None:
    """Against the true span 2 - 6, also of predictions without length: 1 from end to end, 0 beyond."""
    assert intersection_over_prediction(span, (2, 6)) == pytest.approx(iop)


def test_nextgqa_counts_what_is_missing_as_wrong() -> None:
    found = values(NEXTGQA)
    assert found["acc@qa"] == pytest.approx(4 / 6)
    assert found["acc@gqa"] == pytest.approx(2 / 6)
    assert found["miop"] == pytest.approx((0.5 + 0.4 + 1 + 1) / 6)
    assert (found["iop@0.3"], found["iop@0.5"]) == pytest.approx((4 / 6, 3 / 6))
    assert found["miou"] == pytest.approx((1 / 3 + 0.4 + 1) / 6)
    assert (found["iou@0.3"], found["iou@0.5"]) == pytest.approx((3 / 6, 1 / 6))


def test_nextgqa_as_its_own_script_skips_what_is_missing() -> None:
    found = by(NEXTGQA, "span", "acc@gqa")
    assert found == {"named": 0.5, "none": 0.0}
    assert by(NEXTGQA, "span", "miop")["named"] == pytest.approx(2.9 / 4)
    assert by(NEXTGQA, "question group", "acc@gqa")["causal"] == 0.5
    assert by(NEXTGQA, "question type", "acc@gqa")["TN"] == 0.5, "TP counts as TN"
    (part,) = benchmarks(graded(NEXTGQA), {})
    assert part["counts"]["no span"] == 2
    assert part["counts"]["span without length"] == 1
