"""Near-duplicates: the two measures of likeness, planted copies of toy clips, and what stays of a group."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toyworld
from benchmarks.copies import KINDS, World, make_world, precision_recall
from cli.data import app
from pipeline import overlaps
from pipeline.duplicates import VIDEO_THRESHOLD, alike_questions, duplicates, joined
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.likeness import normalised, question_likeness, video_likeness
from pipeline.overlaps import redundant
from pipeline.scorer import resolve
from pipeline.search import embedded
from pipeline.store import Store
from tests.curation_world import a_sample, add_samples, add_videos

LABEL = resolve(str(toyworld.CLIP)).label


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), clips=3 * len(KINDS))


def a_video(seed: int, frames: int = 60, dim: int = 8) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(seed).standard_normal((frames, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), np.arange(frames) / 4


@given(st.integers(0, 10**6), st.integers(10, 90), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
@settings(deadline=None)
def test_a_part_is_like_its_whole_at_its_place_and_both_ways(seed: int, frames: int, head: float, tail: float) -> None:
    whole, times = a_video(seed, frames)
    first, last = int(head * frames), frames - int(tail * frames)
    part, part_times = whole[first:last], times[: last - first]
    found = video_likeness(whole, times, part, part_times)
    assert found.similarity == pytest.approx(1.0, abs=1e-5)
    assert found.shift_s == pytest.approx(first / 4)
    back = video_likeness(part, part_times, whole, times)
    assert back.similarity == pytest.approx(found.similarity, abs=1e-6)
    assert back.shift_s == pytest.approx(-found.shift_s)


def test_other_videos_and_another_order_are_not_alike() -> None:
    vectors, times = a_video(1)
    assert video_likeness(vectors, times, *a_video(2)).similarity < 0.8
    assert video_likeness(vectors, times, vectors[::-1], times).similarity < 0.8


def test_a_few_spoilt_frames_and_a_copy_on_another_grid_are_forgiven() -> None:
    vectors, times = a_video(3)
    spoilt = vectors.copy()
    spoilt[[5, 20, 33]] = a_video(4)[0][[5, 20, 33]]
    assert video_likeness(vectors, times, spoilt, times).similarity > VIDEO_THRESHOLD
    slow = np.repeat(a_video(3, 12)[0], 8, axis=0)  # shots of two seconds
    grid = np.arange(len(slow)) / 4
    assert video_likeness(slow, grid, slow[3::2], (grid[3::2] - grid[3]) + 0.06).similarity > 0.99


def test_single_frames_and_none() -> None:
    vectors, times = a_video(4)
    assert video_likeness(vectors, times, vectors[7:8], times[:1]).shift_s == pytest.approx(7 / 4)
    assert video_likeness(vectors[:1], times[:1], vectors[:1], times[:1]).similarity == pytest.approx(1.0)
    with pytest.raises(ValueError, match="without frames"):
        video_likeness(vectors, times, vectors[:0], times[:0])


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=5), max_size=4))
def test_likeness_of_questions_is_symmetric_and_1_for_itself(a: str, b: str, options: list[str]) -> None:
    assert question_likeness(a, options, a, options[::-1]) == 1.0
    assert question_likeness(a, options, b, []) == question_likeness(b, [], a, options)
    assert 0.0 <= question_likeness(a, options, b, options) <= 1.0
    assert normalised(normalised(a)) == normalised(a)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("What is the man doing?", "what is man doing", True),
        ("Does the dog bite the man?", "Does the man bite the dog?", False),
        ("What happens before the jump?", "What happens after the jump?", False),
        ("How many red balls are there?", "How many blue balls are there?", False),
        ("Is 5 > 3?", "Is 5 < 3?", False),
    ],
)
def test_likeness_of_questions_by_example(a: str, b: str, same: bool) -> None:
    assert (question_likeness(a, [], b, []) >= 0.85) == same


def test_other_options_make_another_question() -> None:
    assert question_likeness("what?", ["a cat", "a dog"], "What?", ["A dog.", "a cat"]) == 1.0
    assert question_likeness("what?", ["a cat", "a dog"], "what?", ["a cat", "a cow"]) < 0.5
    assert question_likeness("how much?", ["3", "4"], "how much?", ["-3", "4"]) < 0.5


def test_of_a_chain_every_second_one_is_redundant_and_others_do_not_count() -> None:
    chain = [("a", "b"), ("b", "c"), ("c", "d")]
    assert redundant(set("abcd"), chain) == {"b", "d"}
    assert redundant(set("bcd"), chain) == {"c"}
    assert redundant({"d"}, chain) == set()
    assert joined("abcde", chain) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}


def test_planted_copies_are_found_and_nothing_else(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = duplicates(world.store, LABEL)
    pairs = {frozenset((o.a, o.b)) for o in found.overlaps if o.of == "video"}
    precision, recall = precision_recall(pairs, world.duplicates)
    missed = [sorted(world.names[v] for v in pair) for pair in world.duplicates - pairs]
    with capsys.disabled():
        print(f"\n{len(world.duplicates)} planted duplicates: precision {precision:.3f}, recall {recall:.3f}, {missed}")
    assert precision >= 0.95
    assert recall >= 0.95
    for overlap in found.overlaps:
        if "-head" in world.names[overlap.b]:
            assert 1.0 <= overlap.shift_s <= 4.0
        if any(kind in world.names[overlap.b] for kind in ("-coarse", "-small", "-tail", "-h265")):
            assert abs(overlap.shift_s) <= 0.25
        assert "copy" not in world.names[overlap.a] or "-large" in world.names[overlap.a]


def test_looking_up_neighbours_finds_what_comparing_all_pairs_finds(world: World) -> None:
    of, reader = embedded(world.store, LABEL), FrameReader(world.store)
    vectors = of.read(list(of.rows))
    samples = world.store.table("samples", ["video_id", "split"]).to_pylist()
    splits: dict[str, set[str]] = {}
    for row in samples:
        splits.setdefault(row["video_id"], set()).add(row["split"])
    every = {
        frozenset(pair)
        for pair in combinations(sorted(vectors), 2)
        if splits[pair[0]] & splits[pair[1]]
        and video_likeness(vectors[pair[0]], reader.times(pair[0]), vectors[pair[1]], reader.times(pair[1])).similarity
        >= VIDEO_THRESHOLD
    }
    found = duplicates(world.store, LABEL)
    assert {frozenset((o.a, o.b)) for o in found.overlaps if o.of == "video"} == every


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    add_samples(
        store,
        [
            a_sample("a", "v1", question="What is the man doing?"),
            a_sample("b", "v1", question="what is man doing"),
            a_sample("c", "v1", question="what is man doing", options=["x", "y"]),
            a_sample("d", "v2", question="What is the man doing?"),
            a_sample("e", "v1", question="What is the man doing?", split="val"),
        ],
    )
    return store


def test_questions_are_duplicates_on_one_video_in_one_split_with_the_same_options(store: Store) -> None:
    found = duplicates(store, "")
    assert [(o.of, o.a, o.b, o.by) for o in found.overlaps] == [("question", "a", "b", "content")]
    assert found.left_out == {"not embedded": 2}
    assert alike_questions([], 0.5) == []


def test_what_was_found_is_stored_and_holds_until_the_store_changes(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = store.table("samples").to_pylist()
    with pytest.raises(UserError, match="nobody looked"):
        overlaps.excluded(store, ["duplicates"], pool)
    for _ in range(2):
        app(["duplicates", "--store", str(store.path), "--json"], standalone_mode=False, prog_name="strive-data")
        printed = json.loads(capsys.readouterr().out)
        assert printed["counts"] == {"question by content": 1}
        assert (store.count("overlaps"), store.count("overlap_checks")) == (1, 1)
    app(["duplicates", "--store", str(store.path)], standalone_mode=False, prog_name="strive-data")
    assert "strive-data select --exclude duplicates" in " ".join(capsys.readouterr().out.split())
    assert overlaps.excluded(store, ["duplicates"], pool) == {"b": "duplicate question"}
    assert overlaps.excluded(store, ["duplicates"], [row for row in pool if row["sample_id"] != "a"]) == {}
    add_samples(store, [a_sample("new", "v2")])
    with pytest.raises(UserError, match="changed since"):
        overlaps.excluded(store, ["duplicates"], pool)
    with pytest.raises(UserError, match="one or more of"):
        overlaps.excluded(store, ["twins"], pool)


@pytest.mark.parametrize("bad", [0.0, 1.5, float("nan")])
def test_thresholds_that_mean_nothing_are_refused(store: Store, bad: float) -> None:
    with pytest.raises(UserError, match="--video-threshold"):
        duplicates(store, "", video_threshold=bad)
    with pytest.raises(UserError, match="--question-threshold"):
        duplicates(store, "", question_threshold=bad)
