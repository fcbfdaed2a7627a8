"""kill -9 of a training run at ten random moments, and in the middle of a checkpoint: the run is the same after."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.fingerprint import folder_fingerprint
from tests.toy_run import a_run, rows_of
from tests.toy_store import a_store
from trainer import checkpoint
from trainer.checkpoint import load, newest_whole, whole

MOMENTS = 10
STEPS = 4


def to_the_end(store: str, out: str) -> None:
    """Start the run, or go on with it; a checkpoint after every step, and something to remember beside the weights.

    Vision features are kept beside it, so kills hit the writing of these too.
    """
    more: dict[str, Any] = {"scale": "task-ema", "refill": 1, "cache_vision": Path(out).parent / "features"}
    a_run(Path(store), Path(out), steps=STEPS, resume=True, checkpoint_every=1, **more)


def dies_in_a_checkpoint(store: str, out: str, written: str) -> None:
    """The same, killed in its second checkpoint: before its state is written, or when only the rename is missing."""
    name = "_save_state" if written == "half" else "_sync"
    inner, calls = getattr(checkpoint, name), []

    def killing(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        inner(*arguments)

    setattr(checkpoint, name, killing)
    to_the_end(store, out)


@pytest.fixture(scope="module")
def zygote() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.zygote", "torch,accelerate,transformers,pytest,hypothesis"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def call(zygote: subprocess.Popen[str], function: str, arguments: list[str], seconds: float | None) -> Any:
    assert zygote.stdin
    assert zygote.stdout
    zygote.stdin.write(json.dumps([__name__, function, arguments, seconds]) + "\n")
    zygote.stdin.flush()
    return json.loads(zygote.stdout.readline())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("toy") / "store").path


@pytest.fixture(scope="module")
def straight(store: Path, zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nobody disturbed, and the seconds that it took."""
    out = tmp_path_factory.mktemp("straight") / "run"
    code, seconds = call(zygote, "to_the_end", [str(store), str(out)], None)
    assert code == 0
    assert any(row["grad_norm"] for row in rows_of(out))
    assert any(row["replaced"] for row in rows_of(out))
    return out, seconds


def assert_equal(out: Path, straight: Path) -> None:
    assert rows_of(out) == rows_of(straight)
    mine, expected = newest_whole(out), newest_whole(straight)
    assert mine is not None
    assert expected is not None
    assert folder_fingerprint(mine) == folder_fingerprint(expected)
    assert not list(out.glob(".*")), "something unfinished was left"


@pytest.mark.timeout(600)
def test_ten_kills(store: Path, zygote: Any, straight: tuple[Path, float], tmp_path: Path) -> None:
    """Killed runs follow each other, each going on from where the last was killed, until one ends; then a new one."""
    expected, seconds = straight
    moments = random.Random(3)
    killed = runs = 0
    out = tmp_path / "0"
    while killed < MOMENTS and runs < 3 * MOMENTS:
        runs += 1
        code, _ = call(zygote, "to_the_end", [str(store), str(out)], seconds * moments.uniform(0.2, 1.0))
        killed += code == -9
        for step, folder in enumerate(whole(out)):
            assert load(folder)[0] > step  # each is whole and opens
        if code == 0:
            assert_equal(out, expected)
            out = tmp_path / str(runs)
    assert killed == MOMENTS
    code, _ = call(zygote, "to_the_end", [str(store), str(out)], None)
    assert code == 0
    assert_equal(out, expected)


@pytest.mark.parametrize("written", ["half", "all"])
def test_a_kill_in_the_middle_of_a_checkpoint(
    store: Path, zygote: Any, straight: tuple[Path, float], tmp_path: Path, written: str
) -> None:
    out = tmp_path / "run"
    code, _ = call(zygote, "dies_in_a_checkpoint", [str(store), str(out), written], None)
    assert code == -9
    assert [folder.name for folder in whole(out)] == ["checkpoint-00000001"]
    assert list(out.glob(".unfinished-*"))
    code, _ = call(zygote, "to_the_end", [str(store), str(out)], None)
    assert code == 0
    assert_equal(out, straight[0])
