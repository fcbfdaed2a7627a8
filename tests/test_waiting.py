"""Annotations without their videos come in alone, wait, and are replaced when the videos are there."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import quarantine, status
from pipeline.errors import UserError
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.runner import run
from pipeline.schemas import WAITING
from pipeline.store import Store
from tests.clips import write_clip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def annotations(folder: Path, videos: list[str]) -> Path:
    rows: list[dict[str, Any]] = [
        {"video": video, "sentence": f"{video} begins", "timestamp": [0.5, 3.0], "duration": 2.5} for video in videos
    ]
    (folder / "time_r1.json").write_text(json.dumps(rows))
    return folder / "time_r1.json"


def test_annotations_wait_and_are_replaced(store: Store, tmp_path: Path) -> None:
    file = annotations(tmp_path, ["a", "b"])
    waits = ingest(store, file)
    assert (waits.samples, waits.waiting, waits.rejected, waits.videos) == (2, 2, 0, 0)
    assert waits.repairs == {"span cut to the video's end": 2}  # by the length that the annotation gives
    found = store.table("samples").to_pylist()
    assert all(row["video_id"].startswith(WAITING) for row in found)
    assert [row["spans"] for row in found] == [[[0.5, 2.5]]] * 2
    assert status.status(store)["waiting"] == {"time_r1": 2}
    assert status.status(store)["tables"]["samples"]["stale"] == 0
    assert {row["reason"] for row in quarantine.find(store).to_dicts()} == {"missing file"}
    assert quarantine.find(store).height == 2
    assert run(CacheFrames(), store).planned == 0
    assert ingest(store, file).added == 0

    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", 20)
    come = ingest(store, file, tmp_path / "videos")
    assert (come.samples, come.waiting, come.videos, come.reasons) == (1, 0, 1, {"missing file": 1})
    assert store.table("samples", ["spans"]).to_pylist() == [{"spans": [[0.5, 2.0]]}]
    assert [row["stage"] for row in quarantine.find(store).to_dicts()] == ["ingest time_r1"]


def test_samples_with_videos_are_not_given_up_because_no_folder_was_named(store: Store, tmp_path: Path) -> None:
    file = annotations(tmp_path, ["a"])
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", 20)
    ingest(store, file, tmp_path / "videos")
    with pytest.raises(UserError, match="--videos"):
        ingest(store, file)
    assert store.count("samples") == 1


def test_one_video_beside_the_file_means_that_the_others_are_missing(store: Store, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 20)
    report = ingest(store, annotations(tmp_path, ["a.mp4", "b.mp4"]))
    assert (report.samples, report.waiting, report.reasons) == (1, 0, {"missing file": 1})


def test_half_of_all_datasets_have_a_file_named_val(store: Store, tmp_path: Path) -> None:
    """Two files of the same name in two formats were one source, and the second removed the samples of the first."""
    for folder, rows in (
        ("one", {"v": {"duration": 9.0, "timestamps": [[1, 2]], "sentences": [" it begins"]}}),
        ("two", [{"video": "v", "timestamp": [1, 2], "sentence": "it ends", "duration": 9.0}]),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "val.json").write_text(json.dumps(rows))
        assert ingest(store, tmp_path / folder / "val.json").removed == 0
    assert {(r["source"], r["dataset"], r["split"]) for r in store.table("samples").to_pylist()} == {
        ("activitynet-val", "activitynet", "val"),
        ("time-r1-val", "time-r1", "val"),
    }


def test_quarantine_is_listed_filtered_and_set_free(store: Store, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 20)
    rows = [
        {"video": "a.mp4", "question": "?", "answer": "x"},
        {"video": "b.mp4", "question": "?", "answer": "x"},
        {"video": "a.mp4", "question": "", "answer": "x"},
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    ingest(store, tmp_path / "mine.json")
    (tmp_path / "a.mp4").write_bytes(b"spoilt")
    run(CacheFrames(), store)
    everything = quarantine.find(store)
    assert quarantine.counts(everything) == [
        {"stage": "cache-frames", "reason": "content changed", "items": 1},
        {"stage": "ingest mine", "reason": "missing file", "items": 1},
        {"stage": "ingest mine", "reason": "no question", "items": 1},
    ]
    assert quarantine.find(store, "ingest").height == 2
    assert quarantine.find(store, "ingest", "no q").height == 1
    assert quarantine.find(store, contains="b.mp4").height == 1
    with pytest.raises(UserError, match="the stages are cache-frames, ingest mine"):
        quarantine.find(store, "poems")
    assert run(CacheFrames(), store).to_do == 0
    commands = quarantine.release(store, quarantine.find(store, "cache-frames"))
    assert commands == ["strive-data cache-frames"]
    assert run(CacheFrames(), store).to_do == 1
    assert quarantine.release(store, everything) == ["strive-data ingest", "strive-data cache-frames"]
    assert quarantine.find(store).is_empty()


def test_a_note_about_a_damaged_video_is_no_failure_and_stays(store: Store, tmp_path: Path) -> None:
    """Setting a note free lost what it said, while the rows that it was about stayed."""
    write_clip(tmp_path / "whole.mkv", 60)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "mine.json").write_text(json.dumps([{"video": "cut.mkv", "question": "?", "answer": "x"}]))
    ingest(store, tmp_path / "mine.json")
    report = run(CacheFrames(fps=10), store)
    assert (report.done, report.failed) == (1, 0)
    assert list(report.notes) == ["damaged: frames missing"]
    found = status.status(store)
    assert found["notes"] == {"cache-frames": {"damaged: frames missing": 1}}
    assert found["quarantine"] == {}
    assert quarantine.find(store)["kept"].to_list() == [True]
    assert quarantine.release(store, quarantine.find(store)) == []
    assert quarantine.find(store).height == 1
    assert run(CacheFrames(fps=10), store).to_do == 0
    strict = run(CacheFrames(fps=10, strict=True), store)
    assert (strict.done, strict.failed, store.count("frames")) == (0, 1, 0)
    assert status.status(store)["notes"] == {}
