"""AUC, hit rates and gaps: what tells a good scorer and a good sampler."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.data import app
from cli.evidence import budgets
from pipeline.errors import UserError
from pipeline.evidence import auc, evaluate, in_spans, spans_of
from pipeline.samplers import SAMPLERS
from pipeline.store import Store
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos

TIMES = np.arange(FRAMES) / 2
PEAK = np.exp(-((TIMES - 3.75) ** 2))  # over the true span of a_sample, 3 to 5 s


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(frames: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in frames], dtype=np.float32)
    inside = np.array([is_in for _, is_in in frames])
    if inside.all() or not inside.any():
        with pytest.raises(ValueError, match="no AUC"):
            auc(scores, inside)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[inside] for b in scores[~inside]]
    assert auc(scores, inside) == pytest.approx(np.mean(pairs))
    assert auc(-scores, inside) == pytest.approx(1 - np.mean(pairs))
    assert auc(scores, ~inside) == pytest.approx(1 - np.mean(pairs))


def test_auc_of_ties_is_a_half_and_long_videos_are_fine() -> None:
    assert auc(np.zeros(9), np.arange(9) < 3) == 0.5
    assert auc(np.arange(100_000), np.arange(100_000) > 50_000) == 1.0
    with pytest.raises(ValueError, match="finite"):
        auc([0.0, float("nan")], np.array([True, False]))


def test_frames_in_spans() -> None:
    assert in_spans([0.0, 1.0, 2.0, 3.0], [[1.0, 2.0], [2.0, 9.0]]).tolist() == [
        [False, True, False, False],
        [False, False, True, True],
    ]
    assert in_spans([0.0, 1.0], []).shape == (0, 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    rows = [
        a_sample("good", "v1", "grounding"),
        a_sample("bad", "v1", "grounded_choice", split="val"),
        a_sample("flat", "v1", "grounding", split="test"),
        a_sample("plain", "v1"),
        a_sample("gone", "quarantined", "grounding"),
        a_sample("unscored", "v1", "grounding"),
        a_sample("whole", "v1", "grounding", spans=[[0.0, 60.0]]),
        a_sample("between", "v1", "grounding", spans=[[3.1, 3.2]]),
        a_sample("broken", "v1", "grounding"),
        a_sample("part", "v1", "grounding", clip=[2.0, 6.0], origin=json.dumps({"parts": [[2.0, 2.6], [5.5, 6]]})),
    ]
    add_samples(store, rows)
    scores = {row["sample_id"]: PEAK for row in rows if row["sample_id"] != "unscored"}
    add_scores(store, scores | {"bad": -PEAK, "flat": np.ones(FRAMES), "broken": np.full(FRAMES, np.nan)})
    return store


def row_of(found: dict[str, Any], sampler: str, frames: int) -> dict[str, Any]:
    (row,) = [row for row in found["samplers"] if (row["sampler"], row["frames"]) == (sampler, frames)]
    return row


def test_what_is_judged_and_what_is_left_out(store: Store) -> None:
    found = evaluate(store, (1, 4))
    assert found["samples"] == 4
    assert found["left_out"] == {
        "no spans": 1,
        "no frames": 1,
        "no scores": 1,
        "all frames in": 1,
        "all frames out": 1,
        "not finite": 1,
    }
    assert found["auc"] == pytest.approx(np.mean([1, 0, 0.5, 1]))  # good, bad, flat, part
    assert found["scorers"] == ["test"]
    assert [(row["sampler"], row["frames"]) for row in found["samplers"]] == [(s, n) for s in SAMPLERS for n in (1, 4)]
    assert row_of(found, "top-k", 1)["hit"] == pytest.approx(0.5)  # the middle of a flat video is at 6 s
    assert row_of(found, "uniform", 1)["hit"] == pytest.approx(0.25)  # of a part of it at 4 s
    assert row_of(found, "top-k", 4)["flat"] == 1
    assert row_of(found, "uniform", 4)["flat"] == 0
    assert found == evaluate(store, (1, 4))


def test_source_and_split_narrow_it(store: Store) -> None:
    assert evaluate(store, (4,), split="val")["auc"] == 0.0
    assert evaluate(store, (4,), split="val")["auc_se"] is None
    assert evaluate(store, (4,), source="test")["samples"] == 4
    with pytest.raises(UserError, match=r"3 no|1 no|none|there is none"):
        evaluate(store, (4,), source="other")


def test_every_view_hits_when_it_has_all_frames(store: Store) -> None:
    for row in evaluate(store, (FRAMES,))["samplers"]:
        assert (row["hit"], row["hit_all"], row["short"]) == (1.0, 1.0, 4)


def test_moments_of_the_original_rows(store: Store) -> None:
    """A question on what follows another event is answered by two moments, and asks for no span."""
    found = evaluate(store, (1, 9), moments="parts")
    assert found["samples"] == 1
    assert found["auc"] < 0.5  # the scores peak between the two parts
    assert row_of(found, "top-k", 9)["hit_all"] == 1.0
    one = row_of(found, "importance", 1)
    assert one["hit_all"] == 0.0
    assert spans_of('["a"]', "parts") == []
    with pytest.raises(UserError, match="parts"):
        spans_of('{"parts": [1, 2]}', "parts")


def test_scores_of_other_frames_are_refused(store: Store) -> None:
    store.delete("frame_scores", "sample_id = 'good'")
    add_scores(store, {"good": PEAK[:5]})
    with pytest.raises(UserError, match="other frames"):
        evaluate(store)


def test_budgets() -> None:
    assert budgets("16, 8,8") == [8, 16]
    for text in ("", "0", "8,", "-1", "²", "x"):
        with pytest.raises(UserError, match="--frames"):
            budgets(text)


def test_the_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate-scorer", "--store", str(store.path), "--frames", "4"]
    app([*words, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 4
    assert found["next"].startswith("strive-data build-variants")
    app(words, standalone_mode=False)
    told = capsys.readouterr()
    shown = " ".join(told.out.replace("│", " ").split())
    assert "AUC 0.625" in shown
    assert "flat: samples whose scores tell nothing" in told.err
    assert "1 all frames out" in shown
