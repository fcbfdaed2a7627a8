"""The frame cache: each cached frame is the one nearest to its moment, and comes back bit for bit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.frames import cache_frames
from pipeline.decode import decode, frame_times
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames, estimate_bytes, wanted_frames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from pipeline.videos import Probe
from tests.clips import number_of, remux, write_clip

ORDER = [("video_id", "ascending"), ("index", "ascending")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{video_id: file} of three clips: steady, of variable rate, short."""
    folder = tmp_path_factory.mktemp("videos")
    clips = [
        write_clip(folder / "steady.mp4", 40, tint=1),
        write_clip(folder / "variable.mp4", 30, ticks=lambda i: i + i // 3, tint=2),
        write_clip(folder / "short.mp4", 1, tint=3),
    ]
    return {content_id(path): path for path in clips}


@pytest.fixture
def store(tmp_path: Path, files: dict[str, Path]) -> Store:
    store = Store(tmp_path / "store", create=True)
    run(Probe("test", {video: str(path) for video, path in files.items()}), store)
    return store


def test_cached_frames_are_those_nearest_to_their_moments(store: Store, files: dict[str, Path]) -> None:
    report = run(CacheFrames(fps=3), store)
    reader = FrameReader(store)
    assert reader.videos == sorted(files)
    total = 0
    for video, path in files.items():
        times = frame_times(path)
        indices = sorted({int(np.abs(times - k / 3).argmin()) for k in range(int(times[-1] * 3 + 1e-6) + 1)})
        assert reader.count(video) == len(indices)
        np.testing.assert_array_equal(reader.times(video), times[indices])
        frames = reader.read(video, range(len(indices)))
        assert [number_of(frame) for frame in frames] == indices
        np.testing.assert_array_equal(frames, decode(path, times[indices]).frames)
        assert reader.size(video) == frames.shape[1:3] == (64, 96)
        total += len(indices)
    assert (report.rows, report.done) == (total, 3)
    assert (store.table("frames")["backend"].unique().to_pylist(), FrameReader(store).count(video)) == (["decord"], 1)


def test_a_second_run_has_nothing_to_do_and_a_changed_rate_redoes_all(store: Store) -> None:
    assert run(CacheFrames(fps=2), store).done == 3
    before = FrameReader(store)
    again = run(CacheFrames(fps=2), store)
    assert (again.to_do, again.already) == (0, 3)
    changed = run(CacheFrames(fps=4), store)
    assert (changed.stale, changed.done) == (3, 3)
    after = FrameReader(store)
    for video in before.videos:
        assert before.fingerprint(video) != after.fingerprint(video)
    assert store.count("frames") == sum(after.count(video) for video in after.videos)
    assert run(CacheFrames(fps=4.0, deadline_s=7.0), store).to_do == 0  # a deadline changes no frame


def test_removing_one_videos_rows_restores_exactly_those(store: Store, files: dict[str, Path]) -> None:
    run(CacheFrames(), store)
    before = store.table("frames").sort_by(ORDER)
    video = next(iter(files))
    store.remove_items("frames", [(video,)])
    assert video not in FrameReader(store)
    report = run(CacheFrames(), store, workers=1)
    assert (report.already, report.done) == (2, 1)
    assert store.table("frames").sort_by(ORDER).equals(before)
    reader = FrameReader(store)  # the video now stands behind the others
    assert [number_of(f) for f in reader.read(video, range(reader.count(video)))] == [0, 5, 10, 15, 20, 25, 30, 35]


def test_jpeg_is_close_and_small(store: Store, files: dict[str, Path]) -> None:
    run(CacheFrames(fps=2), store)
    video = next(iter(files))
    raw = FrameReader(store).read(video, [0, 3])
    raw_bytes = sum(len(p) for p in store.table("frames", ["pixels"])["pixels"].to_pylist())
    run(CacheFrames(fps=2, codec="jpeg"), store)
    jpeg = FrameReader(store).read(video, [0, 3])
    assert np.abs(raw.astype(int) - jpeg).mean() < 6
    assert sum(len(p) for p in store.table("frames", ["pixels"])["pixels"].to_pylist()) < raw_bytes / 4


def test_frames_are_scaled_and_thinned(store: Store, files: dict[str, Path]) -> None:
    run(CacheFrames(fps=10, max_frames=5, short_side=32), store)
    reader = FrameReader(store)
    video = next(iter(files))
    frames = reader.read(video, range(5))
    assert frames.shape == (5, 32, 48, 3)
    assert reader.times(video)[[0, -1]].tolist() == pytest.approx([0.0, 3.9])
    assert [number_of(frame) for frame in frames] == [round(10 * t) for t in reader.times(video)]


def test_frames_hold_no_more_pixels_than_allowed(store: Store) -> None:
    run(CacheFrames(fps=1, short_side=60, max_pixels=1000), store)
    reader = FrameReader(store)
    height, width = reader.size(reader.videos[0])
    assert 800 < height * width <= 1000
    assert width / height == pytest.approx(96 / 64, rel=0.05)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("limits", [{}, {"max_pixels": 2000}, {"short_side": 32, "max_frames": 4}])
def test_the_estimate_is_near_what_is_written(store: Store, codec: str, limits: dict[str, int]) -> None:
    stage = CacheFrames(fps=3, codec=codec, **limits)  # type: ignore[arg-type]
    estimate = estimate_bytes(store, stage)
    run(stage, store)
    written = sum(len(p) for p in store.table("frames", ["pixels"])["pixels"].to_pylist())
    if codec == "raw":
        assert estimate == pytest.approx(written, rel=0.1)
    else:
        assert written / 5 < estimate < written * 5  # headers weigh more in pictures this small
    assert estimate_bytes(store, stage) == 0


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = estimate_bytes(store, CacheFrames())

    def free(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, count))

    free(needed - 1)
    with pytest.raises(UserError, match="--codec jpeg") as refused:
        cache_frames(store.path)
    assert "are free" in str(refused.value)
    assert store.count("frames") == 0
    free(needed // 20)
    with pytest.raises(UserError) as refused:
        cache_frames(store.path, codec="jpeg")
    assert "--codec jpeg" not in str(refused.value)
    assert "1/15 of raw" in capsys.readouterr().err
    free(needed)
    cache_frames(store.path, json=True)
    assert store.count("frames") > 0


def test_videos_weigh_what_their_decoding_costs(store: Store, files: dict[str, Path]) -> None:
    """The progress bar counts megapixels to be decoded: a time left that counts videos is wrong by any factor."""
    weights = {item.key[0]: item.weight for item in CacheFrames().plan(store)}
    frames = {row["video_id"]: row["frame_count"] for row in store.table("videos").to_pylist()}
    for video in files:
        assert weights[video] == pytest.approx(max(1.0, frames[video] * 96 * 64 / 1e6))


def test_changed_and_missing_files_go_to_quarantine(tmp_path: Path) -> None:
    paths = [write_clip(tmp_path / f"{i}.mp4", 5, tint=30 * i) for i in range(3)]
    store = Store(tmp_path / "store", create=True)
    run(Probe("test", {content_id(path): str(path) for path in paths}), store)
    paths[0].write_bytes(paths[1].read_bytes())  # another video under the old name
    paths[1].unlink()
    report = run(CacheFrames(), store)
    assert (report.done, report.failed) == (1, 2)
    assert report.reasons == {"content changed": 1, "missing file": 1}
    assert run(CacheFrames(), store).to_do == 0
    assert FrameReader(store).videos == [content_id(paths[2])]


def test_a_renamed_file_is_not_decoded_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    path = write_clip(tmp_path / "old.mp4", 12)
    video = content_id(path)
    run(Probe("test", {video: str(path)}), store)
    run(CacheFrames(), store)
    moved = path.rename(tmp_path / "new.mp4")
    run(Probe("test", {video: str(moved)}), store)
    report = run(CacheFrames(), store)
    assert (report.planned, report.already, report.to_do, report.stale) == (1, 1, 0, 0)


def test_two_names_of_one_content_are_one_video(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    first = write_clip(tmp_path / "first.mp4", 12)
    second = Path(shutil.copy(first, tmp_path / "second.mp4"))
    assert content_id(first) == content_id(second)
    run(Probe("one", {content_id(first): str(first)}), store)
    run(Probe("two", {content_id(second): str(second)}), store)
    assert run(CacheFrames(), store).done == 1
    assert FrameReader(store).videos == [content_id(first)]


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("workers", [0, 2])
def test_videos_too_long_for_memory_give_the_same_rows(
    files: dict[str, Path], tmp_path: Path, codec: str, workers: int
) -> None:
    streams = [remux(path, tmp_path / f"{path.stem}.ts") for path in files.values()]  # PyAV reads these in any case
    store = Store(tmp_path / "store", create=True)
    run(Probe("test", {content_id(path): str(path) for path in streams}), store)
    other = Store(shutil.copytree(store.path, tmp_path / "other"))
    run(CacheFrames(fps=10, codec=codec), store)
    written = run(CacheFrames(fps=10, codec=codec, hold_bytes=1000), other, workers=workers)
    assert (written.done, written.rows) == (3, store.count("frames"))
    assert other.table("frames").sort_by(ORDER).equals(store.table("frames").sort_by(ORDER))
    reader, truth = FrameReader(other), FrameReader(store)
    for video in truth.videos:
        indices = range(truth.count(video))
        np.testing.assert_array_equal(reader.read(video, indices), truth.read(video, indices))
    assert run(CacheFrames(fps=10, codec=codec), other).to_do == 0


def test_a_long_video_has_the_frames_that_decord_would_give(store: Store, tmp_path: Path) -> None:
    other = Store(shutil.copytree(store.path, tmp_path / "other"))
    run(CacheFrames(fps=10), store)
    run(CacheFrames(fps=10, hold_bytes=1000), other)
    tables = [one.table("frames").sort_by(ORDER) for one in (store, other)]
    assert [set(table["backend"].to_pylist()) for table in tables] == [{"decord"}, {"pyav"}]
    readers = [FrameReader(one) for one in (store, other)]
    for video in readers[0].videos:
        ours, theirs = (one.read(video, range(one.count(video))).astype(np.float32) for one in readers)
        assert np.abs(ours - theirs).mean() < 1
        np.testing.assert_array_equal(readers[0].times(video), readers[1].times(video))


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": 0},
        {"fps": -1},
        {"max_frames": 0},
        {"short_side": 3},
        {"max_pixels": 9},
        {"codec": "png"},
        {"deadline_s": 0},
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        CacheFrames(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.floats(0.001, 2.0), max_size=60), st.floats(0.1, 30.0), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_wanted_frames_are_distinct_and_cover_the_video(gaps: list[float], fps: float, most: int) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    everything = wanted_frames(times, fps, 10**6)
    chosen = wanted_frames(times, fps, most)
    assert everything[0] == chosen[0] == 0
    assert (np.diff(everything) > 0).all()
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == min(most, len(everything))
    assert set(chosen) <= set(everything)
    if most > 1:
        assert chosen[-1] == everything[-1]
    for moment in np.arange(int(times[-1] * fps)) / fps:  # no frame is nearer to a moment than the one that was taken
        assert np.abs(times[everything] - moment).min() <= np.abs(times - moment).min() + 1e-9
