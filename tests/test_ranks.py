"""A run in two processes is the run in one: same rewards, loss, gradient and weights; a failure of one ends both."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checksum import checksum
from pipeline.errors import UserError
from pipeline.fingerprint import folder_fingerprint
from tests import toy_store
from tests.ranks_world import commands
from tests.toy_run import SETTINGS, rows_of
from tests.trajectories import assert_near, assert_near_weights, words_of
from trainer.checkpoint import load, newest_whole
from trainer.feed import Feed
from trainer.ranks import ALONE, Ranks, buckets, ranks_of
from trainer.stream import Group, Stream
from trainer.weights import check_plugin

ROOT = Path(__file__).resolve().parent.parent
CPU, SPREAD, MACHINES = (ROOT / f"docs/accelerate/{name}.yaml" for name in ("cpu", "fsdp2", "two-nodes"))
PATIENCE = 150.0
pytestmark = pytest.mark.timeout(3 * PATIENCE)  # the first tests wait for up to three launches
SFT: dict[str, Any] = {"dataset": "toy", "steps": 3, "lr": 1e-3, "device": "cpu"}
STRAIGHT: dict[str, Any] = SETTINGS | {"steps": 3, "scale": "task-ema", "refill": 1, "warmup": 2}
RUNS: dict[str, dict[str, Any]] = {
    "one-group": SETTINGS | {"groups": 1, "steps": 5},  # the second process never has a sample
    "waves": SETTINGS | {"two_wave": True, "kl": 0.1, "ratio": "sequence", "loss": "sequence", "freeze_vision": False},
    "again": SETTINGS | {"freeze_vision": False, "gradient_checkpointing": True, "micro_tokens": 300},
    "cached": SETTINGS,  # by two processes that fill one folder of vision features; by one that encodes
    "lora": SETTINGS | {"lora_rank": 4, "lr": 1e-2, "train_subset": 4, "loss": "constant", "steps": 3},
    "sft": SFT | {"groups": 3},
    "sft-one-group": SFT | {"groups": 1},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_store.a_store(tmp_path_factory.mktemp("toy") / "store").path


def launched(
    module: str, *words: str | Path, config: Path = CPU, machines: int = 1
) -> subprocess.CompletedProcess[str]:
    """Two processes of a module, of one launch or of one on each of two machines, which are this one twice; all of them
    are killed when they hang."""
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(config),
        "--num_processes",
        "2",
    ]
    port = "0"
    if machines > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
    launches = []
    for rank in range(machines):
        place = ["--machine_rank", str(rank)] if machines > 1 else []
        command = [*launcher, *place, "--main_process_port", port, "-m", module, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        launches.append(subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes))  # type: ignore[call-overload]
    try:
        told = [process.communicate(timeout=PATIENCE) for process in launches]
    finally:
        for process in launches:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    codes = [process.returncode for process in launches]
    return subprocess.CompletedProcess(launcher, max(codes, key=abs), *map("".join, zip(*told, strict=True)))


@pytest.fixture(scope="module")
def straight(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `accelerate launch ... strive-train run` on two machines left behind, with a checkpoint of each step."""
    out = tmp_path_factory.mktemp("two") / "straight"
    settings = STRAIGHT | {"checkpoint_every": [1, 9]}
    done = launched("cli.train", *words_of("run", settings, store, out, "--json"), config=MACHINES, machines=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reward_mean") == 1, "one process reports"
    return out


def all_runs(store: Path, folder: Path) -> list[list[str]]:
    """The commands of RUNS, each in a folder of its name."""
    kept = ["--cache-vision", str(folder / "features")]
    return [
        words_of(name, settings, store, folder / name, *(kept if name == "cached" else []))
        for name, settings in RUNS.items()
    ]


@pytest.fixture(scope="module")
def folders(store: Path, straight: Path) -> Path:
    """The folder of `straight`, with all other runs of two processes beside it, one of them resumed after a step."""
    killed_after_a_step(straight, straight.parent / "killed")
    lines = all_runs(store, straight.parent)
    lines += [words_of("run", STRAIGHT, store, straight.parent / "killed", "--resume")]
    done = launched("tests.ranks_world", json.dumps(lines))
    assert done.returncode == 0, done.stderr
    return straight.parent


@pytest.fixture(scope="module")
def spread(store: Path, straight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with FSDP2: all runs, and one that goes on from a checkpoint of the processes that held all weights."""
    folder = tmp_path_factory.mktemp("spread")
    killed_after_a_step(straight, folder / "killed")
    lines = [words_of("run", STRAIGHT | {"checkpoint_every": [1, 9]}, store, folder / "straight")]
    lines += all_runs(store, folder)
    lines += [words_of("run", STRAIGHT, store, folder / "killed", "--resume")]
    lines += [["held", str(folder / "held.json")]]
    done = launched("tests.ranks_world", json.dumps(lines), config=SPREAD)
    assert done.returncode == 0, done.stderr
    return folder


def killed_after_a_step(run: Path, copy: Path) -> None:
    """A copy of a run as a kill after its second step would have left it, before that step's checkpoint."""
    shutil.copytree(run, copy)
    for gone in ("checkpoint-00000002", "checkpoint-00000003"):
        shutil.rmtree(copy / gone)


def test_two_processes_are_one(store: Path, straight: Path, spread: Path, tmp_path: Path) -> None:
    commands([words_of("run", STRAIGHT, store, tmp_path)])
    for two in (straight, spread / "straight"):
        rows = rows_of(two)
        assert_near(rows, rows_of(tmp_path))
        assert_near_weights(two, tmp_path, 1e-4)
        assert any(row["grad_norm"] for row in rows[:2]), "nothing was learned before the end"
        assert any(row["replaced"] for row in rows)


def test_a_resumed_run_of_two_processes_equals_a_straight_one(straight: Path, folders: Path) -> None:
    assert rows_of(folders / "killed") == rows_of(straight)
    newest, expected = newest_whole(folders / "killed"), newest_whole(straight)
    assert newest
    assert expected
    assert folder_fingerprint(newest) == folder_fingerprint(expected)


def test_a_checkpoint_says_nothing_of_how_weights_were_held(straight: Path, spread: Path) -> None:
    """FSDP2 goes on with a run of whole weights; its own checkpoints hold the same files, names and types."""
    assert_near(rows_of(spread / "killed"), rows_of(straight))
    assert_near_weights(spread / "killed", straight, 1e-4)
    newest, expected = newest_whole(spread / "straight"), newest_whole(straight)
    assert newest
    assert expected
    assert {f.name for f in newest.iterdir()} == {f.name for f in expected.iterdir()}
    for file in newest.glob("*.json"):
        assert file.read_bytes() == (expected / file.name).read_bytes()
    mine, its = (load(folder)[1]["learner"]["optimizer"]["state"] for folder in (newest, expected))
    assert mine.keys() == its.keys()
    for place, values in its.items():
        for name, value in values.items():
            assert type(mine[place][name]) is type(value)
            assert (mine[place][name] - value).abs().max() < 1e-5


def test_a_process_holds_its_share_between_steps(spread: Path) -> None:
    """Half of the weights and of the moments; in a step all weights, and after it half of them again."""
    both = json.loads((spread / "held.json").read_text())
    [total] = {one[0] for one in both}
    for column, expected in ((1, total), (2, 2 * total), (3, total), (4, total)):
        assert sum(one[column] for one in both) == expected
    assert all(abs(one[1] / total - 0.5) < 0.01 for one in both)


def test_one_process_goes_on_with_a_run_of_two(store: Path, straight: Path, spread: Path, tmp_path: Path) -> None:
    for number, two in enumerate((straight, spread / "straight")):
        killed_after_a_step(two, tmp_path / str(number))
        commands([words_of("run", STRAIGHT, store, tmp_path / str(number), "--resume")])
        assert_near(rows_of(tmp_path / str(number)), rows_of(straight))


@pytest.mark.parametrize("name", list(RUNS))
def test_two_processes_are_one_whatever_is_trained(
    store: Path, folders: Path, spread: Path, tmp_path: Path, name: str
) -> None:
    commands([words_of(name, RUNS[name], store, tmp_path)])
    for two in (folders / name, spread / name):
        rows = rows_of(two)
        assert_near(rows, rows_of(tmp_path))
        assert any(row["grad_norm"] for row in rows), "nothing was learned"
        assert_near_weights(two, tmp_path, RUNS[name]["lr"])


def test_a_failure_of_one_process_ends_all_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One video of four has frames whose checksum is not theirs; who is dealt it fails, who is not says so too."""
    clean: list[bytes] = []

    def wrong_for_the_last(data: bytes) -> Any:
        clean.append(data)
        return checksum(data if len(clean) <= 3 * toy_store.CACHED else b"other")

    monkeypatch.setattr(toy_store, "checksum", wrong_for_the_last)
    damaged = toy_store.a_store(tmp_path / "store").path
    begun = time.monotonic()
    settings = SETTINGS | {"groups": 2, "steps": 12, "checkpoint_every": 1}
    done = launched("cli.train", *words_of("run", settings, damaged, tmp_path / "run"))
    assert time.monotonic() - begun < 90
    assert done.returncode != 0
    assert "of 2: has failed, and all others with it" in done.stderr
    assert "video3" in done.stderr
    assert len(rows_of(tmp_path / "run")) < 12


class Numbers:
    """A stream of numbers in place of groups."""

    groups = 1

    def batch(self, place: int) -> list[Group]:
        return [cast(Group, place)]


@given(st.integers(1, 5), st.integers(1, 7), st.lists(st.integers(0, 9), max_size=6))
def test_what_is_taken_is_dealt_whole_and_evenly(count: int, ahead: int, takes: list[int]) -> None:
    feeds = [Feed(cast(Stream, Numbers()), 3, ahead, Ranks(number, count)) for number in range(count)]
    place = 3
    for take in takes:
        shares = [cast(list[int], feed.take(take)) for feed in feeds]
        assert sorted(one for share in shares for one in share) == list(range(place, place + take))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        place += take
        assert all(feed.position == place for feed in feeds)
    for feed in feeds:
        feed.__exit__()


@given(st.lists(st.integers()))
def test_one_process_has_everything_as_it_is(items: list[int]) -> None:
    assert ALONE.mine(items) == ALONE.joined(items) == items
    assert ALONE.gathered(items) == [items]
    assert ALONE.summed({"a": -0.0, "b": 0.1}) == {"a": -0.0, "b": 0.1}
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None


@given(st.lists(st.integers(1, 9)), st.integers(1, 20))
def test_buckets_hold_every_tensor_once_and_no_more_than_they_may(sizes: list[int], most: int) -> None:
    tensors = [torch.zeros(size) for size in sizes]
    found = list(buckets(tensors, most))
    assert [id(t) for bucket in found for t in bucket] == [id(t) for t in tensors]
    assert all(len(b) == 1 or sum(t.numel() for t in b) <= most for b in found)


def test_a_launch_for_something_else_is_refused() -> None:
    from accelerate.utils import DistributedType

    class Launch:
        distributed_type = DistributedType.DEEPSPEED

    with pytest.raises(UserError, match="DEEPSPEED: weights are whole in every process, or spread by FSDP2"):
        ranks_of(cast(Any, Launch()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fsdp_version": 1}, "fsdp_version: 1: expected 2"),
        ({"cpu_offload": True}, "fsdp_offload_params: true"),
        ({"activation_checkpointing": True}, "--set gradient_checkpointing=true"),
        ({"cpu_ram_efficient_loading": True}, "every process reads the policy itself"),
    ],
)
def test_settings_of_fsdp_that_a_run_would_not_follow_are_refused(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "False")  # the plugin sets it; it is put back
    with pytest.raises(UserError, match=message):
        check_plugin(FullyShardedDataParallelPlugin(**({"fsdp_version": 2} | given)))
