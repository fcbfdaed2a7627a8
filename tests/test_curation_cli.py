"""score-frames, build-variants and select as commands: what they print, and how they refuse."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from cli import output
from cli.data import app
from pipeline.errors import UserError
from pipeline.store import Store
from tests.curation_world import FRAMES, a_sample, a_scorer, add_samples, add_scores, add_videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    add_samples(store, [a_sample("a", "v1"), a_sample("b", "v1", "grounding"), a_sample("gone", "quarantined")])
    return store


def command(*words: object) -> None:
    """The program itself ends the process, so the app is called as it calls it."""
    app([str(word) for word in words], standalone_mode=False, prog_name="strive-data")


def test_scores_and_views_as_json(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def report(*words: object) -> dict[str, Any]:
        command(*words, "--store", store.path, "--json")
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    scored = report("score-frames", "--model", folder, "--device", "cpu")
    assert (scored["embeddings"]["done"], scored["scores"]["done"]) == (1, 2)
    assert scored["left_out"] == {"no frames": 1, "frames not embedded": 0}
    assert report("score-frames", "--model", folder)["to_do"] == 0
    built = report("build-variants", "--variants", 3, "--no-spatial")
    assert (built["done"], built["views"], built["kinds"]) == (2, 6, {"anchor": 2, "importance": 4})
    assert report("build-variants", "--variants", 3, "--no-spatial")["to_do"] == 0


def test_tables_say_what_is_left_out(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_scores(store, {"a": np.zeros(FRAMES), "b": np.linspace(0, 1, FRAMES)})
    command("build-variants", "--store", store.path)
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "1 no frames" in out
    assert "1 samples whose scores tell nothing" in out
    assert "strive-data select" in out


@pytest.mark.parametrize(
    "words",
    [
        ["score-frames", "--model", "no/such/folder"],
        ["score-frames", "--precision", "fp7"],
        ["score-frames", "--workers", "-1"],
        ["build-variants", "--variants", "0"],
        ["build-variants", "--mix", "2"],
        ["select", "--min-var", "-0.1"],
        ["select", "--min-var", "0.3"],
        ["select", "--min-var", "nan"],
        ["select", "--policy", "no/such/folder/at/all"],
        ["select", "--split", "no such split"],
        ["select", "--source", "o'hara"],
        ["select", "--name", "../x"],
        ["select", "--draws", "0"],
        ["select", "--temperature", "0"],
        ["select", "--tag", "a b"],
        ["select", "--min-var", "choice=9"],
        ["select", "--min-var", "colour=0.1"],
        ["select", "--views", "x"],
        ["select", "--mode", "x"],
        ["select", "--min-acc", "-0.1"],
        ["select", "--min-acc", "0.9", "--max-acc", "0.1"],
        ["select", "--max-blind-acc", "2"],
        ["select", "--max-blind-acc", "0.5", "--blind-draws", "0"],
        ["select", "--blind-draws", "-1"],
        ["select", "--one-frame-draws", "-1"],
        ["select", "--stop-error", "2"],
        ["select", "--reward", "nonsense"],
        ["select", "--reward", "accuracy=0,iou=0"],
        ["select", "--reward", "span=square"],
        ["select", "--per-source", "0"],
        ["select", "--max-samples", "0"],
        ["select", "--exclude", "sense"],
        ["select", "--exclude", "leaks"],
        ["select", "--endpoint", "not a url"],
        ["select", "--ledger-only"],
    ],
)
def test_a_mistake_is_refused_before_any_work(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    given = [] if "--policy" in words or words[0] != "select" else ["--policy", str(policy)]
    with pytest.raises((UserError, typer.BadParameter)):
        command(*words, *given, "--store", store.path, "--json")
    assert capsys.readouterr().out == ""
    assert store.count("rollouts") == 0


def test_a_mistake_is_one_line_and_exit_code_2(store: Store) -> None:
    words = ["select", "--min-var", "0.3", "--store", str(store.path)]
    done = subprocess.run([sys.executable, "-m", "cli.data", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --min-var 0.3: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-blind-acc", "2"], "error: --max-blind-acc 2"),
        (["--reward", "nonsense"], "error: --reward nonsense: "),
        (["--views", "x"], "error: --views x: one of anchor, variants. "),
        (["--endpoint", "URL"], "error: "),
        (["--ledger-only"], "error: 0 of 3 samples kept"),
    ],
)
def test_options_of_select_are_refused_in_one_line(
    store: Store, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:  # bound and never listening: nobody else takes the port, and it refuses
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        given = [url if word == "URL" else word for word in words]
        monkeypatch.setattr(
            sys, "argv", ["strive-data", "select", *given, "--retries", "0", "--store", str(store.path)]
        )
        monkeypatch.setattr(os, "_exit", sys.exit)  # the program leaves its process at once; this one is the tests'
        with pytest.raises(SystemExit) as ended:
            output.run(app, "strive-data")
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("rule in force: ")]
    assert (ended.value.code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(said) and "Next: " in lines[0]
    assert "URL" not in words or url in lines[0]
    assert store.count("rollouts") == 0


def test_the_rule_in_force_is_told_before_anybody_is_asked(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="0 of 3 samples kept"):
        command("select", "--ledger-only", "--min-var", "0.2,number=0", "--max-acc", "0.9", "--store", store.path)
    told = capsys.readouterr().err
    for part in (">= 0.2 (choice)", ">= 0.02 (grounding, grounded_choice, open)", ">= 0 (number)", "<= 0.9"):
        assert part in told


@pytest.mark.parametrize("name", ["score-frames", "build-variants", "select"])
def test_without_a_store_the_command_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store"):
        command(name, "--store", tmp_path / "none")


@pytest.mark.parametrize("name", ["score-frames", "build-variants", "select"])
def test_every_option_has_a_help_text(name: str) -> None:
    parameters = typer.main.get_command(app).commands[name].params  # type: ignore[attr-defined]
    assert len(parameters) >= 6
    assert all(parameter.help for parameter in parameters)
