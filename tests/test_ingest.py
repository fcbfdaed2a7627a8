"""Ingest: every row of a file becomes a sample or stands in quarantine with its reason; the same file adds nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sources
from pipeline.decode import content_id
from pipeline.errors import UserError
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest, sample_id, total_of
from pipeline.runner import run
from pipeline.schemas import TASKS
from pipeline.store import Store
from tests.clips import write_clip, write_sound
from tests.ingest_rows import write
from tests.source_choices import problem


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 2 s, a sound file, an empty file."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "deep").mkdir()
    write_clip(folder / "a.mp4", 20, tint=10)
    write_clip(folder / "deep" / "b.mp4", 20, tint=60)
    write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def samples(store: Store) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in store.table("samples").to_pylist()}


def test_video_r1_rows_become_samples(store: Store, videos: Path, tmp_path: Path) -> None:
    rows = [
        problem(0),
        problem(1, path="deep/b.mp4", problem_type="numerical", options=None, solution="<answer> 3 </answer>"),
        problem(2, problem_type="free-form", options=[], solution="a dog", evidence=[[0.5, 1.0]]),
        problem(3, options=["B. two", "A. one", "C. three"], solution="<answer>A</answer>"),
        problem(4, data_type="image", path="x.png"),
        problem(5, options=["A. yes"], solution="<answer>A</answer>"),
        problem(6, solution="<answer>E</answer>"),
        problem(7, path="nowhere.mp4"),
        problem(8, path="../a.mp4"),
        problem(9, path="sound.mp4"),
        problem(10, path="empty.mp4"),
        problem(11, problem_type="riddle"),
        problem(12, problem_type="regression", options=None, solution="<answer>many</answer>"),
        problem(0),
        "no object",
        problem(15, problem="", path="a.mp4"),
        problem(16, path=None),
        problem(17, options=["A. red", "B. red"], solution="<answer>A</answer>"),
        problem(18, problem="half \ud800"),
        problem(19, path="x" * 300),
    ]
    report = ingest(store, write(tmp_path / "train.json", rows), videos, "train")
    assert (report.rows, report.samples, report.rejected, report.repaired) == (20, 4, 16, 1)
    assert report.videos == report.videos_added == 2
    assert report.reasons == {
        "not a video row": 1,
        "fewer than two options": 2,
        "answer is none of the options": 1,
        "missing file": 2,
        "path leaves the videos folder": 1,
        "no video stream": 1,
        "empty file": 1,
        "unknown problem_type": 1,
        "answer is not a number": 1,
        "repeated row": 1,
        "not an object": 1,
        "no question": 1,
        "no video named": 1,
        "broken text": 1,
    }
    assert report.repairs == {"options put in order": 1}
    found = sorted(samples(store).values(), key=lambda row: json.loads(row["origin"])["problem_id"])
    assert [(row["task"], row["options"], row["answer"]) for row in found] == [
        ("choice", ["paper", "cloth"], "B"),
        ("number", [], "3"),
        ("open", [], "a dog"),
        ("choice", ["one", "two", "three"], "A"),
    ]
    assert [row["video_id"] for row in found[:2]] == [
        content_id(videos / "a.mp4"),
        content_id(videos / "deep" / "b.mp4"),
    ]
    assert json.loads(found[2]["origin"])["evidence"] == [[0.5, 1.0]]
    assert {row["source"] for row in found} == {"train"}
    quarantine = store.table("quarantine").to_pylist()
    assert sum(row["stage"] == "ingest train" for row in quarantine) == 16
    assert [row["reason"] for row in quarantine if row["stage"] == "probe train"] == ["no video stream"]
    assert any("row 7" in row["message"] and "nowhere.mp4" in row["message"] for row in quarantine)


def test_the_same_file_adds_nothing(store: Store, videos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", [problem(0), problem(1), problem(2, path="nowhere.mp4")])
    first = ingest(store, file, videos)
    before = {name: store.table(name) for name in ("samples", "videos", "quarantine")}
    second = ingest(store, file, videos)
    assert (first.added, first.already) == (2, 0)
    assert (second.added, second.already, second.removed, second.videos_added) == (0, 2, 0, 0)
    assert second.reasons == first.reasons == {"missing file": 1}
    for name in ("samples", "videos"):
        assert store.table(name).equals(before[name])
    assert (
        store.table("quarantine")
        .select(["stage", "key", "reason"])
        .equals(before["quarantine"].select(["stage", "key", "reason"]))
    )


def test_an_edited_file_adds_and_removes_its_own_rows_only(store: Store, videos: Path, tmp_path: Path) -> None:
    ingest(store, write(tmp_path / "one.json", [problem(0), problem(1), problem(2, problem_type="riddle")]), videos)
    ingest(store, write(tmp_path / "two.json", [problem(0)]), videos)
    report = ingest(store, write(tmp_path / "one.json", [problem(1), problem(2), problem(3)]), videos)
    assert (report.samples, report.added, report.removed, report.rejected) == (3, 2, 1, 0)
    assert store.count("samples", "source = 'video-r1-one'") == 3
    assert store.count("samples", "source = 'video-r1-two'") == 1
    assert store.count("quarantine") == 0
    changed = ingest(store, write(tmp_path / "one.json", [problem(1, solution="<answer>A</answer>")]), videos)
    assert (changed.added, changed.removed) == (1, 3)  # one sample is new under its old name, two are gone


def test_removed_samples_come_back_under_their_names(store: Store, videos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "one.json", [problem(i) for i in range(4)])
    ingest(store, file, videos)
    before = samples(store)
    store.remove_items("samples", [(next(iter(before)),)])
    assert ingest(store, file, videos).added == 1
    assert samples(store) == before


def test_one_content_is_one_video(store: Store, videos: Path, tmp_path: Path) -> None:
    """A second name, a renaming and a move change neither the video nor anything that was made from it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(videos / "a.mp4", folder / "one.mp4")
    shutil.copy(videos / "a.mp4", folder / "two.mp4")
    rows = [problem(0, path="one.mp4"), problem(1, path="two.mp4")]
    file = write(tmp_path / "train.json", rows)
    assert ingest(store, file, folder).videos == 1
    run(CacheFrames(), store)
    (folder / "one.mp4").unlink()
    (folder / "two.mp4").rename(folder / "three.mp4")
    report = ingest(store, write(tmp_path / "train.json", [problem(0, path="three.mp4")]), folder)
    assert (report.videos, report.videos_added) == (1, 0)
    assert store.table("videos", ["path"]).to_pylist() == [{"path": str(folder / "three.mp4")}]
    assert run(CacheFrames(), store).to_do == 0


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet", ".json"])
def test_generic_files_with_a_column_mapping(store: Store, videos: Path, tmp_path: Path, kind: str) -> None:
    rows = [
        {"clip": "a.mp4", "q": "which?", "a0": "red", "a1": "blue", "a2": "", "right": "1", "when": "[[0.5, 1.0]]"},
        {"clip": "a.mp4", "q": "which one?", "a0": "red", "a1": "blue", "a2": "green", "right": "2", "when": ""},
        {"clip": "a.mp4", "q": "which else?", "a0": "red", "a1": "blue", "a2": "green", "right": "3", "when": ""},
    ]
    mapping = {"video": "clip", "question": "q", "options": "a0,a1,a2", "answer_index": "right", "spans": "when"}
    report = ingest(store, write(tmp_path / f"g{kind}", rows), videos, "mine", "val", "auto", mapping)
    assert (report.samples, report.reasons) == (2, {"answer is none of the options": 1})
    found = {row["question"]: row for row in samples(store).values()}
    assert (found["which?"]["task"], found["which?"]["answer"]) == ("grounded_choice", "B")
    assert found["which?"]["spans"] == [[0.5, 1.0]]
    assert (found["which one?"]["task"], found["which one?"]["answer"]) == ("choice", "C")
    assert {(row["source"], row["split"]) for row in found.values()} == {("mine", "val")}


