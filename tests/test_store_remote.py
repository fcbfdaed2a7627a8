"""A store on an object store, over real HTTP: rows as in a folder, one writer at a time, and no lasting lock."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.store import Store, lease, write_fragments
from tests.curation_world import write_tag
from tests.s3_server import Server, serving
from tests.store_rows import curated, frames

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def remote(server: Server, request: pytest.FixtureRequest) -> Store:
    """An empty store of this test's own."""
    server.fault = None
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return Store(f"s3://lab/some stores/{name}", create=True, options=server.options)


def fill(store: Store) -> None:
    """A bit of everything that a store can be told."""
    for video in "abc":
        store.append("frames", frames(video, 4))
    store.delete("frames", "video_id = 'b' AND index = 2")
    store.remove_items("frames", [("a",)])
    written = [write_fragments(store.location, "frames", [frames(v, 3), frames(v, 2, start=3)]) for v in "de"]
    store.commit_fragments("frames", [fragment for some in reversed(written) for fragment in some])
    row = {"stage": "s", "reason": "r", "message": "m", "fingerprint": "f", "kept": False}
    for i in range(3):
        store.append(
            "quarantine", pa.Table.from_pylist([{"key": str(i), **row}], schema=store.table("quarantine").schema)
        )
    store.tidy("frames", reclaim=True)
    write_tag(store, "set", curated(["b", "a"]), "v1", {"min_var": "0.1"})
    write_tag(store, "set", curated(["b", "d"], "who?", views=3), "v2", {"min_var": "0.2"})
    store.write_card("set", "v2", "# a card")
    for command in ("one", "two", "two"):
        store.remember(command)


def content(store: Store) -> list[Any]:
    """All that can be read of a store."""
    shot = store.snapshot("frames")
    return [
        *(store.table(name) for name in ("frames", "quarantine", "samples")),
        store.scan("frames").filter(pl.col("index") > 1).select("video_id", "pixels").collect().rows(),
        store.count("frames", "video_id = 'e'"),
        store.done("frames"),
        shot.take([0, 3, 7], ["pixels"]).to_pylist(),
        store.curated_names(),
        store.curated_tags("set").keys(),
        *(store.curated("set", tag) for tag in (None, "v1", "v2")),
        store.verdicts("set", "v1"),
        store.scan_curated("set", "v1").collect().rows(),
        store.facts("set"),
        store.card("set", "v2"),
        store.card("set", "v1"),
        store.commands(),
    ]


def test_a_store_on_s3_holds_what_one_in_a_folder_holds(remote: Store, server: Server, tmp_path: Path) -> None:
    local = Store(tmp_path, create=True)
    for store in (local, remote):
        fill(store)
    assert content(Store(remote.location)) == content(local)
    assert str(remote.location).startswith("s3://lab/some stores/")
    assert remote.bytes("frames") > 0
    assert remote.total_bytes() > remote.bytes("frames")
    with pytest.raises(UserError, match="folder only"):
        _ = remote.path
    copy = shutil.copytree(server.folder / str(remote.location).removeprefix("s3://"), tmp_path / "copy")
    assert content(Store(copy)) == content(local), "a store is the same files wherever it lies"


APPEND = """
import json, sys
from pipeline.store import Store
from tests.store_rows import frames
store = Store(sys.argv[1], options=json.load(sys.stdin))
for i in range(int(sys.argv[3])):
    store.append("frames", frames(f"{sys.argv[2]}{i}", 2))
"""


def started(code: str, store: Store, *words: str) -> "subprocess.Popen[str]":
    """A process that is given the store's options on stdin, not where `ps` shows them."""
    command = [sys.executable, "-c", code, str(store.location), *words]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    assert process.stdin is not None
    process.stdin.write(json.dumps(dict(store.location.options)) + "\n")
    process.stdin.close()
    process.stdin = None  # or `communicate` would write to it
    return process


def test_many_writers_lose_nothing_and_double_nothing(remote: Store) -> None:
    writers = [started(APPEND, remote, name, "4") for name in "abc"]
    for writer in writers:
        _, error = writer.communicate(timeout=120)
        assert (writer.returncode, error) == (0, "")
    found = remote.table("frames", ["video_id", "index"]).to_pydict()
    rows = sorted(zip(found["video_id"], found["index"], strict=True))
    assert rows == [(f"{name}{i}", k) for name in "abc" for i in range(4) for k in range(2)]


HOLD = """
import json, sys, time
from pipeline.store import Store, lease
from tests.store_rows import frames
lease.LEASE_S = float(sys.argv[2])
store = Store(sys.argv[1], options=json.load(sys.stdin))
with store.writing():
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
    store.append("frames", frames("late", 1))
"""


