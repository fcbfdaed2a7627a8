"""score-frames, build-variants and select as commands: what they print, and how they refuse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

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


@pytest.mark.parametrize("name", ["score-frames", "build-variants", "select"])
def test_without_a_store_the_command_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store"):
        command(name, "--store", tmp_path / "none")


@pytest.mark.parametrize("name", ["score-frames", "build-variants", "select"])
def test_every_option_has_a_help_text(name: str) -> None:
    parameters = typer.main.get_command(app).commands[name].params  # type: ignore[attr-defined]
    assert len(parameters) >= 6
    assert all(parameter.help for parameter in parameters)
