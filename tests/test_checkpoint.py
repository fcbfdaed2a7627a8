"""Checkpoints: whole or absent, at whatever moment the process dies; what is saved is what comes back."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import UserError
from pipeline.fingerprint import folder_fingerprint
from trainer.checkpoint import STATE_FILE, load, newest_whole, open_run, restore_rng, rng_state, save, whole


def writes(text: str) -> Callable[[Path], None]:
    """A model that saves itself as one small file."""
    return lambda folder: (folder / "model.txt").write_text(text) and None


def names(out: Path) -> list[str]:
    return [folder.name for folder in whole(out)]


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    for _ in range(3):
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "rng": rng_state(), "place": 24}
    checkpoint = save(tmp_path, 3, writes("weights"), state)
    expected = torch.rand(4)

    step, found = load(checkpoint)
    assert step == 3
    assert found["place"] == 24
    assert found["scheduler"] == state["scheduler"]
    again = torch.optim.AdamW(model.parameters(), lr=0.1)
    again.load_state_dict(found["optimizer"])
    for parameter in model.parameters():
        for name, value in optimizer.state[parameter].items():
            assert torch.equal(again.state[parameter][name], value)
    torch.rand(100)
    restore_rng(found["rng"])
    assert torch.equal(torch.rand(4), expected)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step, writes(str(step)), {}, keep=2)
    assert names(tmp_path) == ["checkpoint-00000010", "checkpoint-00000015"]
    newest = newest_whole(tmp_path)
    assert newest is not None
    assert (newest / "model.txt").read_text() == "15"
    assert not list(tmp_path.glob(".*"))


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    save(tmp_path, 5, writes("first"), {})
    with pytest.raises(FileExistsError, match="checkpoint-00000005"):
        save(tmp_path, 5, writes("second"), {})


def test_a_model_that_fails_to_save_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1, writes("good"), {})

    def fails(folder: Path) -> None:
        (folder / "model.txt").write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(UserError, match=r"step 2.*No space left.*--resume \(checkpoint-00000001 is whole\)"):
        save(tmp_path, 2, fails, {})
    assert names(tmp_path) == ["checkpoint-00000001"]
    assert not list(tmp_path.glob(".*")), "what is unfinished fills the disk"
    save(tmp_path, 2, writes("good"), {})
    assert names(tmp_path) == ["checkpoint-00000001", "checkpoint-00000002"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("room", [1_000, 300_000])
def test_a_full_disk_leaves_the_one_before(tmp_path: Path, room: int) -> None:
    """Files may not grow beyond `room` bytes: the weights do not fit, or only the state of the optimizer does not."""
    model = nn.Linear(250, 250)
    state = {"moments": torch.zeros(2, 250, 250)}

    def weights(folder: Path) -> None:
        save_file(model.state_dict(), folder / "model.safetensors")

    save(tmp_path, 1, weights, state)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(UserError, match=r"step 2.*could not be written.*GB free.*checkpoint-00000001 is whole"):
            save(tmp_path, 2, weights, state, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["checkpoint-00000001"]
    assert torch.equal(load(tmp_path / "checkpoint-00000001")[1]["moments"], state["moments"])
    assert not list(tmp_path.glob(".*")), "what is unfinished fills the disk"


def test_equal_weights_have_an_equal_fingerprint_whatever_the_optimizer_holds(tmp_path: Path) -> None:
    first = save(tmp_path / "a", 1, writes("same"), {"optimizer": torch.zeros(3)})
    second = save(tmp_path / "b", 2, writes("same"), {"optimizer": torch.ones(3)})
    assert folder_fingerprint(first) == folder_fingerprint(second)


def test_a_run_is_never_started_over_another(tmp_path: Path) -> None:
    assert open_run(tmp_path, resume=False) is None
    assert open_run(tmp_path, resume=True) is None
    checkpoint = save(tmp_path, 1, writes("x"), {})
    assert open_run(tmp_path, resume=True) == checkpoint
    with pytest.raises(UserError, match="--resume"):
        open_run(tmp_path, resume=False)


def test_what_is_no_state_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    with pytest.raises(UserError, match="cannot be resumed"):
        load(tmp_path)
    (tmp_path / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
    torch.save({"version": 99, "step": 1, "state": {}}, tmp_path / STATE_FILE)
    with pytest.raises(UserError, match="version 2, got 99"):
        load(tmp_path)


def test_a_state_that_runs_code_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    torch.save({"version": 2, "step": 1, "state": Path("/")}, tmp_path / STATE_FILE)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


HANGS_IN_THE_MIDDLE = """
import sys, time
from pathlib import Path
from trainer.checkpoint import save

def half(folder):
    (folder / "model.txt").write_text("half")
    print("half", flush=True)
    time.sleep(600)

save(Path(sys.argv[1]), 2, half, {}, keep=1)
"""

SAVES_FOR_EVER = """
import sys
from pathlib import Path
import torch
from trainer.checkpoint import save

def model(folder):
    for part in range(4):
        (folder / f"part-{part}").write_bytes(bytes([step % 256]) * 200_000)

print("ready", flush=True)
for step in range(int(sys.argv[2]), 10**8):
    save(Path(sys.argv[1]), step, model, {"step": step, "moments": torch.full((1000,), float(step))}, keep=2)
"""


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_kill_in_the_middle_of_a_save_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1, writes("whole"), {"place": 1})
    process = start(HANGS_IN_THE_MIDDLE, str(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    newest = newest_whole(tmp_path)
    assert newest is not None
    assert load(newest) == (1, {"place": 1})
    assert (newest / "model.txt").read_text() == "whole"
    save(tmp_path, 2, writes("whole"), {}, keep=1)
    assert names(tmp_path) == ["checkpoint-00000002"]
    assert not list(tmp_path.glob(".*"))


def test_kills_at_random_moments_leave_only_whole_checkpoints(tmp_path: Path) -> None:
    rng = random.Random(0)
    step = 0
    for _ in range(4):
        process = start(SAVES_FOR_EVER, str(tmp_path), str(step + 1))
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for checkpoint in whole(tmp_path):
            step, state = load(checkpoint)
            assert state["step"] == step
            assert torch.equal(state["moments"], torch.full((1000,), float(step)))
            for part in range(4):
                assert (checkpoint / f"part-{part}").read_bytes() == bytes([step % 256]) * 200_000
    assert step > 0
