"""The views of a sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import runner
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.samplers import SAMPLERS, uniform
from pipeline.schemas import TASKS
from pipeline.store import Store
from pipeline.transforms import WHOLE
from pipeline.variants import BuildVariants, built, jaccard, unseen, within
from pipeline.views import load_view
from tests.curation_world import SIDE, a_sample, add_samples, add_scores, add_videos
from tests.variants_world import PEAK, TIMES, a_store, variants_of


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    count=st.integers(1, 40),
    m=st.integers(1, 6),
    budget=st.integers(1, 12),
    flat=st.booleans(),
    seed=st.integers(0, 9),
    sampler=st.sampled_from(sorted(SAMPLERS)),
)
def test_views_keep_their_rules(
    task: str, count: int, m: int, budget: int, flat: bool, seed: int, sampler: str
) -> None:
    times = np.arange(count) / 2
    scores = np.zeros(count) if flat else np.linspace(0, 1, count)
    views = BuildVariants(m=m, frames=budget, seed=seed, sampler=sampler).views("s", task, scores, times)
    assert [view["variant"] for view in views] == list(range(len(views)))
    assert 1 <= len(views) <= m
    anchor = views[0]
    assert (anchor["kind"], anchor["indices"], tuple(anchor["crop"])) == ("anchor", uniform(count, budget), WHOLE)
    assert len({(tuple(view["indices"]), tuple(view["crop"])) for view in views}) == len(views)
    for view in views:
        assert view["indices"] == sorted(set(view["indices"]))
        assert len(view["indices"]) == min(count, budget)
        assert list(view["times"]) == [times[i] for i in view["indices"]]  # true times: spans stay true
        assert 0.0 <= view["coverage"] <= 1.0
        if task != "choice":
            assert tuple(view["crop"]) == WHOLE
    blind = flat or count == 1 or sampler == "uniform"
    assert {view["kind"] for view in views[1:]} <= {"coverage" if blind else "importance"}
    assert anchor["overlap"] == 0.0
    for k, view in enumerate(views[1:], 1):
        shares = [jaccard(view["indices"], earlier["indices"]) for earlier in views[:k]]
        assert view["overlap"] == pytest.approx(np.mean(shares))


def test_the_anchor_does_not_depend_on_seed_or_scores() -> None:
    one = BuildVariants(seed=1).views("s", "choice", PEAK, TIMES)[0]
    other = BuildVariants(seed=2).views("t", "choice", PEAK[::-1], TIMES)[0]
    assert {k: list(v) if k == "times" else v for k, v in one.items()} == {
        k: list(v) if k == "times" else v for k, v in other.items()
    }


def test_a_view_depends_on_its_own_number_and_sample_only() -> None:
    few = BuildVariants(m=3).views("s", "number", PEAK, TIMES)
    many = BuildVariants(m=6).views("s", "number", PEAK, TIMES)
    assert [view["indices"] for view in many[:3]] == [view["indices"] for view in few]
    assert BuildVariants(m=3).views("t", "number", PEAK, TIMES)[1]["indices"] != few[1]["indices"]


def test_importance_views_hit_a_short_moment_and_still_cover() -> None:
    evidence = [12, 13]
    stage = BuildVariants(m=2)
    views = [stage.views(f"s{i}", "number", PEAK, TIMES)[1] for i in range(200)]
    assert np.mean([any(i in view["indices"] for i in evidence) for view in views]) > 0.95
    assert all(view["coverage"] <= 0.5 for view in views)


def test_a_short_video_gives_what_it_has(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    runner.run(BuildVariants(), store)
    rows = variants_of(store)
    assert [row["indices"] for row in rows["short-grounding"]] == [[0, 1, 2, 3, 4]]
    assert {tuple(row["indices"]) for row in rows["short-choice"]} == {(0, 1, 2, 3, 4)}
    assert len(rows["short-choice"]) == 4  # told apart by their crops


def test_rows_resume_and_follow_their_inputs(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    first = runner.run(BuildVariants(), store)
    assert (first.done, first.failed) == (16, 0)  # "gone" has no frames: not planned
    assert "gone" not in variants_of(store)
    assert {row["kind"] for row in variants_of(store)["flat"][1:]} == {"coverage"}
    before = store.table("variants").to_pylist()
    assert runner.run(BuildVariants(), store).to_do == 0
    assert runner.run(BuildVariants(m=3), store).done == 16
    again = runner.run(BuildVariants(), store)
    assert (again.done, again.stale) == (16, 16)
    assert sorted(map(str, store.table("variants").to_pylist())) == sorted(map(str, before))

    store.delete("frame_scores", "sample_id = 'v1-choice'")
    add_scores(store, {"v1-choice": PEAK[::-1]})
    changed = runner.run(BuildVariants(), store)
    assert (changed.done, changed.stale) == (1, 1)


def test_new_frames_redo_the_views_of_their_video_only(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    runner.run(BuildVariants(), store)
    store.delete("frames", "video_id = 'v2'")
    add_videos(store, ["v2"], recipe="other fps")
    assert runner.run(BuildVariants(), store).done == len(TASKS)


def test_m_1_needs_no_scores(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    add_samples(store, [a_sample("a", "v1")])
    assert runner.run(BuildVariants(), store).planned == 0
    assert runner.run(BuildVariants(m=1), store).rows == 1


def test_a_loaded_view_has_its_frames_and_true_times(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    runner.run(BuildVariants(), store)
    reader = FrameReader(store)
    for row in variants_of(store)["v1-choice"]:
        view = load_view(reader, "v1", row["indices"], row["crop"])
        assert view.times.tolist() == row["times"]
        assert view.frames.shape == (8, SIDE, SIDE, 3)
        same = np.array_equal(view.frames, reader.read("v1", row["indices"]))
        assert same == (tuple(row["crop"]) == WHOLE)


@given(st.sets(st.integers(0, 9), min_size=1), st.sets(st.integers(0, 9), min_size=1))
def test_jaccard(one: set[int], other: set[int]) -> None:
    share = jaccard(sorted(one), sorted(other))
    assert share == jaccard(sorted(other), sorted(one))
    assert (share == 1.0) == (one == other)
    assert (share == 0.0) == (not one & other)


@pytest.mark.parametrize("sampler", ["bolt", "aks", "top-k"])
def test_a_method_without_chance_is_itself_first(sampler: str) -> None:
    waves = np.sin(TIMES) + TIMES / 9
    one, other = (BuildVariants(sampler=sampler, seed=seed).views("s", "number", waves, TIMES) for seed in (1, 2))
    assert one[1]["indices"] == other[1]["indices"]
    drawn = SAMPLERS[sampler].function(waves, TIMES, 8, None, **BuildVariants(sampler=sampler).parameters)
    assert one[1]["indices"] == drawn.indices
    assert len({tuple(view["indices"]) for view in one[1:]}) == len(one) - 1 > 1


def test_the_recipe_holds_the_sampler_and_its_own_parameters_only(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    runner.run(BuildVariants(), store)
    assert runner.run(BuildVariants(power=2.0, depth=3), store).to_do == 0
    assert runner.run(BuildVariants(sampler="bolt"), store).done == 16
    assert runner.run(BuildVariants(sampler="bolt", mix=0.1), store).to_do == 0
    assert runner.run(BuildVariants(sampler="bolt", power=2.0), store).done == 16


def test_uniform_views_need_no_scores(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    add_samples(store, [a_sample("a", "v1")])
    assert runner.run(BuildVariants(m=3, sampler="uniform"), store).rows == 3
    facts = built(store, 3, "uniform")
    assert (facts["kinds"], facts["flat_scores"]) == ({"anchor": 1, "coverage": 2}, 0)
    assert facts["left_out"] == {"no frames": 0, "no scores": 0}


def test_the_overlap_shown_is_the_mean_over_pairs(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    runner.run(BuildVariants(m=4), store)
    means = []
    for views in variants_of(store).values():
        pairs = [jaccard(a["indices"], b["indices"]) for i, a in enumerate(views) for b in views[:i]]
        means += [np.mean(pairs)] if pairs else []
    assert built(store, 4)["overlap"] == pytest.approx(np.mean(means))
    runner.run(BuildVariants(m=1), store)
    assert built(store, 1)["overlap"] is None


def test_samples_and_their_spans_are_left_as_they_are(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    before = store.table("samples")
    for sampler in SAMPLERS:
        runner.run(BuildVariants(sampler=sampler), store)
        for views in variants_of(store).values():
            assert all(view["times"] == [index / 2 for index in view["indices"]] for view in views)
    assert store.table("samples").equals(before)


@pytest.mark.parametrize(
    "bad",
    [
        {"m": 0},
        {"frames": 0},
        {"mix": -0.1},
        {"mix": 1.1},
        {"temperature": 0.0},
        {"bins": 0},
        {"bins": 9},
        {"sampler": "best"},
    ],
)
def test_bad_recipes_are_user_errors(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        BuildVariants(**bad)


@given(
    times=st.lists(st.floats(0, 100), min_size=1, max_size=30, unique=True).map(sorted),
    clip=st.one_of(st.just([]), st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted)),
)
def test_frames_within_a_clip(times: list[float], clip: list[float]) -> None:
    inside = within(np.asarray(times), clip)
    assert [t for t, shown in zip(times, inside, strict=True) if shown] == [
        t for t in times if not clip or clip[0] <= t <= clip[1]
    ]


def test_views_of_a_part_of_a_video_show_that_part_only(tmp_path: Path) -> None:
    """Several questions are about a part of one long file: their views must not show the rest of it."""
    store = Store(tmp_path, create=True)
    add_videos(store, ["v1"])
    parts = {"early": [0.0, 4.0], "late": [5.0, 11.5], "all": [], "past": [50.0, 60.0]}
    add_samples(store, [a_sample(key, "v1", clip=clip) for key, clip in parts.items()])
    add_scores(store, dict.fromkeys(parts, PEAK))
    report = runner.run(BuildVariants(m=3, frames=4), store)
    assert report.reasons == {"moment not cached": 1}
    found = variants_of(store)
    assert set(found) == {"early", "late", "all"}
    for key, views in found.items():
        start, end = parts[key] or [0.0, np.inf]
        for view in views:
            assert view["times"] == [TIMES[i] for i in view["indices"]]
            assert all(start <= t <= end for t in view["times"])
    early = [TIMES[i] for i in found["early"][0]["indices"]]
    assert (early[0] <= 1.0, early[-1] >= 3.0) == (True, True), "the anchor of a part is uniform over that part"


def test_a_moment_that_no_cached_frame_shows_is_left_out(tmp_path: Path) -> None:
    """Of a damaged video only the frames that decode are cached; a question about the rest cannot be answered."""
    store = Store(tmp_path, create=True)
    add_videos(store, ["v1"])  # its frames end at 11.5 s
    spans = {"seen": [[3.0, 5.0]], "end": [[11.9, 14.0]], "lost": [[14.0, 16.0]], "half": [[3.0, 4.0], [14.0, 16.0]]}
    add_samples(store, [a_sample(key, "v1", "grounding", spans=value) for key, value in spans.items()])
    report = runner.run(BuildVariants(m=1), store)
    assert set(variants_of(store)) == {"seen", "end", "half"}
    assert report.reasons == {"moment not cached": 1}
    (row,) = store.table("quarantine").to_pylist()
    assert row["key"] == "lost"
    assert "11.500" in row["message"]


def test_between_frames_far_apart_a_short_moment_still_counts() -> None:
    times = np.arange(0, 100, 10.0)
    assert unseen(times, [], [[12.0, 13.0]]) == ""
    assert unseen(times, [], [[120.0, 121.0]])
    assert unseen(np.zeros(0), [1.0, 2.0], [])
    assert unseen(times, [], []) == ""
