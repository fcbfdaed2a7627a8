"""Uniform and importance sampling, and the crops that keep an answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.samplers import is_flat, largest_gap, log_weights, stratified_importance, uniform
from pipeline.schemas import TASKS
from pipeline.transforms import WHOLE, ZOOM_TASKS, apply_crop, draw_box

finite = st.floats(-1, 1, width=32)
any_score = st.one_of(finite, st.sampled_from([float("nan"), float("inf"), -float("inf")]))


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    count = draw(st.integers(1, 40))
    scores = draw(st.lists(draw(st.sampled_from([finite, any_score, st.just(0.25)])), min_size=count, max_size=count))
    gaps = draw(st.lists(st.floats(0, 5), min_size=count, max_size=count))
    budget = draw(st.integers(1, 16))
    return {
        "scores": np.asarray(scores, dtype=np.float32),
        "times": np.cumsum(gaps),
        "budget": budget,
        "seed": draw(st.integers(0, 2**63 - 1)),
        "mix": draw(st.floats(0, 1)),
        "temperature": draw(st.sampled_from([1e-6, 0.01, 0.1, 1.0, 100.0])),
        "bins": draw(st.integers(1, budget)),
    }


@given(st.integers(1, 1000), st.integers(1, 64))
def test_uniform_is_distinct_ascending_and_even(n: int, budget: int) -> None:
    chosen = uniform(n, budget)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n, budget)
    assert chosen[0] >= 0
    assert chosen[-1] < n
    if n > budget > 1:
        assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
        assert abs(chosen[0] - (n - 1 - chosen[-1])) <= 1  # as far from the start as from the end


def test_uniform_takes_the_centres() -> None:
    assert uniform(24, 8) == [1, 4, 7, 10, 13, 16, 19, 22]
    assert uniform(5, 8) == [0, 1, 2, 3, 4]


@given(cases())
def test_a_draw_is_distinct_ascending_and_repeats(case: dict[str, object]) -> None:
    draw = stratified_importance(**case)  # type: ignore[arg-type]
    count = len(case["scores"])  # type: ignore[arg-type]
    assert draw.indices == sorted(set(draw.indices))
    assert len(draw.indices) == min(count, case["budget"])  # type: ignore[type-var]
    assert draw.indices[0] >= 0
    assert draw.indices[-1] < count
    assert draw == stratified_importance(**case)  # type: ignore[arg-type]
    assert draw.flat == is_flat(case["scores"])  # type: ignore[arg-type]


@given(cases())
def test_every_part_of_the_timeline_that_holds_frames_gets_one(case: dict[str, object]) -> None:
    draw = stratified_importance(**case)  # type: ignore[arg-type]
    times = np.asarray(case["times"])
    length = times[-1] - times[0]
    if len(times) > case["budget"] and length > 0:  # type: ignore[operator]
        bins = int(case["budget" if draw.flat else "bins"])  # type: ignore[call-overload]
        part = np.minimum((times - times[0]) / length * bins, bins - 1).astype(int)
        assert set(part[draw.indices]) == set(part)


@given(st.lists(finite, min_size=2, max_size=50), st.floats(0, 1), st.floats(1e-3, 10))
def test_weights_are_a_distribution_that_rises_with_the_score(scores: list[float], mix: float, t: float) -> None:
    if is_flat(scores):
        return
    weights = np.exp(log_weights(scores, mix, t))
    assert weights.sum() == pytest.approx(1.0)
    assert (np.diff(weights[np.argsort(scores, kind="stable")]) >= -1e-12).all()
    assert weights.min() >= (1 - mix) / len(scores) - 1e-12


def test_mix_0_is_uniform_and_a_scale_does_not_matter() -> None:
    scores = np.linspace(0.1, 0.3, 10)
    assert np.exp(log_weights(scores, 0.0, 0.1)) == pytest.approx(0.1)
    assert log_weights(scores, 0.7, 0.1) == pytest.approx(log_weights(scores * 5 - 1, 0.7, 0.1))


@pytest.mark.parametrize("scores", [np.zeros(30), np.full(30, np.nan), np.r_[np.ones(29), np.inf]])
def test_scores_that_tell_nothing_leave_even_coverage(scores: np.ndarray) -> None:
    draw = stratified_importance(scores, np.arange(30) / 2, 10, 1, 0.8, 0.1, 5)
    assert draw.flat
    assert [i // 3 for i in draw.indices] == list(range(10))


def test_high_scores_are_chosen_far_more_often() -> None:
    scores = np.r_[np.zeros(22), 1.0, 1.0]
    hits = [23 in stratified_importance(scores, np.arange(24.0), 8, s, 0.8, 0.1, 4).indices for s in range(300)]
    assert np.mean(hits) > 0.9
    floor = [0 in stratified_importance(scores, np.arange(24.0), 8, s, 0.8, 0.1, 4).indices for s in range(300)]
    assert 0.05 < np.mean(floor) < 0.5


def test_a_gap_in_time_is_passed_over() -> None:
    times = np.r_[np.arange(10.0), np.arange(90.0, 100.0)]
    draw = stratified_importance(np.arange(20.0), times, 8, 3, 0.8, 0.1, 8)
    assert len(draw.indices) == 8


@pytest.mark.parametrize(
    "bad",
    [{"budget": 0}, {"mix": 1.5}, {"temperature": 0.0}, {"bins": 9}, {"scores": [0.0]}, {"times": [], "scores": []}],
)
def test_what_cannot_be_sampled_raises(bad: dict[str, object]) -> None:
    good = {
        "scores": [0.0, 1.0],
        "times": [0.0, 1.0],
        "budget": 8,
        "seed": 0,
        "mix": 0.5,
        "temperature": 0.1,
        "bins": 4,
    }
    with pytest.raises(ValueError, match=r"\d"):
        stratified_importance(**(good | bad))  # type: ignore[arg-type]


def test_largest_gap() -> None:
    times = np.arange(11.0)
    assert largest_gap([0.0, 10.0], times) == 1.0
    assert largest_gap(times, times) == pytest.approx(0.1)
    assert largest_gap([4.0], times) == pytest.approx(0.6)
    assert largest_gap([0.0], [0.0]) == 0.0


@given(st.sampled_from(TASKS), st.integers(0, 2**63 - 1))
def test_boxes_are_centred_large_and_only_for_plain_choices(task: str, seed: int) -> None:
    left, top, right, bottom = draw_box(task, seed)
    assert left == top == 1 - right == 1 - bottom
    assert right - left >= 0.9
    assert [np.float32(side) for side in (left, top, right, bottom)] == [left, top, right, bottom]
    if task not in ZOOM_TASKS:
        assert (left, top, right, bottom) == WHOLE


@pytest.mark.parametrize("task", ["number", "grounding", "grounded_choice", "open"])
def test_only_choices_are_zoomed(task: str) -> None:
    assert task not in ZOOM_TASKS


def test_a_crop_keeps_size_and_middle() -> None:
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[:, 18:22, 28:32] = 255
    assert apply_crop(frames, WHOLE) is frames
    zoomed = apply_crop(frames, (0.05, 0.05, 0.95, 0.95))
    assert zoomed.shape == frames.shape
    assert zoomed.dtype == np.uint8
    rows, columns = np.nonzero(zoomed[0, :, :, 0] > 127)
    assert (rows.mean(), columns.mean()) == pytest.approx((19.5, 29.5))
    assert zoomed.sum() > 1.1 * frames.sum()


@pytest.mark.parametrize("box", [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_a_box_outside_the_frame_raises(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="crop"):
        apply_crop(np.zeros((1, 8, 8, 3), np.uint8), box)
