"""optimize: fewer files and versions, the same rows and tags; it pays when it says so, and survives a kill."""

import datetime
import json
import re
import shutil
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.optimize import optimize as command
from pipeline import status
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.optimize import optimize, worth
from pipeline.schemas import QUARANTINE, TABLES
from pipeline.store import Store
from pipeline.store.rows import address_filters
from pipeline.store.upkeep import DELETED, PIECES, VERSIONS, Shape, shape
from pipeline.verify import verify
from tests import verify_world as world
from tests.kill import kill_at_random_moments
from tests.store_rows import frames
from tests.tables import assert_same

NOW = datetime.timedelta(0)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs of every stage, so that each table has old versions, and two tags."""
    folder = tmp_path_factory.mktemp("line")
    files = world.annotate(folder)
    store = Store(folder / "store", create=True)
    world.bring(store, files[:1])
    world.bring(store, files)
    return store


@pytest.fixture
def store(line: Store, tmp_path: Path) -> Store:
    shutil.copytree(line.path, tmp_path / "store")
    return Store(tmp_path / "store")


def test_rows_tags_and_pixels_stay_and_old_versions_go(store: Store) -> None:
    before, first = world.everything(store), store.curated("d", "files-1")
    read = FrameReader(store).read(FrameReader(store).videos[0], [0, 3])
    done = {one.table: one for one in optimize(store, everything=True, older=NOW)}
    assert {*before} - {"curated", "verdicts", "overlaps", "overlap_checks"} <= {*done}
    for name, one in done.items():
        assert (one.after.files, one.after.deleted, one.after.rows) == (1, 0, one.before.rows), name
        assert one.after.old == 0 and one.after.versions <= 1 + one.after.tags, name
        assert one.after.tags == one.before.tags == (2 if "/" in name else 0), name
    assert done["frames"].after.bytes < done["frames"].before.bytes
    for table, rows in world.everything(store).items():
        assert_same(rows, before[table])
    assert store.curated("d", "files-1").equals(first)
    assert (FrameReader(store).read(FrameReader(store).videos[0], [0, 3]) == read).all()
    assert not verify(store, world.stages()).findings
    assert not worth(store)


def test_frames_keep_their_layout(store: Store) -> None:
    """Frames are read from the data file itself, which is recognised by its layout."""
    optimize(store, everything=True)
    path, pages, rows = store.snapshot("frames").pages(int(store.snapshot("frames").addresses()[0] >> 32), "pixels")
    assert rows == store.count("frames") and all(len(buffers) == 2 for buffers in pages)
    assert path.stat().st_size > store.count("frames") * 64 * 96 * 3


def test_recent_versions_stay_for_their_readers(store: Store) -> None:
    reader = FrameReader(store)
    optimize(store, everything=True)
    assert len(reader.read(reader.videos[0], [1])) == 1
    assert shape(store.table_at("frames"), large=True).versions > 1


def test_it_pays_when_there_are_many_small_files_or_deleted_rows(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for number in range(PIECES + 1):
        store.append("frames", frames(f"v{number}", 2))
        assert bool(worth(store)) == (number >= PIECES)
    assert status.status(store)["optimize"] == {"frames": [f"{PIECES + 1} small files"]}
    before = store.table("frames")
    assert [one.table for one in optimize(store)] == ["frames"]
    assert store.table("frames").equals(before) and not worth(store)
    store.delete("frames", "video_id IN ('v1', 'v2', 'v3', 'v4', 'v5', 'v6', 'v7')")
    assert worth(store) == {"frames": ["11% of its rows are deleted"]}
    optimize(store)
    assert shape(store.table_at("frames"), large=True).deleted == 0
    gone = pa.compute.is_in(before["video_id"], pa.array([f"v{number}" for number in range(1, 8)]))
    assert store.table("frames").equals(before.filter(pa.compute.invert(gone)))


@given(
    st.builds(
        Shape,
        **{name: st.integers(0, 400) for name in ("files", "small", "rows", "deleted", "versions", "tags")},
        bytes=st.integers(1, 1 << 32),
        old=st.integers(0, 1 << 32),
    )
)
@settings(max_examples=60)
def test_reasons_are_the_rule(about: Shape) -> None:
    words = " ".join(about.reasons())
    assert ("small files" in words) == (about.small > PIECES)
    assert ("deleted" in words) == (about.deleted > DELETED * (about.rows + about.deleted))
    assert (f"{about.versions} versions" in words) == (about.versions > VERSIONS)


@given(st.sets(st.integers(0, 3000) | st.integers(1 << 32, (1 << 32) + 50), max_size=400))
@settings(max_examples=60)
def test_filters_name_exactly_the_addresses(addresses: set[int]) -> None:
    """Every address in one filter and once; none that was not asked for."""
    named: list[int] = []
    for text in address_filters(np.array(sorted(addresses), np.uint64)):
        runs = re.findall(r"_rowaddr >= (\d+) AND _rowaddr <= (\d+)", text)
        named += [i for a, b in runs for i in range(int(a), int(b) + 1)]
        inside = re.search(r"IN \((.*)\)", text)
        named += [int(word) for word in inside[1].split(", ")] if inside else []
    assert sorted(named) == sorted(addresses)


def test_a_damaged_file_is_not_copied(store: Store) -> None:
    """The copy would have a seal, and look whole."""
    world.flip(world.data_file(store, "variants"), 40)
    with pytest.raises(UserError, match=r"damaged.*verify"):
        optimize(store, everything=True)
    assert [f.what for f in verify(store).findings if f.table == "variants"] == ["changed file"]


def test_the_command_says_what_it_did(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    command(store=store.path, everything=True, older_than=0.0, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["next"] == f"strive-data status --store {store.path}"
    assert {"frames", "curated/d", "verdicts/d"} <= {row["table"] for row in said["tables"]}
    command(store=store.path, as_json=False)
    assert "0 tables optimised" in capsys.readouterr().out


def test_a_kill_loses_no_row_and_no_tag(line: Store, tmp_path: Path) -> None:
    place = tmp_path / "store"
    before, first = world.everything(line), line.curated("d", "files-1")

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(line.path, place)
        for number in range(12):  # something to join
            row = {"stage": "s", "key": str(number), "reason": "r", "message": "m", "kept": False, "fingerprint": ""}
            Store(place).append("quarantine", pa.Table.from_pylist([row], schema=QUARANTINE))

    def check() -> None:
        store = Store(place)
        assert store.count("quarantine") == before["quarantine"].num_rows + 12
        for name, rows in world.everything(store).items():
            if name != "quarantine":
                assert_same(rows, before[name])
        assert store.curated("d", "files-1").equals(first)
        assert verify(store, world.stages()).well

    words = [Path(sys.executable).with_name("strive-data"), "optimize", "--all", "--older-than", "0", "--store", place]
    assert kill_at_random_moments(words, place, reset=reset, check=check, moments=4) >= 1


def test_no_table_has_an_index(store: Store) -> None:
    """An index has no seal, and a damaged one would hide rows."""
    for name in TABLES:
        path = store.table_path(name)
        if path.exists():
            assert not lance.dataset(str(path)).describe_indices()