def test_generic_rows_of_every_kind(store: Store, videos: Path, tmp_path: Path) -> None:
    def row(question: str, **rest: Any) -> dict[str, Any]:
        return {"video": "a.mp4", "question": question, **rest}

    rows = [
        row("when?", spans=[[0.5, 1.0]]),
        row("late?", spans=[[1.0, 3.0]]),
        row("swapped?", spans=[1.5, 0.5]),
        row("text?", spans="0.25-0.75"),
        row("past?", spans=[[5.0, 6.0]]),
        row("never?", spans=[], task="grounding"),
        row("zero?", spans=[[1.0, 1.0]]),
        row("bad?", spans=[["x", 1.0]]),
        row("how many?", answer=2),
        row("what?", answer="a dog", split="test"),
        row("digit?", options=["1", "2"], answer="2"),
        row("text of an option?", options={"A": "red", "B": "blue"}, answer="Blue"),
        row("what task?", answer="x", task="poem"),
        row("nothing?"),
    ]
    report = ingest(store, write(tmp_path / "g.jsonl", rows), videos)
    found = {row["question"]: row for row in samples(store).values()}
    assert report.reasons == {
        "span past the video's end": 1,
        "no span": 1,
        "span without length": 1,
        "unreadable span": 1,
        "unknown task": 1,
        "no answer": 1,
    }
    assert report.repairs == {"span cut to the video's end": 1, "span ends swapped": 1}
    assert found["late?"]["spans"] == [[1.0, 2.0]]
    assert found["swapped?"]["spans"] == [[0.5, 1.5]]
    assert found["text?"]["spans"] == [[0.25, 0.75]]
    assert (found["how many?"]["task"], found["how many?"]["answer"]) == ("number", "2")
    assert (found["what?"]["task"], found["what?"]["split"]) == ("open", "test")
    assert found["digit?"]["answer"] == found["text of an option?"]["answer"] == "B"
    assert {row["task"] for row in found.values()} <= set(TASKS)


