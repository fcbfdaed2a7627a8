"""Figures of an evaluation: means of sets, their intervals, and paired differences over videos."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.groups import wilson
from trainer.grading.figures import (
    Figure,
    difference,
    drawn_videos,
    interval,
    joined,
    mean,
    resampled,
    table_of,
)

POINTS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from("abcdefg")), min_size=1)


def of(points: list[tuple[float, str]]) -> Figure:
    return mean([value for value, _ in points], [video for _, video in points])


@given(POINTS)
@settings(max_examples=50, deadline=None)
def test_one_figure_resampled_by_counts_equals_drawing_videos_one_by_one(points: list[tuple[float, str]]) -> None:
    """The plain way: each draw takes videos, and each video brings its own values as often as it was taken."""
    figure = of(points)
    names = sorted({video for _, video in points})
    rng = np.random.default_rng(20240229)
    chosen = rng.integers(0, len(names), (40, len(names)))
    expected = []
    for draw in chosen:
        values = [value for place in draw for value, video in points if video == names[place]]
        expected.append(sum(values) / len(values))
    assert resampled([figure], draws=40)[:, 0] == pytest.approx(expected, abs=1e-12)


@given(POINTS)
@settings(max_examples=50, deadline=None)
def test_an_interval_lies_inside_the_values_and_a_figure_does_not_differ_from_itself(
    points: list[tuple[float, str]],
) -> None:
    figure = of(points)
    assert figure.value == pytest.approx(math.fsum(value for value, _ in points) / len(points))
    ends = interval(figure)
    if not figure.is_rate and ends is not None:
        low, high = ends
        assert min(v for v, _ in points) - 1e-12 <= low <= high <= max(v for v, _ in points) + 1e-12
    gap, ends = difference(figure, figure)
    assert gap == 0.0
    assert ends in (None, (0.0, 0.0))


@given(st.integers(1, 30), st.integers(1, 12))
def test_every_draw_takes_as_many_videos_as_there_are(draws: int, videos: int) -> None:
    counts = drawn_videos(np.random.default_rng(0), draws, videos)
    assert counts.shape == (draws, videos)
    assert (counts.sum(axis=1) == videos).all()


def test_rates_have_wilsons_interval_and_means_the_bootstrap() -> None:
    rate = mean([1, 0, 0, 1], "abcd")
    assert rate.is_rate
    assert interval(rate) == wilson(2, 4)
    graded = mean([0.5, 0.2, 0.9, 0.4], "abcd")
    assert not graded.is_rate
    told = table_of({"rate": rate, "graded": graded})
    assert told["rate"]["interval"] == "wilson"
    assert told["graded"]["interval"] == "bootstrap"
    assert told["graded"]["value"] == pytest.approx(0.5)
    assert told["graded"]["n"] == 4


def test_a_bootstrap_of_independent_values_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 2000)
    ends = interval(mean(values.tolist(), [str(i) for i in range(2000)]))
    assert ends is not None
    error = values.std() / math.sqrt(2000)
    assert ends[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert ends[1] == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_questions_that_hang_together_by_video_widen_the_interval() -> None:
    """Ten questions a video, all right or all wrong together: as much as 40 questions tell, not 400."""
    values = np.repeat(np.random.default_rng(1).random(40).round(2), 10).tolist()
    together = interval(mean(values, np.repeat(np.arange(40), 10).astype(str).tolist()))
    apart = interval(mean(values, [str(i) for i in range(400)]))
    assert together is not None
    assert apart is not None
    assert together[1] - together[0] > 2.5 * (apart[1] - apart[0])


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(300)
    videos = [str(i) for i in range(300)]
    first, other = mean(base.tolist(), videos), mean((base + 0.01).tolist(), videos)
    gap, ends = difference(first, other)
    assert gap == pytest.approx(0.01)
    assert ends == pytest.approx((0.01, 0.01))
    with pytest.raises(ValueError, match="not paired"):
        difference(first, mean(base[:-1].tolist(), videos[:-1]))


def test_a_draw_that_misses_a_part_has_no_figure_and_many_such_leave_no_interval() -> None:
    rare = joined([([0.2] * 9, list("abcdefghi")), ([0.9, 0.1], "aa")])
    drawn = resampled([rare])[:, 0]
    assert 0.2 < np.isnan(drawn).mean() < 0.5  # video a is missing in (8/9)^9 = 35 % of the draws
    assert interval(rare) is not None
    assert interval(joined([([0.2, 0.4], "ab"), ([0.9], "c")])) is not None
    assert interval(mean([0.2, 0.4], "aa")) is None, "one video tells nothing about others"
    with pytest.raises(ValueError, match="no values"):
        mean([], [])
    with pytest.raises(ValueError, match="no values"):
        joined([([1.0], "a"), ([], "")])
