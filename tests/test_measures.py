"""How near an answer is to the truth: MRA, ROUGE-L, temporal IoU and its boundary-weighted form."""

import math
import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measures import boundary_iou, mean_relative_accuracy, rouge_l, temporal_iou, words

rouge_l("a", "a")  # imports the library here, not in the time of an example

ends = st.floats(0, 1e6)
spans = st.tuples(ends, ends)


@given(
    st.integers(-(10**6), 10**6).filter(bool),
    st.integers(0, 3),
    st.one_of(st.integers(-12, 12).map(lambda k: Decimal(k) / 20), st.decimals(-2, 2, places=4)),
)
def test_mra_counts_the_thresholds_that_hold_in_exact_arithmetic(digits: int, places: int, error: Decimal) -> None:
    true = Decimal(digits).scaleb(-places)
    predicted = true * (1 + error)
    # 1 - t for t = .50, .55, ... .95; an error that is exactly 0.05 is within 0.05.
    expected = sum(abs(error) <= Decimal(k) / 20 for k in range(1, 11)) / 10
    assert mean_relative_accuracy(float(predicted), float(true)) == pytest.approx(expected)


def test_mra_values() -> None:
    assert mean_relative_accuracy(0.95, 1.0) == mean_relative_accuracy(1.05, 1.0) == 1.0
    assert mean_relative_accuracy(0.5, 1.0) == mean_relative_accuracy(1.5, 1.0) == 0.1
    assert mean_relative_accuracy(0.499, 1.0) == 0.0
    assert (mean_relative_accuracy(0.0, 0.0), mean_relative_accuracy(1e-9, 0.0)) == (1.0, 0.0)
    assert mean_relative_accuracy(1e308, -1e-308) == 0.0


def longest_common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the recurrence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(row[j], before[j + 1]))
    return row[-1]


@given(*[st.lists(st.sampled_from(["a", "red", "ball", "rolls", "红", "球", "!"]), max_size=8)] * 2)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(predicted: list[str], true: list[str]) -> None:
    p, t = ([word for word in text if word != "!"] for text in (predicted, true))
    common = longest_common(p, t)
    expected = 2 * common / (len(p) + len(t)) if common else 0.0
    assert rouge_l(" ".join(predicted), " ".join(true)) == pytest.approx(expected)


@given(st.text(string.printable))
def test_the_words_of_ascii_text_are_those_of_the_library(text: str) -> None:
    from rouge_score import tokenize

    assert words(text) == tokenize.tokenize(text, None)


@given(spans, spans)
def test_iou_is_symmetric_a_share_and_1_only_for_equals(a: tuple[float, float], b: tuple[float, float]) -> None:
    iou = temporal_iou(a, b)
    assert iou == temporal_iou(b, a)
    assert 0.0 <= iou <= 1.0
    assert (iou == 1.0) == (sorted(a) == sorted(b))


@given(spans, spans)
def test_iou_is_intersection_over_the_sum_minus_intersection(a: tuple[float, float], b: tuple[float, float]) -> None:
    (a0, a1), (b0, b1) = sorted(a), sorted(b)
    inside = max(0.0, min(a1, b1) - max(a0, b0))
    union = (a1 - a0) + (b1 - b0) - inside
    if union > 1e-3:
        assert temporal_iou(a, b) == pytest.approx(inside / union, abs=1e-6)


@given(spans, spans, st.floats(1e-3, 1e6))
def test_boundary_iou_is_a_share_of_iou(a: tuple[float, float], b: tuple[float, float], duration: float) -> None:
    found = boundary_iou(a, b, duration)
    assert found == boundary_iou(b, a, duration)
    assert 0.0 <= found <= temporal_iou(a, b)
    assert (found == 1.0) == (sorted(a) == sorted(b))


def test_boundary_iou_values() -> None:
    assert boundary_iou((2.0, 6.0), (4.0, 8.0), 10.0) == pytest.approx(1 / 3 * 0.8 * 0.8)
    assert boundary_iou((0.0, 9.0), (0.0, 1.0), 4.0) == 0.0  # an end that is further off than the video is long
    with pytest.raises(ValueError, match="above 0 s, got 0"):
        boundary_iou((1.0, 2.0), (1.0, 2.0), 0.0)


def test_iou_of_what_is_not_finite_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        temporal_iou((0.0, math.inf), (0.0, 1.0))
