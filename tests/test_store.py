"""The store: atomic commits, one writer, positions that survive deletions, curated versions that stay readable."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.schemas import FRAMES, KEYS, ROLLOUTS, SAMPLES, TABLES
from pipeline.store import Store, literal, write_fragments
from tests.curation_world import write_tag
from tests.store_rows import curated, frames


def test_every_table_is_empty_and_typed_at_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    for name, schema in TABLES.items():
        assert store.table(name).schema == schema
        assert store.count(name) == 0
        assert store.scan(name).collect().shape == (0, len(schema.names))
        assert store.done(name) == set()
        assert set(KEYS[name]) <= set(schema.names)
    assert store.curated_names() == []


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    rows = frames("it's", 3)
    store.append("frames", rows)
    assert store.table("frames").equals(rows)
    assert store.table("frames", ["index"], "time_s > 0.2")["index"].to_pylist() == [1, 2]
    assert store.count("frames", "video_id = " + literal("it's")) == 3
    assert store.scan("frames").filter(pl.col("index") == 2).select("time_s").collect().item() == 1.0
    assert store.done("frames") == {(("it's",), "f")}
    with pytest.raises(ValueError, match="missing"):
        store.append("frames", rows.drop_columns(["checksum"]))
    with pytest.raises(ValueError, match="no table"):
        store.table("pictures")


def test_pixels_are_stored_without_compression(tmp_path: Path) -> None:
    """Lance compresses large_binary by default: three times slower reads."""
    store = Store(tmp_path, create=True)
    rows = frames("v", 1).set_column(8, FRAMES.field("pixels"), pa.array([bytes(1 << 20)], pa.large_binary()))
    store.append("frames", rows)
    assert store.bytes("frames") > 1 << 20


def test_take_counts_rows_that_are_left(tmp_path: Path) -> None:
    """Positions are those of a scan: deleted rows have none, wherever they stood; a snapshot keeps its own."""
    store = Store(tmp_path, create=True)
    for video in "abcd":
        store.append("frames", frames(video, 5))
    store.delete("frames", "video_id = 'b'")
    store.delete("frames", "video_id = 'c' AND index = 2")
    before = store.snapshot("frames")
    store.append("frames", frames("b", 5))
    for snapshot, count in ((before, 14), (store.snapshot("frames"), 19)):
        pixels = snapshot.columns(["pixels"])["pixels"].to_pylist()
        assert snapshot.count == count == len(pixels)
        assert snapshot.take(range(count), ["pixels"])["pixels"].to_pylist() == pixels
        assert snapshot.take([0, 7, 13], ["pixels"])["pixels"].to_pylist() == [pixels[i] for i in (0, 7, 13)]
    assert store.snapshot("frames").take([5], ["pixels"])["pixels"].to_pylist() == [b"c0"]
    assert store.snapshot("frames").take([], ["pixels"]).num_rows == 0
    for wrong in ([1, 1], [2, 1]):
        with pytest.raises(ValueError, match="ascend"):
            store.snapshot("frames").take(wrong, ["pixels"])
    for wrong in ([-1], [19]):
        with pytest.raises(IndexError):
            store.snapshot("frames").take(wrong, ["pixels"])


def test_removing_items_removes_them_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    blank = {
        "text": "",
        "tokens": 1,
        "logprob": 0.0,
        "format": 1.0,
        "parse_error": "",
        "fingerprint": "f",
    }
    rows = [
        {"sample_id": s, "variant": v, "draw": d, "policy": p, "accuracy": None, "iou": None, **blank}
        for s in ("a", "b'c")
        for v in range(2)
        for d in range(3)
        for p in ("old", "new")
    ]
    store.append("rollouts", pa.Table.from_pylist(rows, schema=ROLLOUTS))
    store.remove_items("rollouts", [("b'c", 1, 0), ("b'c", 1, 2), ("a", 0, 1)], "policy = 'new'")
    assert store.count("rollouts") == 24 - 3
    assert store.count("rollouts", "policy = 'new'") == 9
    left = {key for key, _ in store.done("rollouts", "policy = 'new'")}
    assert not left & {("b'c", 1, 0), ("b'c", 1, 2), ("a", 0, 1)}
    store.remove_items("rollouts", [("a", v, d) for v in range(2) for d in range(3)])
    assert store.table("rollouts", ["sample_id"])["sample_id"].unique().to_pylist() == ["b'c"]
    store.remove_items("rollouts", [])
    with pytest.raises(TypeError):
        literal(1.5)


def test_thousands_of_items_are_removed_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    row = {"source": "s", "split": "t", "video_id": "v", "task": "open", "question": "q", "options": [], "answer": "a"}
    rows = [{"sample_id": f"s{i}", **row, "spans": [], "origin": "{}", "fingerprint": "f"} for i in range(1300)]
    store.append("samples", pa.Table.from_pylist(rows, schema=SAMPLES))
    store.remove_items("samples", [(f"s{i}",) for i in range(1, 1300)])
    assert store.table("samples", ["sample_id"])["sample_id"].to_pylist() == ["s0"]


def test_many_small_commits_are_joined_and_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    row = {"stage": "s", "reason": "r", "message": "m", "fingerprint": "f"}
    for i in range(70):
        store.append("quarantine", pa.Table.from_pylist([{"key": str(i), **row}], schema=TABLES["quarantine"]))
    store.tidy("quarantine", reclaim=True)
    assert sorted(store.table("quarantine")["key"].to_pylist(), key=int) == [str(i) for i in range(70)]
    assert store.done("quarantine") == {(("s", str(i)), "f") for i in range(70)}


def test_curated_datasets_are_replaced_whole_and_tagged(tmp_path: Path) -> None:
    """merge_insert with when_not_matched_by_source_delete, on nested lists of structs: one commit replaces all."""
    store = Store(tmp_path, create=True)
    first = write_tag(store, "set", curated(["b", "a", "c"]), "v1", {"min_var": "0.1"})
    assert write_tag(store, "set", curated(["a", "b", "c"]), "v1", {"min_var": "0.1"}) == first
    second = write_tag(store, "set", curated(["b", "d"], "who?", views=3), "v2", {"min_var": "0.2"})
    assert second > first
    assert store.curated("set").equals(curated(["b", "d"], "who?", views=3))
    assert store.curated("set", "v1").equals(curated(["a", "b", "c"]))
    assert store.curated_tags("set") == {"v1": first, "v2": second}
    assert store.facts("set") == {"min_var": "0.2"}
    assert store.curated_names() == ["set"]
    with pytest.raises(UserError, match="names other samples"):
        write_tag(store, "set", curated([]), "v2", {})
    assert store.curated("set").num_rows == 2, "a refused write changes nothing"
    third = write_tag(store, "set", curated([]), "v3", {})
    assert (store.curated("set").num_rows, store.curated_tags("set")["v3"]) == (0, third)
    for wrong in (lambda: store.curated("other"), lambda: store.curated("set", "v9"), lambda: store.curated("../x")):
        with pytest.raises(UserError):
            wrong()


def test_a_curated_dataset_opens_in_polars_in_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    write_tag(store, "set", curated(["a", "b"]), "v1", {})
    found = pl.scan_lance(str(store.curated_path("set"))).select("question", "reward_var").collect()
    assert found.rows() == [("why?", 0.25)] * 2


def test_stores_of_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store here"):
        Store(tmp_path / "none")
    store = Store(tmp_path / "s", create=True)
    for content in (json.dumps({"store_version": 7}), "{}", "no json", ""):
        (store.path / "store.json").write_text(content)
        with pytest.raises(UserError):
            Store(store.path)
        with pytest.raises(UserError):
            Store(store.path, create=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="folder"):
        Store(tmp_path / "file", create=True)


HOLD = """
import sys
from pipeline.store import Store
with Store(sys.argv[1]).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    root = Path(__file__).parent.parent
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process"):
        store.append("frames", frames("v", 1))
    assert store.count("frames") == 0  # reading is free
    other.kill()
    other.wait()
    with store.writing(), Store(tmp_path).writing():  # within one process the lock may be nested
        store.append("frames", frames("v", 1))
    assert store.count("frames") == 1


