"""What a researcher gets wrong, or the machine: strive-train ends with exit code 2 and one line that says what next."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import output
from cli.train import PROGRAM, app
from pipeline.store import Store
from tests import tiny_policy, toy_store
from tests.tiny_policy import EVERY
from tests.toy_run import SETTINGS, rows_of
from tests.trajectories import words_of
from trainer.checkpoint import load, newest_whole, whole

Call = Callable[..., str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_store.a_store(tmp_path_factory.mktemp("toy") / "store").path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run strive-train to a certain exit code; gives what it said on stderr."""

    def run(*words: str, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", [PROGRAM, *words])
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as ended:
            output.run(app, PROGRAM)
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.err

    return run


def assert_one_error(told: str, *parts: str) -> None:
    """One line of error, with the value, what was expected, and what to do next; nothing of the program's inside."""
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Next: " in errors[0]
    assert "Traceback" not in told
    for part in parts:
        assert part in errors[0]


def a_run_of(store: Path, out: Path, *more: str, **changes: object) -> list[str]:
    return words_of("run", SETTINGS | changes, store, out, *more)


def test_a_tag_that_does_not_exist(call: Call, store: Path, tmp_path: Path) -> None:
    told = call(*a_run_of(store, tmp_path / "run", "--tag", "v9"))
    assert_one_error(told, "v9", "v1")
    assert not (tmp_path / "run").exists()


def test_frames_that_are_missing_from_the_cache(call: Call, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    Store(tmp_path / "store").delete("frames", "video_id = 'video1'")
    told = call(*a_run_of(tmp_path / "store", tmp_path / "run"))
    assert_one_error(told, "3 samples without cached frames", "run cache-frames")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("family", EVERY[1:])
def test_a_policy_of_another_family_than_the_vision_cache(call: Call, store: Path, tmp_path: Path, family: str) -> None:
    """And of the same family with another tower. The features that are there stay, and serve their own policy."""
    kept = ("--cache-vision", str(tmp_path / "features"))
    call(*a_run_of(store, tmp_path / "first", *kept, steps=1, groups=1), code=0)
    before = sorted(path.name for path in (tmp_path / "features").rglob("*"))
    other, same = tiny_policy.save(tmp_path / "other", family=family), tiny_policy.save(tmp_path / "same")
    for policy, named in ((other, f"family qwen3_vl, this run has {family}"), (same, "(tower ")):
        told = call(*a_run_of(store, tmp_path / "run", *kept, policy=policy))
        assert_one_error(told, "--cache-vision", named, "give another folder")
    told = call("eval", "--store", str(store), "--dataset", "toy", "--policy", str(other), "--limit", "1", *kept)
    assert_one_error(told, f"family qwen3_vl, this run has {family}")
    assert not list(tmp_path.glob("run/checkpoint-*"))
    assert sorted(path.name for path in (tmp_path / "features").rglob("*")) == before
    trained = str(newest_whole(tmp_path / "first"))
    words = ("--policy", trained, "--limit", "1", "--view", "anchor", "--max-tokens", "4", *kept)
    call("eval", "--store", str(store), "--dataset", "toy", "--device", "cpu", *words, code=0)


def test_a_loss_that_is_no_number(call: Call, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = call(*a_run_of(store, out, kl=1e300, steps=6, checkpoint_every=1))
    [file] = out.glob("broken-step-*.json")
    assert_one_error(told, "loss nan", str(file), "lower --lr")
    assert json.loads(file.read_text())["batch"]
    assert len(rows_of(out)) == len(whole(out)), "the steps before it are kept"


def test_a_response_budget_beyond_the_context(call: Call, store: Path, tmp_path: Path) -> None:
    told = call(*a_run_of(store, tmp_path / "run", max_tokens=10**6))
    assert_one_error(told, "--max-tokens 1000000", "the policy's context is", "or build variants of fewer frames")
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_disk_that_is_full_at_a_checkpoint(call: Call, store: Path, tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB. The checkpoint before stays, and with room again the run goes on from it."""
    out = tmp_path / "run"
    call(*a_run_of(store, out, steps=1), code=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        told = call(*a_run_of(store, out, "--resume", steps=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_one_error(told, "checkpoint of step 2", "could not be written", "GB free", "checkpoint-00000001 is whole")
    assert [load(folder)[0] for folder in whole(out)] == [1]
    assert not list(out.glob(".unfinished-*"))
    call(*a_run_of(store, out, "--resume", steps=2), code=0)
    call(*a_run_of(store, tmp_path / "straight", steps=2), code=0)
    assert rows_of(out) == rows_of(tmp_path / "straight")