def test_a_file_without_one_usable_row_is_an_error_and_removes_nothing(
    store: Store, videos: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "train.json", [problem(0), problem(1)])
    ingest(store, file, videos)
    with pytest.raises(UserError, match=r"2 missing file.*--videos"):
        ingest(store, file, tmp_path)
    assert store.count("samples") == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.json", None, "no such file"),
        ("a.json", "", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.jsonl", "\n\n", "no rows"),
        ("a.json", "{", "not readable"),
        ("a.json", '{"a": 1}', "no known source"),
        ("a.jsonl", '{"a": 1}\nx\n', "line 2"),
        ("a.parquet", "no parquet", "not readable"),
        ("a.csv", "video,question\n", "no rows"),
        ("a.doc", "hello", "the kinds are"),
    ],
)
def test_unusable_files_are_the_users_error(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        sources.read(tmp_path / name)


def test_mappings_and_formats_are_checked(store: Store, videos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "g.jsonl", [{"video": "a.mp4", "question": "?", "answer": "x"}])
    for mapping in ({"clip": "video"}, {"video": "clip"}):
        with pytest.raises(UserError, match="--map"):
            ingest(store, file, videos, mapping=mapping)
    for format, mapping in (("yaml", None), ("video-r1", {"video": "video"})):
        with pytest.raises(UserError, match="--format"):
            ingest(store, file, videos, format=format, mapping=mapping)


def test_several_sources_count_a_shared_video_once(store: Store, videos: Path, tmp_path: Path) -> None:
    reports = [ingest(store, write(tmp_path / f"{name}.json", [problem(0)]), videos) for name in ("one", "two")]
    total = total_of(store, reports)
    assert (total["rows"], total["samples"], total["videos"]) == (2, 2, 1)
    assert (total["source"], total["format"]) == ("video-r1-one, video-r1-two", "video-r1")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(*[texts] * 4), min_size=2, max_size=2, unique=True))
def test_sample_ids_differ_where_anything_differs(pair: list[tuple[str, str, str, str]]) -> None:
    assert sample_id(*pair[0]) != sample_id(*pair[1])
    assert sample_id(*pair[0]) == sample_id(*pair[0])