def held(store: Store, lease_s: float, sleep_s: float = 1000.0) -> "subprocess.Popen[str]":
    holder = started(HOLD, store, str(lease_s), str(sleep_s))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_writer_is_told_who_writes_and_until_when(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WAIT_S", 0.2)
    holder = held(remote, 60.0)
    with pytest.raises(UserError, match=rf"another process.*process {holder.pid}, since .* UTC; its lease ends at"):
        remote.append("frames", frames("v", 1))
    assert remote.count("frames") == 0  # reading is free
    holder.kill()
    holder.wait()
    begun = time.monotonic()
    remote.append("frames", frames("v", 1))  # of the same machine: seen to be dead, not waited for
    assert time.monotonic() - begun < 20
    assert remote.count("frames") == 1


def test_a_holder_of_another_machine_is_waited_for_and_no_longer(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = held(remote, 3.0)
    monkeypatch.setattr(lease, "_machine", lambda: "another")
    monkeypatch.setattr(lease, "_MARGIN_S", 0.5)
    monkeypatch.setattr(lease, "WAIT_S", 0.1)
    time.sleep(4.0)  # longer than a lease: it was renewed
    with pytest.raises(UserError, match="another process"):
        remote.append("frames", frames("v", 1))
    holder.kill()
    holder.wait()
    with pytest.raises(UserError, match="if it was killed, until then"):
        remote.append("frames", frames("v", 1))
    monkeypatch.setattr(lease, "WAIT_S", 30.0)
    remote.append("frames", frames("v", 1))
    assert remote.count("frames") == 1


def test_a_holder_that_slept_too_long_commits_no_more(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = held(remote, 2.0, sleep_s=1.0)
    holder.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lease, "_machine", lambda: "another")
    monkeypatch.setattr(lease, "_MARGIN_S", 0.2)
    with remote.writing():  # as soon as the lease of the sleeper is over
        holder.send_signal(signal.SIGCONT)
        _, error = holder.communicate(timeout=60)
        assert holder.returncode == 1
        assert "no longer holds its lease" in error
        remote.append("frames", frames("v", 1))
    assert remote.table("frames", ["video_id"])["video_id"].to_pylist() == ["v"]


def test_one_of_many_claims_a_number(remote: Store) -> None:
    """Each of them believes the lease to be free at the same moment."""
    holders = [lease._holder() for _ in range(8)]
    start = threading.Barrier(len(holders))

    def claim(holder: lease.Holder) -> bool:
        start.wait()
        return lease._claim(remote.location, 1, holder)

    with ThreadPoolExecutor(len(holders)) as pool:
        won = list(pool.map(claim, holders))
    assert sum(won) == 1
    assert lease._newest(remote.location) == (1, holders[won.index(True)])


def test_an_old_look_at_the_leases_gives_none(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number 1 was claimed, ended, followed by 2 and removed: who still believes it to be next claims it in vain."""
    other = lease._holder()
    assert lease._claim(remote.location, 2, other)
    looks = [(0, None)]
    true = lease._newest
    monkeypatch.setattr(lease, "_newest", lambda store: looks.pop() if looks else true(store))
    with pytest.raises(UserError, match="another process"):
        lease.take(remote.location, wait_s=0.2)
    assert not looks
    assert lease._claimant(remote.location / "leases" / "00000009.lance") is None


@pytest.mark.parametrize("step", ["_versions", "_transactions", "data"])
def test_a_kill_within_a_commit_leaves_the_rows_of_before(remote: Store, server: Server, step: str) -> None:
    remote.append("frames", frames("first", 2))
    killed = threading.Event()
    writer = started(APPEND, remote, "x", "1")

    def kill(method: str, path: str) -> None:
        if method == "PUT" and f"frames.lance/{step}/" in path and not killed.is_set():
            killed.set()
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            raise ConnectionAbortedError

    server.fault = kill
    writer.communicate(timeout=60)
    server.fault = None
    assert killed.is_set()
    assert writer.returncode == -signal.SIGKILL
    assert remote.table("frames", ["video_id"])["video_id"].unique().to_pylist() == ["first"]
    remote.append("frames", frames("then", 2))
    remote.tidy("frames", reclaim=True)
    assert remote.count("frames") == remote.table("frames").num_rows == 4


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    server.fault = lambda method, path: time.sleep(5)
    begun = time.monotonic()
    options = {**server.options, "timeout": "1s", "client_max_retries": "1"}
    with pytest.raises(UserError, match="does not answer"):
        Store("s3://lab/x", options=options)
    assert time.monotonic() - begun < 20
    server.fault = None


def test_a_server_that_goes_away_is_one_line_whatever_is_done(remote: Store, server: Server) -> None:
    """Lists fail with another class of error than reads do."""
    remote.append("frames", frames("v", 2))
    store = Store(remote.location.uri, options={**server.options, "client_max_retries": "0"})

    def gone(method: str, path: str) -> None:
        raise ConnectionAbortedError

    for work in (
        lambda: store.count("frames"),
        lambda: store.table("frames"),
        lambda: store.append("frames", frames("w", 2)),
        store.curated_names,
        store.commands,
        lambda: store.remember("x"),
    ):
        server.fault = gone
        with pytest.raises(UserError, match="does not answer"):
            work()
    server.fault = None
    assert store.count("frames") == 2
