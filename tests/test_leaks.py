"""Leaks: what training shares with evaluation, by content and by embedding, and that `select` leaves it out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toyworld
from benchmarks.copies import KINDS, World, make_world, precision_recall
from cli.data import app
from pipeline import overlaps, runner
from pipeline.errors import UserError
from pipeline.leaks import leaks, sides
from pipeline.plan import SelectReport
from pipeline.scorer import resolve
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests import curation_world
from tests.curation_world import FRAMES, a_rule, a_sample, add_samples, add_scores, add_videos

LABEL = resolve(str(toyworld.CLIP)).label


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), clips=3 * len(KINDS))


def test_planted_leaks_are_found_and_nothing_else(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = leaks(world.store, ["val"], LABEL)
    videos = [o for o in found.overlaps if o.of == "video"]
    pairs = {frozenset((o.a, o.b)) for o in videos if o.by == "embedding"}
    precision, recall = precision_recall(pairs, world.leaks)
    missed = [sorted(world.names[v] for v in pair) for pair in world.leaks - pairs]
    with capsys.disabled():
        print(f"\n{len(world.leaks)} planted leaks: precision {precision:.3f}, recall {recall:.3f}, missed {missed}")
    assert precision >= 0.95
    assert recall >= 0.95
    assert [(o.a, o.b) for o in videos if o.by == "content"] == [(world.shared, world.shared)]
    assert all("copy" not in world.names[o.a] and "copy" in world.names[o.b] for o in videos if o.by == "embedding")


def test_without_embeddings_only_content_tells(world: World) -> None:
    found = leaks(world.store, ["val"], "")
    assert {(o.of, o.by) for o in found.overlaps} == {("video", "content")}
    assert found.left_out == {"not embedded": len(world.names)}


def test_select_leaves_out_every_training_sample_on_a_leaked_video(world: World) -> None:
    app(
        ["leaks", "--against", "val", "--store", str(world.store.path), "--json"],
        standalone_mode=False,
        prog_name="strive-data",
    )
    pool = world.store.table("samples").to_pylist()
    out = overlaps.excluded(world.store, ["leaks"], pool)
    on_leaked = set().union(*world.leaks) | {world.shared}
    assert set(out.values()) == {"leaked video"}
    assert set(out) == {r["sample_id"] for r in pool if r["split"] == "train" and r["video_id"] in on_leaked}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """half: rewards differ. v1 is for training and, of two questions, for evaluation; v2 has a question twice."""
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2", "v3"])
    rows = [
        a_sample("a", "v1", question="half what?", dataset="ours"),
        a_sample("b", "v1", question="half who?", dataset="ours"),
        a_sample("c", "v2", question="half where?", dataset="ours"),
        a_sample("d", "v2", question="half, where", dataset="ours"),
        a_sample("e", "v3", question="half when?", dataset="ours"),
        a_sample("f", "v1", question="Half what", split="test", dataset="ours"),
        a_sample("g", "v2", question="half where?", split="val", dataset="other"),
    ]
    add_samples(store, rows)
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in rows})
    runner.run(BuildVariants(), store)
    return store


def test_splits_and_datasets_name_the_evaluation_side(store: Store) -> None:
    samples = store.table("samples").to_pylist()

    def names(against: list[str]) -> tuple[set[str], set[str]]:
        evaluation, training = sides(samples, against)
        return (
            {row["sample_id"] for rows in evaluation.values() for row in rows},
            {row["sample_id"] for rows in training.values() for row in rows},
        )

    assert names(["test"]) == ({"f"}, set("abcde"))
    assert names(["other"]) == ({"g"}, set("abcde"))
    assert names(["val", "test"]) == ({"f", "g"}, set("abcde"))
    with pytest.raises(
        UserError, match="no sample has such a split or dataset; there are other, ours, test, train, val"
    ):
        names(["vla"])
    with pytest.raises(UserError, match="no sample is left for training"):
        names(["train"])


def test_content_leaks_of_videos_and_questions(store: Store) -> None:
    found = leaks(store, ["val", "test"], "")
    assert {(o.of, o.a, o.b, o.by) for o in found.overlaps} == {
        ("video", "v1", "v1", "content"),
        ("video", "v2", "v2", "content"),
        ("question", "a", "f", "content"),
        ("question", "c", "g", "content"),
        ("question", "d", "g", "content"),
    }
    assert {o.a for o in leaks(store, ["test"], "").overlaps} == {"v1", "a"}


def choose(store: Store, exclude: list[str], **options: Any) -> SelectReport:
    return curation_world.choose(store, a_rule("0"), exclude=exclude, **options)


def test_the_funnel_names_what_was_excluded_and_the_policy_is_not_asked(store: Store) -> None:
    for kind, words in (("leaks", ["--against", "test"]), ("duplicates", [])):
        app([kind, *words, "--store", str(store.path), "--json"], standalone_mode=False, prog_name="strive-data")
    report = choose(store, ["leaks", "duplicates"], split="train")
    assert set(store.curated("d")["sample_id"].to_pylist()) == {"c", "e"}
    assert (report.dropped["leaked video"], report.dropped["duplicate question"]) == (2, 1)
    assert report.pool == report.kept + sum(report.dropped.values())
    assert set(store.table("rollouts")["sample_id"].to_pylist()) == {"c", "e"}
    assert "leaked video" in Path(report.card).read_text()
    assert choose(store, ["leaks"], split="train").kept == 3
    plain = choose(store, [], split="train")
    assert (plain.kept, "leaked video" in plain.dropped) == (5, False)
    # Evaluation's own samples are not leaks.
    assert "f" in store.curated("d", choose(store, ["leaks"]).tag)["sample_id"].to_pylist()


def test_select_refuses_what_nobody_looked_for(store: Store) -> None:
    with pytest.raises(UserError, match="strive-data leaks --against"):
        choose(store, ["leaks"])
    assert store.count("rollouts") == 0


def test_names_may_be_given_in_any_form(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--against", "val,test"], ["--against", "val", "test"], ["--against", "val", "--against", "test"]):
        app(["leaks", *words, "--store", str(store.path), "--json"], standalone_mode=False, prog_name="strive-data")
        assert json.loads(capsys.readouterr().out)["recipe"]["against"] == ["val", "test"]
    app(["leaks", "--against", "test", "--store", str(store.path)], standalone_mode=False, prog_name="strive-data")
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 question by content, 1 video by content" in shown
    assert "select --exclude leaks" in shown
