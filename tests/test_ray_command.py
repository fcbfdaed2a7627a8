"""Commands on Ray: what they print, what they leave behind however they end; a running cluster that loses a node."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from pipeline.videos import Probe
from tests.clips import write_clip
from tests.ray_world import COMMAND, ROOT, begun, kill_all, processes_of, wait_until
from tests.tables import content
from tests.test_runner import questions

RAY = Path(sys.executable).with_name("ray")
GUARDED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of a cluster that is no command's own
# A node that does not answer is given up after a second, not half a minute.
HASTY = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500"}
HASTY |= {"RAY_health_check_timeout_ms": "500", "RAY_health_check_failure_threshold": "2"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: Ray's sockets lie in it, and the path of a socket cannot be long."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    kill_all(processes_of(folder))
    shutil.rmtree(folder, ignore_errors=True)


def environment(place: Path, **more: str) -> dict[str, str]:
    home = place / "home"
    home.mkdir(exist_ok=True)
    temporary = place / "t"
    temporary.mkdir(exist_ok=True)
    return {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), **more}


def left_behind(place: Path) -> list[object]:
    return [*processes_of(place), *(place / "t").iterdir(), *(place / "home").iterdir()]


@contextmanager
def slow_command(place: Path, store: Store, log: Path, count: int, *more: str) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", COMMAND, str(store.path), str(log), str(count), *more]
    environ = environment(place, **(GUARDED if more else {}))
    process = subprocess.Popen(
        words, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_without_ray_one_line_says_how_to_install_it_and_nobody_else_needs_it(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['ray'] = None; from cli.data import main; main()"
    Store(tmp_path / "s", create=True)
    for words, code in (((), 0), (("--engine", "ray"), 2)):
        done = subprocess.run(
            [sys.executable, "-c", blocked, "build-variants", "--store", tmp_path / "s", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr == "error: --engine ray: Ray is not installed. Next: pip install 'strive-video[ray]'\n"


def test_a_command_prints_its_result_alone_and_leaves_nothing_behind(tmp_path: Path, place: Path) -> None:
    clips = [write_clip(tmp_path / f"{i}.mp4", 20, tint=i) for i in range(4)]
    stores = [Store(tmp_path / name, create=True) for name in ("here", "there")]
    files = {content_id(clip): str(clip) for clip in clips}
    for store in stores:
        run(Probe("test", files), store)
    run(CacheFrames(fps=5), stores[0])
    words = ["cache-frames", "--fps", "5", "--engine", "ray", "--workers", "2", "--json", "--store", stores[1].path]
    done = subprocess.run(
        [sys.executable, "-m", "cli.data", *words],
        cwd=ROOT,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == len(files)
    assert len(done.stderr.splitlines()) == 1 and "of frames to write" in done.stderr
    assert content(stores[1], "frames").equals(content(stores[0], "frames"))
    assert not left_behind(place)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_takes_its_cluster_along(tmp_path: Path, place: Path, how: signal.Signals) -> None:
    store, log = Store(tmp_path / "s", create=True), tmp_path / "log"
    with slow_command(place, store, log, 600) as command:
        wait_until(lambda: len(begun(log)) >= 12, "work is begun")
        if how == signal.SIGINT:
            os.killpg(command.pid, how)  # as the terminal does
            out, err = command.communicate(timeout=60)
            assert (command.returncode, out) == (130, ""), err
        else:
            command.kill()
        wait_until(lambda: not processes_of(place), "the cluster ends with its command")
    assert list((place / "home").iterdir()) == []
    assert how == signal.SIGKILL or not left_behind(place)
    there = questions(store)
    assert len(there) >= 4 * (how == signal.SIGINT)
    assert set(there.values()) <= {"ok 1"}


def node(place: Path, *words: str) -> "subprocess.Popen[bytes]":
    log = (place / f"{words[0].strip('-')}.log").open("wb")
    return subprocess.Popen(
        [RAY, "start", *words, "--num-cpus", "1", "--block"],
        cwd="/",
        env=environment(place, **GUARDED, **HASTY),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_running_cluster_is_joined_and_a_node_that_is_lost_costs_its_batch(tmp_path: Path, place: Path) -> None:
    store, log = Store(tmp_path / "s", create=True), tmp_path / "log"
    port = str(20000 + os.getpid() % 10000)
    address = f"127.0.0.1:{port}"
    alone = ["--include-dashboard", "false", "--disable-usage-stats"]
    nodes = [node(place, "--head", "--port", port, "--temp-dir", str(place / "t"), *alone)]
    try:
        wait_until(lambda: "Ray runtime started" in (place / "head.log").read_text(), "the head is up")
        nodes.append(node(place, "--address", address))
        wait_until(lambda: "Ray runtime started" in (place / "address.log").read_text(), "the second node is up")
        with slow_command(place, store, log, 60, "--address", address) as command:
            wait_until(lambda: len({raylet for _, raylet, _ in begun(log)}) == 2, "both nodes work")
            lost = begun(log)[-1][1]
            raylet = psutil.Process(lost)
            kill_all([raylet, *raylet.children(recursive=True)])
            out, err = command.communicate(timeout=120)
            assert command.returncode == 0, err
        assert json.loads(out)["done"] == 60
        assert questions(store) == {f"k{i:02}": "ok 1" for i in range(60)}
        assert store.count("quarantine") == 0
        again = [key for _, _, key in begun(log)]
        assert len(set(again)) == 60 and len(again) <= 61
        time.sleep(1.0)
        assert nodes[0].poll() is None, "a cluster that is not ours stays"
        actors = [p for p in processes_of(place) if "ray::" in " ".join(p.cmdline()) and "_Remote" in p.cmdline()[0]]
        assert not actors, "but our workers are gone"
    finally:
        for process in nodes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