def test_a_kill_during_the_first_commit_leaves_no_table(tmp_path: Path) -> None:
    """Lance leaves data files without a version then."""
    store = Store(tmp_path, create=True)
    (store.table_path("frames") / "data").mkdir(parents=True)
    (store.table_path("frames") / "data" / "x.lance").write_bytes(b"half")
    assert store.count("frames") == 0
    store.append("frames", frames("v", 2))
    assert store.count("frames") == 2


def read_in_child(path: str, queue: "multiprocessing.Queue[int]") -> None:
    queue.put(Store(path).count("frames"))


def test_spawned_processes_read_what_this_one_wrote(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.append("frames", frames("v", 3))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(str(tmp_path), queue))
    child.start()
    assert queue.get(timeout=60) == 3
    child.join()


def parts(video: str, sizes: list[int]) -> list[pa.Table]:
    """Rows of one video, as they come from a decoder."""
    return [frames(video, n, start=sum(sizes[:i])) for i, n in enumerate(sizes)]


@pytest.mark.parametrize("first", [True, False])
def test_fragments_are_seen_when_they_are_committed(tmp_path: Path, first: bool) -> None:
    store = Store(tmp_path, create=True)
    if not first:
        store.append("frames", frames("there", 2))
    before = store.count("frames")
    a = write_fragments(store.path, "frames", parts("a", [3, 0, 4]))
    b = write_fragments(store.path, "frames", iter(parts("b", [2])))
    assert store.count("frames") == before
    store.commit_fragments("frames", [*b, *a])
    table = store.table("frames")
    assert table.num_rows == before + 9
    assert table.slice(before).equals(pa.concat_tables([frames("b", 2), frames("a", 7)]))
    addresses = store.snapshot("frames").addresses()
    assert len(addresses) == len(set(addresses.tolist())) == before + 9
    store.append("frames", frames("later", 1))
    assert store.done("frames") >= {(("a",), "f"), (("b",), "f"), (("later",), "f")}


def test_fragments_are_committed_once(tmp_path: Path) -> None:
    """Lance takes the same fragment twice, and doubles its rows without an error."""
    store = Store(tmp_path, create=True)
    fragments = write_fragments(store.path, "frames", parts("a", [3]))
    with pytest.raises(ValueError, match="committed before"):
        store.commit_fragments("frames", fragments * 2)
    store.commit_fragments("frames", fragments)
    with pytest.raises(ValueError, match="committed before"):
        store.commit_fragments("frames", fragments)
    assert store.count("frames") == 3


def test_files_of_workers_are_spared_while_they_run(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.append("frames", frames("v", 1))
    waiting = write_fragments(store.path, "frames", parts("a", [3]))
    store.tidy("frames", reclaim=True, running=True)
    store.commit_fragments("frames", waiting)
    write_fragments(store.path, "frames", parts("b", [3]))  # of a worker that was killed
    data = store.table_path("frames") / "data"
    assert len(list(data.iterdir())) == 3
    store.tidy("frames", reclaim=True)
    assert len(list(data.iterdir())) == 2
    assert store.count("frames") == store.table("frames").num_rows == 4
