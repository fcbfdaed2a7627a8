"""verify finds each kind of damage, and it alone; repair and the same commands again give the undamaged tables."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from pipeline.checksum import checksum
from pipeline.errors import UserError
from pipeline.runner import run
from pipeline.schemas import TABLES
from pipeline.store import Store
from pipeline.store.health import examine
from pipeline.store.seals import FILE
from pipeline.variants import BuildVariants
from pipeline.verify import Verdict, repair, verify
from tests import verify_world as world
from tests.clips import write_clip
from tests.s3_server import serving
from tests.tables import assert_same
from tests.verify_damage import DAMAGES, cut_in, double, drop_frame, flip_frame, tear, unlink_in, video


class World(NamedTuple):
    """A store without any damage, its annotation files, and its tables."""

    store: Store
    files: list[Path]
    tables: dict[str, pa.Table]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    files = world.annotate(folder)
    store = Store(folder / "store", create=True)
    world.bring(store, files[:1])
    world.bring(store, files)
    return World(store, files, world.everything(store))


@pytest.fixture
def store(sound: World, tmp_path: Path) -> Store:
    """A copy to damage."""
    shutil.copytree(sound.store.path, tmp_path / "store")
    return Store(tmp_path / "store")


def found(verdict: Verdict) -> set[tuple[str, str]]:
    """(table, what) of all that is wrong."""
    return {(finding.table, finding.what) for finding in verdict.findings if finding.wrong}


def test_nothing_is_wrong_with_a_sound_store(sound: World) -> None:
    verdict = verify(sound.store, world.stages(), pixels=8)
    assert verdict.well and not verdict.findings and not verdict.skipped
    assert (verdict.frames, verdict.pixels) == (sound.store.count("frames"), 8)
    assert {name: about["rows"] for name, about in verdict.tables.items() if name in TABLES} == {
        name: table.num_rows for name, table in sound.tables.items() if name in TABLES and table.num_rows
    }
    assert all(about["unsealed"] == 0 and about["files"] for about in verdict.tables.values())


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_comes_right(name: str, store: Store, sound: World) -> None:
    """That damage and no other; after repair and the same commands again every table is as it was."""
    damage, expected = DAMAGES[name]
    damage(store)
    verdict = verify(store, world.stages())
    assert found(verdict) == expected
    before = {name: about["rows"] for name, about in verdict.tables.items()}
    repair(store, verdict)
    after = {name: about["rows"] for name, about in verify(store).tables.items()}
    dropped = {f.table: len(f.drop) for f in verdict.findings}
    for table, rows in after.items():  # nothing good is dropped
        assert rows == before[table] - dropped.get(table, 0), table
    world.bring(store, sound.files)
    assert not verify(store, world.stages(), pixels=4).findings
    for table, rows in world.everything(store).items():
        assert_same(rows, sound.tables[table])


def test_other_pixels_under_a_right_checksum_are_found_by_decoding_again(store: Store, sound: World) -> None:
    row = store.table("frames", filter=f"video_id = '{video(store)}' AND index = 2").to_pylist()[0]
    black = bytes(len(row["pixels"]))
    rows = store.table("frames", filter=f"video_id = '{video(store)}'").to_pylist()
    rows[2] |= {"pixels": black, "checksum": checksum(black)}
    store.delete("frames", f"video_id = '{video(store)}'")
    store.append("frames", pa.Table.from_pylist(rows, schema=TABLES["frames"]))
    assert verify(store, world.stages()).well
    verdict = verify(store, world.stages(), pixels=10_000)
    assert found(verdict) == {("frames", "other pixels")}
    assert [f.count for f in verdict.findings] == [1]
    repair(store, verdict)
    world.bring(store, sound.files)
    assert verify(store, world.stages(), pixels=10_000).well
    assert_same(world.everything(store)["frames"], sound.tables["frames"])


def test_a_changed_video_is_told_and_its_frames_stay(sound: World, tmp_path: Path) -> None:
    files = world.annotate(tmp_path)
    store = Store(tmp_path / "store", create=True)
    world.bring(store, files)
    before = world.everything(store)
    whole = (tmp_path / "0.mp4").read_bytes()
    write_clip(tmp_path / "0.mp4", 12, tint=99)
    for pixels in (0, 10_000):
        verdict = verify(store, world.stages(), pixels=pixels)
        assert found(verdict) == {("videos", "video changed")}
        assert not repair(store, verdict), "the cache is true to the old file"
    (tmp_path / "0.mp4").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # the same size
    assert verify(store, world.stages()).well
    assert found(verify(store, world.stages(), pixels=10_000)) == {("videos", "video changed")}
    (tmp_path / "0.mp4").write_bytes(whole)
    assert verify(store, world.stages(), pixels=10_000).well
    os.unlink(tmp_path / "0.mp4")
    verdict = verify(store, world.stages(), pixels=10_000)
    assert verdict.well and "their files are not there" in verdict.skipped[0]
    for table, rows in world.everything(store).items():
        assert_same(rows, before[table])


def test_rows_of_other_settings_are_outdated_and_nothing_is_dropped(store: Store) -> None:
    """Plans tell: what the last settings did not make, and what they have not come to yet."""
    verdict = verify(store, world.stages(m=2))
    assert found(verdict) == {("variants", "outdated")}
    assert not repair(store, verdict)
    sample = store.table("variants", ["sample_id"])["sample_id"][0].as_py()
    store.delete("rollouts", f"sample_id = '{sample}'")
    store.delete("variants", f"sample_id = '{sample}'")
    unmade = verify(store, world.stages())
    assert unmade.well and [(f.table, f.what, f.count) for f in unmade.findings] == [("variants", "not made yet", 1)]
    run(BuildVariants(m=3, frames=4), store)
    assert not verify(store, world.stages()).findings


def test_files_without_a_seal_are_read_instead(store: Store) -> None:
    """A writer that is killed between commit and seal leaves such files, and so do older programs."""
    for file in store.path.rglob(FILE):
        file.unlink()
    verdict = verify(store, world.stages())
    assert verdict.well and all(about["unsealed"] for about in verdict.tables.values())
    world.flip(world.data_file(store, "variants"), -20)  # where a file says where its parts are
    assert found(verify(store)) == {("variants", "unreadable file")}


def test_a_changed_seal_speaks_against_no_file(store: Store) -> None:
    """A file whose seal is lost is read instead; nothing good is dropped."""
    file = store.table_path("variants") / FILE
    for place in range(0, file.stat().st_size, 7):
        whole = file.read_bytes()
        world.flip(file, place)
        assert examine(store.table_at("variants")).whole
        file.write_bytes(whole)
    world.flip(file, -40)  # the last one is that of a data file
    verdict = verify(store, world.stages())
    assert verdict.well and verdict.tables["variants"]["unsealed"] == 1


def test_an_old_version_that_is_damaged_is_moved_aside(store: Store, sound: World) -> None:
    """Nobody reads it, but letting old versions go would stumble over it."""
    folder = store.table_path("samples") / "_versions"
    oldest = max(folder.glob("*.manifest"), key=lambda p: int(p.stem))
    oldest.write_bytes(bytes(oldest.stat().st_size))
    verdict = verify(store, world.stages())
    assert found(verdict) == {("samples", "torn old version")}
    repair(store, verdict)
    world.bring(store, sound.files)
    store.tidy("samples", reclaim=True)
    assert not verify(store, world.stages()).findings
    for table, rows in world.everything(store).items():
        assert_same(rows, sound.tables[table])


def test_a_damaged_quarantine_leaves_plans_unasked(store: Store) -> None:
    file = world.data_file(store, "quarantine")
    file.write_bytes(bytes(file.stat().st_size))
    verdict = verify(store, world.stages())
    assert found(verdict) == {("quarantine", "changed file")} and verdict.skipped


def test_a_tag_stays_when_its_verdicts_are_lost(store: Store, sound: World) -> None:
    """Older tags cannot be selected again when samples have come since: their samples are not to be given up."""
    world.cut(world.place_of(store, "verdicts") / "_refs" / "tags" / "files-1.json")
    first = store.curated("d", "files-1")
    verdict = verify(store, world.stages())
    assert found(verdict) == {("verdicts/d", "unreadable tag")}
    with pytest.raises(UserError, match="damaged"):
        store.verdicts("d", "files-1")
    repair(store, verdict)
    again = verify(store, world.stages())
    assert again.well and [f.what for f in again.findings] == ["no verdicts"]
    assert not repair(store, again) and store.curated("d", "files-1").equals(first)
    assert store.curated_tags("d").keys() == {"files-1", "files-2"}


def test_a_sample_of_frames_is_checked(store: Store) -> None:
    flip_frame(store)
    count = store.count("frames")
    hits = []
    for seed in range(8):
        verdict = verify(store, frames=count // 2, seed=seed)
        assert verdict.frames == count // 2
        hits.append(bool(found(verdict)))
    assert any(hits) and not all(hits)


def test_many_damages_at_once_come_right_in_two_rounds(store: Store, sound: World) -> None:
    """Where a table lost rows, what refers to them is not judged: its rows may be right once those are back."""
    rng = np.random.default_rng(0)
    flip_frame(store)
    cut_in("variants")(store)
    tear("frame_scores")(store)
    double("samples")(store)
    drop_frame(store)
    for file in rng.permutation(sorted(store.table_path("rollouts").glob("data/*.lance")))[:1]:
        world.flip(file, 60)
    for _ in range(2):
        repair(store, verify(store, world.stages()))
        world.bring(store, sound.files)
    assert not verify(store, world.stages(), pixels=4).findings
    for table, rows in world.everything(store).items():
        assert_same(rows, sound.tables[table])


@pytest.mark.parametrize("damage", [cut_in("variants"), unlink_in("variants"), tear("variants")])
def test_other_commands_say_what_to_do_about_damage(damage: Callable[[Store], None], store: Store) -> None:
    damage(store)
    with pytest.raises(UserError, match=r"damaged.*strive-data verify"):
        run(BuildVariants(m=3, frames=4), store)


def test_a_store_on_an_object_store_is_verified_and_repaired_as_well(sound: World, tmp_path: Path) -> None:
    """The server keeps objects as files: what a store in a folder is damaged by damages one on S3."""
    with serving(tmp_path) as server:
        shutil.copytree(sound.store.path, tmp_path / "lab" / "store", ignore=shutil.ignore_patterns(FILE, ".lock"))
        remote, files = Store("s3://lab/store", options=server.options), Store(tmp_path / "lab" / "store")
        verdict = verify(remote, world.stages(), pixels=4)
        assert verdict.well and not verdict.findings and not verdict.skipped
        assert (verdict.store, verdict.frames) == ("s3://lab/store", sound.store.count("frames"))
        flip_frame(files)
        unlink_in("variants")(files)
        tear("frame_scores")(files)
        wrong = {("frames", "wrong checksum"), ("variants", "missing file"), ("frame_scores", "torn version")}
        verdict = verify(remote, world.stages())
        assert found(verdict) >= wrong and len(found(verdict)) <= len(wrong) + 1, "and what lies beside the file"
        for _ in range(2):
            repair(remote, verify(remote, world.stages()))
            world.bring(remote, sound.files)
        assert not verify(remote, world.stages()).findings
        for table, rows in world.everything(remote).items():
            assert_same(rows, sound.tables[table])
