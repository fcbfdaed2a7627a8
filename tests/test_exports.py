"""Exports: what comes back through ingest, what is left out, and folders that appear complete."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cli.exports import export as command
from pipeline import sources
from pipeline.errors import UserError
from pipeline.exports import FORMATS, find
from pipeline.exports.common import Shown, safe_name
from pipeline.exports.export import LEFT_OUT
from pipeline.exports.files import MANIFEST
from pipeline.ingest import ingest
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.values import LETTERED
from pipeline.store import Store
from tests.clips import write_clip
from tests.export_world import LENGTH_S, TASKS, a_store, a_view, add_file, all_tasks, curated_row, lines, run


def drafts(file: Path) -> Iterator[Draft | Rejected]:
    source, rows = sources.read(file)
    yield from source.drafts(rows)


# Round trips: what ingest could have taken in comes back from a file of ours.

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(str.strip).filter(bool)


@st.composite
def samples(draw: st.DrawFn, tasks: tuple[str, ...]) -> dict[str, Any]:
    task = draw(st.sampled_from(tasks))
    options = draw(st.lists(WORDS, min_size=2, max_size=5)) if "choice" in task else []
    answers = {"number": st.floats(allow_nan=False, allow_infinity=False).map(repr), "open": WORDS}
    answer = options[0] if options else draw(answers.get(task, st.just("")))
    spans = []
    if task in ("grounding", "grounded_choice"):
        moments = draw(st.lists(st.integers(0, 1200), min_size=2, max_size=6, unique=True).map(sorted))
        spans = [(a / 100, b / 100) for a, b in zip(moments[::2], moments[1::2], strict=False)]
    try:
        draft = make_draft(
            {}, dataset="d", row_id="1", video="v", task=task, question=draw(WORDS), options=options, answer=answer,
            spans=spans,
        )  # fmt: skip
    except Rejected:
        assume(False)
        raise
    found = {"question": draft.question, "options": list(draft.options), "answer": draft.answer}
    return curated_row(draw(WORDS), task=task, spans=[list(span) for span in draft.spans], **found)


def back(format: str, sample: dict[str, Any], folder: Path) -> Draft | Rejected:
    chosen = find(format)
    medium = chosen.media[0]
    assume(not chosen.refuse(sample, medium))
    row = chosen.row(sample, Shown(folder, "videos/v1.mp4", LENGTH_S))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    chosen.write(folder, folder, iter([row]), medium)
    names = {"video-r1": "train.json", "temporal-r1": "train.yaml", "jsonl": "train.jsonl"}
    (found,) = drafts(folder / names[format])
    return found


ROUND_TRIP = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ROUND_TRIP
@given(sample=samples(("choice", "number", "open")))
def test_video_r1_comes_back_through_ingest(tmp_path: Path, sample: dict[str, Any]) -> None:
    found = back("video-r1", sample, tmp_path / "out")
    assert isinstance(found, Draft), found
    assert (found.task, found.question) == (sample["task"], sample["question"])
    assert (list(found.options), found.answer) == (sample["options"], sample["answer"])
    assert found.video == "./videos/v1.mp4"


@ROUND_TRIP
@given(sample=samples(tuple(TASKS.values())))
def test_jsonl_comes_back_through_ingest(tmp_path: Path, sample: dict[str, Any]) -> None:
    assume(not any(LETTERED.fullmatch(option) for option in sample["options"]))  # ingest takes letters for labels
    found = back("jsonl", sample, tmp_path / "out")
    assert isinstance(found, Draft), found
    assert (found.task, found.question) == (sample["task"], sample["question"])
    assert (list(found.options), found.answer) == (sample["options"], sample["answer"])
    assert [list(span) for span in found.spans] == sample["spans"]
    assert (found.split, found.length_s) == ("train", LENGTH_S)


@ROUND_TRIP
@given(sample=samples(("grounding",)))
def test_temporal_r1_comes_back_through_ingest(tmp_path: Path, sample: dict[str, Any]) -> None:
    assume(not set('"“”') & set(sample["question"]))  # ingest finds a query by the quotation marks around it
    found = back("temporal-r1", sample, tmp_path / "out")
    assert isinstance(found, Draft), found
    assert found.question == sample["question"]
    assert found.shares and found.length_s == LENGTH_S
    assert np.allclose(np.array(found.spans) * LENGTH_S, sample["spans"], rtol=0, atol=1e-9)
    assert found.split == "train"


def test_what_ingest_reads_back_is_the_sample_that_was_exported(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "real.mp4", 40)
    store = a_store(tmp_path, *all_tasks())
    store.delete("videos", "true")
    add_file(store, clip, 4.0)
    run(store, "video-r1", tmp_path / "out")
    other = Store(tmp_path / "other", create=True)
    report = ingest(other, tmp_path / "out" / "train.json", tmp_path / "out")
    assert (report.format, report.samples, report.rejected) == ("video-r1", 3, 0)


# What is left out.


@pytest.mark.parametrize(
    ("format", "columns", "reason"),
    [
        ("video-r1", {"clip": [1.0, 5.0]}, "part of a longer video"),
        ("temporal-r1", {"task": "grounding", "clip": [1.0, 5.0]}, "part of a longer video"),
        ("ms-swift", {"clip": [1.0, 5.0]}, "part of a longer video"),
        ("easyr1", {"clip": [1.0, 5.0]}, "part of a longer video"),
        ("trl", {"task": "grounded_choice", "spans": [[1.0, 2.0], [3.0, 4.0]]}, "several spans"),
        ("ms-swift", {"task": "grounding", "spans": [[1.0, 2.0], [3.0, 4.0]]}, "several spans"),
        ("easyr1", {"question": "what does <video> mean?"}, "media tag in the text"),
        ("ms-swift", {"options": ["an <image>", "b", "c"]}, "media tag in the text"),
        ("video-r1", {"task": "open", "options": [], "answer": "</answer>"}, "answer tag in the answer"),
        ("jsonl", {"video_id": "gone"}, "no video"),
        ("trl", {"video_id": "gone"}, "no frames"),
        ("trl", {"frames_fingerprint": "of another cache"}, "frames changed"),
        ("trl", {"variants": [a_view(0, "anchor", [1, 99])]}, "damaged frames"),
    ],
)
def test_what_a_layout_cannot_say_is_listed_and_not_bent(
    tmp_path: Path, format: str, columns: dict[str, Any], reason: str
) -> None:
    task = "grounding" if format == "temporal-r1" else "choice"
    kept, lost = curated_row("kept", task=task), curated_row("lost", **columns)
    if lost["task"] in ("grounding", "grounded_choice"):
        lost["spans"] = lost["spans"] or [[1.0, 2.0]]
    report = run(a_store(tmp_path, kept, lost), format, tmp_path / "out")
    assert (report.samples, report.exported, report.left_out) == (2, 1, {reason: 1})
    (left,) = lines(tmp_path / "out" / LEFT_OUT)
    assert (left["sample_id"], left["reason"]) == ("lost", reason)
    assert reason in (tmp_path / "out" / "README.md").read_text()


def test_a_part_of_a_video_is_no_trouble_for_frames(tmp_path: Path) -> None:
    report = run(a_store(tmp_path, curated_row("c", clip=[1.0, 9.5])), "easyr1", tmp_path / "out", medium="frames")
    assert (report.exported, report.left_out) == (1, {})


def test_a_video_that_went_away_is_left_out(tmp_path: Path) -> None:
    store = a_store(tmp_path, curated_row("c"))
    (tmp_path / "clips" / "AB 1.mp4").unlink()
    with pytest.raises(UserError, match="1 missing file"):
        run(store, "ms-swift", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sample_without_a_chosen_view_is_left_out_of_those(tmp_path: Path) -> None:
    flat = curated_row("flat", variants=[a_view(0, "anchor", [1]), a_view(1, "coverage", [2])])
    report = run(a_store(tmp_path, flat, curated_row("c")), "trl", tmp_path / "out", view="importance")
    assert report.left_out == {"no importance view": 1}


def test_weights_without_a_place_are_counted(tmp_path: Path) -> None:
    store = a_store(tmp_path, curated_row("a", weight=2.5), curated_row("b"))
    assert run(store, "easyr1", tmp_path / "e").weights == 1
    assert run(store, "trl", tmp_path / "t").weights == 0


# Folders.


def test_names_from_annotations_stay_in_the_folder(tmp_path: Path) -> None:
    hostile = ["../../up", "/etc/x", "a/b", "..", ".hidden", "x" * 300, "nul\0", "ü"]
    run(
        a_store(tmp_path, *(curated_row(key) for key in hostile)),
        "jsonl",
        tmp_path / "deep" / "out",
        medium="frames",
        view="all",
    )
    out = tmp_path / "deep" / "out"
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}
    for row in lines(out / "train.jsonl"):
        for name in row["frames"]:
            assert (out / name).resolve().is_relative_to(out)
            assert (out / name).is_file()
    assert {path.name for path in out.iterdir()} == {"train.jsonl", "frames", "README.md", LEFT_OUT, MANIFEST}


@given(st.text(max_size=200))
def test_a_safe_name_is_one_plain_name(text: str) -> None:
    name = safe_name(text)
    assert name not in ("", ".", "..")
    assert Path(name).name == name
    assert len(name.encode()) <= 100


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    store, out = a_store(tmp_path, curated_row("a")), tmp_path / "out"
    out.mkdir()
    first = run(store, "jsonl", out)  # an empty folder is free
    assert json.loads((out / MANIFEST).read_text()) == first.as_dict()
    with pytest.raises(UserError, match="--overwrite"):
        run(store, "jsonl", out)
    run(store, "easyr1", out, overwrite=True)
    assert json.loads((out / MANIFEST).read_text())["format"] == "easyr1"
    assert not (out / "clips").exists()
    (out / MANIFEST).unlink()
    with pytest.raises(UserError, match="choose another"):
        run(store, "jsonl", out, overwrite=True)
    assert (out / "train.jsonl").is_file()


def test_after_a_failure_nothing_is_left_and_the_old_export_stands(tmp_path: Path) -> None:
    store, out = a_store(tmp_path, curated_row("a")), tmp_path / "deep" / "out"
    run(store, "jsonl", out)
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    with pytest.raises(UserError, match="0 of 1 samples"):
        run(store, "temporal-r1", out, overwrite=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_disk_that_does_not_take_it_is_a_plain_mistake(tmp_path: Path) -> None:
    store = a_store(tmp_path, curated_row("a"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        run(store, "jsonl", tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("format", "options", "said"),
    [
        ("nope", {}, "video-r1, temporal-r1, trl"),
        ("trl", {"medium": "clips"}, "takes the frames"),
        ("video-r1", {"medium": "frames"}, "takes video files"),
        ("ms-swift", {"view": "anchor"}, "whole video"),
        ("trl", {"view": "best"}, "anchor, importance, all"),
        ("trl", {"tag": "v9"}, "known tags: v1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, format: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(a_store(tmp_path, curated_row("a")), format, tmp_path / "out", **options)


def test_a_tag_is_exported_as_it_was(tmp_path: Path) -> None:
    a_store(tmp_path, curated_row("a"), curated_row("b"))
    store = a_store(tmp_path, curated_row("b"), tag="v2")
    assert run(store, "jsonl", tmp_path / "one", tag="v1").samples == 2
    newest = run(store, "jsonl", tmp_path / "two")
    assert (newest.samples, newest.tag) == (1, "v2")


def test_the_same_dataset_gives_the_same_files(tmp_path: Path) -> None:
    store = a_store(tmp_path, *all_tasks())
    for format in FORMATS:
        out = tmp_path / format.name
        contents = []
        for _ in range(2):
            run(store, format.name, out, overwrite=True)
            contents.append({path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
        assert contents[0] == contents[1]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, app = a_store(tmp_path, *all_tasks()), typer.Typer()
    app.command()(command)
    words = ["--store", str(store.path), "--format", "video-r1", "--out"]
    app([*words, str(tmp_path / "a"), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert (found["exported"], found["rows"], found["tasks"]) == (3, 3, {"choice": 1, "number": 1, "open": 1})
    app([*words, str(tmp_path / "b")], standalone_mode=False)
    assert "1 no problem_type for grounding" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    with pytest.raises(UserError, match="one of the two"):
        app([*words, str(tmp_path / "c"), "--frames", "--clips"], standalone_mode=False)
