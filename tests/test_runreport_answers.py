"""Answers of two checkpoints side by side, and the command that writes the page."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.report_runs import report
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.store import Store
from tests.run_world import a_run, predictions, rows_of, settings_of, write_lines
from tests.toy_store import a_store
from trainer.runreport import answers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return a_store(tmp_path_factory.mktemp("answers") / "store")


def compare(store: Store, folder: Path, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> answers.Compared:
    files = write_lines(folder / "a.jsonl", first), write_lines(folder / "b.jsonl", second)
    return answers.compare(files, 100, 100, FrameReader(store))


def test_answers_are_paired_graded_and_ordered_by_their_difference(store: Store, tmp_path: Path) -> None:
    found = compare(store, tmp_path, predictions(store, 0), predictions(store, 1)[1:])
    assert found.pairs == 11
    assert found.alone == (1, 0)
    assert found.films == len(found.shown) == 11
    gains = [abs(pair["gain"]) for pair in found.shown]
    assert gains == sorted(gains, reverse=True)
    assert found.first_better == sum(pair["gain"] < 0 for pair in found.shown) > 0
    assert found.second_better == sum(pair["gain"] > 0 for pair in found.shown) > 0
    for pair in found.shown:
        a, b = (side["merit"] for side in pair["sides"])
        assert pair["gain"] == pytest.approx(b - a, abs=1e-3)
        assert [strip["variant"] for strip in pair["film"]["strips"]] == [-1]  # both saw the anchor
    clear = [pair["gain"] > 0 for pair in found.shown if abs(pair["gain"]) == 1.0]
    assert any(clear[:2])
    assert not all(clear[:2])  # both directions, in turn


def test_swapping_the_two_swaps_the_page(store: Store, tmp_path: Path) -> None:
    a, b = predictions(store, 0), predictions(store, 2, "importance")
    one, other = compare(store, tmp_path, a, b), compare(store, tmp_path, b, a)
    assert (one.first_better, one.second_better) == (other.second_better, other.first_better)
    gains = {pair["sample_id"]: pair["gain"] for pair in one.shown}
    assert {pair["sample_id"]: -pair["gain"] for pair in other.shown} == gains


def test_other_views_are_shown_beside_each_other_and_common_ones_first(store: Store, tmp_path: Path) -> None:
    anchor, importance = predictions(store, 0), predictions(store, 0, "importance")
    found = compare(store, tmp_path, anchor, importance)
    assert {tuple(side["view"] for side in pair["sides"]) for pair in found.shown} == {("anchor", "importance")}
    assert all([s["variant"] for s in pair["film"]["strips"]] == [0, 1] for pair in found.shown)
    found = compare(store, tmp_path, anchor + importance, importance)
    assert {tuple(side["view"] for side in pair["sides"]) for pair in found.shown} == {("importance", "importance")}


def test_why_frames_are_not_shown_is_said(store: Store, tmp_path: Path) -> None:
    lines = predictions(store, 0)
    for change, words in (
        ({"frames_fingerprint": "other"}, "other frames"),
        ({"video_id": "gone"}, "not cached"),
        ({"indices": [0, 10_000]}, "other frames"),
        ({"indices": []}, "neither saw a frame"),
    ):
        found = compare(store, tmp_path, [row | change for row in lines], [row | change for row in lines])
        assert all(words in pair["no_film"] for pair in found.shown), words
    bare = [{k: v for k, v in row.items() if k != "indices"} for row in lines]
    assert "do not say which" in compare(store, tmp_path, bare, lines).shown[0]["no_film"]
    files = write_lines(tmp_path / "a.jsonl", lines), write_lines(tmp_path / "b.jsonl", lines)
    assert "--store" in answers.compare(files, 5, 5, None).shown[0]["no_film"]
    assert answers.compare(files, 5, 5, None).films == 0


def test_failures_and_withheld_truths_are_no_difference_that_is_made_up(store: Store, tmp_path: Path) -> None:
    lines = predictions(store, 0)
    failed = [row | {"response": None, "failure": "too-large: no room"} for row in lines]
    found = compare(store, tmp_path, failed, lines)
    assert found.first_better == 0
    assert {pair["sides"][0]["failure"] for pair in found.shown} == {"too-large: no room"}
    choices = [row | {"answer": ""} for row in lines if row["task"] == "choice"]
    found = compare(store, tmp_path, choices, [row | {"response": "other"} for row in choices])
    assert (found.first_better, found.second_better) == (0, 0)
    assert all(pair["sides"][0]["merit"] is None for pair in found.shown)


def test_mistakes_about_answers_are_told(store: Store, tmp_path: Path) -> None:
    lines = predictions(store, 0)
    one = write_lines(tmp_path / "predictions" / "a.jsonl", lines)
    with pytest.raises(UserError, match="got 1"):
        answers.files_of([tmp_path])
    other = write_lines(tmp_path / "predictions" / "b.jsonl", [row | {"sample_id": "x"} for row in lines])
    assert answers.files_of([tmp_path]) == answers.files_of([one, other]) == (one, other)
    with pytest.raises(UserError, match="no question in common"):
        answers.compare((one, other), 5, 5, None)
    with pytest.raises(UserError, match="No such file"):
        answers.compare((one, tmp_path / "none.jsonl"), 5, 5, None)


def test_the_command_writes_the_page(store: Store, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    runs = [str(a_run(tmp_path / name, rows_of(20, 0), settings_of())) for name in ("one", "two")]
    write_lines(tmp_path / "eval" / "predictions" / "a.jsonl", predictions(store, 0))
    write_lines(tmp_path / "eval" / "predictions" / "b.jsonl", predictions(store, 1))
    out = tmp_path / "page.html"
    beside = ["--answers", str(tmp_path / "eval"), "--store", str(store.path)]
    result = CliRunner().invoke(app, [*runs, "--out", str(out), *beside, "--samples", "5", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said == {
        "page": str(out),
        "bytes": out.stat().st_size,
        "steps": {"one": 20, "two": 20},
        "pairs": 12,
        "shown": 5,
    }
    plain = CliRunner().invoke(app, [*runs, "--out", str(out)])
    assert plain.exit_code == 0
    assert "two: It has done 20 of 200 steps" in plain.stderr
    for options, words in (
        (["--smooth", "1"], "--smooth 1"),
        (["--store", "s"], "--answers"),
        (["--out", str(tmp_path / "no" / "page.html")], "folder"),
    ):
        failed = CliRunner().invoke(app, [*runs, *options])
        assert isinstance(failed.exception, UserError)
        assert words in str(failed.exception)
