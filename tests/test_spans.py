"""Spans in the time of a file: in seconds, inside it, with a count of what was put right."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import Draft, Rejected
from pipeline.sources.draft import make_draft
from pipeline.spans import ROUNDING_S, clip_spans, place

spans_of = st.lists(
    st.tuples(st.floats(-5, 50), st.floats(0.01, 50)).map(lambda s: (s[0], s[0] + s[1])), min_size=1, max_size=4
)


def draft(spans: Any, **columns: Any) -> Draft:
    about = {"dataset": "test", "row_id": "0", "video": "v", "task": "grounding", "question": "when?"}
    return make_draft({}, spans=spans, **(about | columns))


@given(spans_of, st.one_of(st.none(), st.floats(0.1, 60)))
def test_clipped_spans_lie_in_the_video(spans: list[tuple[float, float]], length: float | None) -> None:
    try:
        clipped, repairs = clip_spans(tuple(spans), length)
    except Rejected:
        end = math.inf if length is None else length
        assert all(e <= 0 or s >= end or e > 2 * end for s, e in spans)
        return
    assert clipped
    assert all(0 <= s < e <= (math.inf if length is None else length) for s, e in clipped)
    moved = max((abs(a - b) for x, y in zip(clipped, spans, strict=False) for a, b in zip(x, y, strict=True)))
    if len(clipped) == len(spans):
        assert bool(repairs) == (moved > ROUNDING_S)
    else:
        assert "span out of range dropped" in repairs


def test_rounding_is_no_repair_and_other_units_are_no_spans() -> None:
    assert clip_spans(((0.0, 70.29),), 70.285) == (((0.0, 70.285),), ())
    assert clip_spans(((20.0, 25.0),), 22.2) == (((20.0, 22.2),), ("span cut to the video's end",))
    assert clip_spans(((-0.1, 11.0),), 20.0) == (((0.0, 11.0),), ("span cut to the video's start",))
    for wrong, reason in (
        ((12.0, 1422.0), "span out of range"),
        ((30.0, 31.0), "span past the video's end"),
        ((-2.0, -1.0), "span before the video's start"),
    ):
        with pytest.raises(Rejected) as caught:
            clip_spans((wrong,), 22.0)
        assert caught.value.reason == reason
    assert clip_spans(((1.0, 2.0), (30.0, 31.0)), 22.0) == (((1.0, 2.0),), ("span out of range dropped",))


def test_the_files_own_length_counts_before_the_annotations() -> None:
    row = draft([(1.0, 9.0)], length_s=5.0)
    assert place(row, None).spans == ((1.0, 5.0),)
    assert place(row, 20.0).spans == ((1.0, 9.0),)


def test_shares_become_seconds() -> None:
    row = draft([(0.25, 0.5)], shares=True)
    assert place(row, 20.0).spans == ((5.0, 10.0),)
    with pytest.raises(Rejected, match="shares"):
        place(row, None)
    assert place(draft([(0.25, 0.5)], shares=True, length_s=8.0), None).spans == ((2.0, 4.0),)


def test_a_cut_is_its_own_file_or_a_part_of_a_longer_one() -> None:
    """Some rows name a part of a video. On disk lies either that part, or the whole."""
    row = draft([(2.0, 4.0)], cut=(40.0, 50.0))
    of_its_own, part = place(row, 10.02), place(row, 90.0)
    assert (of_its_own.spans, of_its_own.clip) == (((2.0, 4.0),), None)
    assert (part.spans, part.clip) == (((42.0, 44.0),), (40.0, 50.0))
    assert place(row, 49.5).clip == (40.0, 49.5)
    assert place(row, None).spans == ((2.0, 4.0),)
    with pytest.raises(Rejected) as caught:
        place(row, 30.0)
    assert caught.value.reason == "cut outside the video"


def test_spans_of_a_cut_end_with_the_cut() -> None:
    assert place(draft([(2.0, 14.0)], cut=(40.0, 50.0)), 90.0).spans == ((42.0, 50.0),)
