"""The frame cache: each cached frame is the one nearest to its moment, and comes back bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import decode, frame_times
from pipeline.errors import UserError
from pipeline.frames import CacheFrames, FrameReader, estimate_bytes, wanted_frames
from pipeline.ingest import Probe
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from tests.clips import number_of, write_clip


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


def test_frames_are_read_in_any_order_with_repeats(store: Store, files: dict[str, Path]) -> None:
    run(CacheFrames(fps=5), store)
    reader = FrameReader(store)
    video = next(iter(files))
    whole = reader.read(video, np.arange(reader.count(video)))
    for indices in ([3], [0, 1, 2], [5, 2, 5, 0], [19, 0], []):
        np.testing.assert_array_equal(reader.read(video, indices), whole[indices] if indices else whole[:0])
    for wrong in ([-1], [reader.count(video)]):
        with pytest.raises(IndexError, match=video):
            reader.read(video, wrong)
    with pytest.raises(UserError, match="cache-frames"):
        reader.read("nobody", [0])
    assert "nobody" not in reader
    assert video in reader


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
    before = store.table("frames").sort_by([("video_id", "ascending"), ("index", "ascending")])
    video = next(iter(files))
    store.remove_items("frames", [(video,)])
    assert video not in FrameReader(store)
    report = run(CacheFrames(), store, workers=1)
    assert (report.already, report.done) == (2, 1)
    assert store.table("frames").sort_by([("video_id", "ascending"), ("index", "ascending")]).equals(before)
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


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_the_estimate_is_near_what_is_written(store: Store, codec: str) -> None:
    stage = CacheFrames(fps=3, codec=codec)
    estimate = estimate_bytes(store, stage)
    run(stage, store)
    written = sum(len(p) for p in store.table("frames", ["pixels"])["pixels"].to_pylist())
    assert estimate == pytest.approx(written, rel=0.1 if codec == "raw" else 1.0)
    assert estimate_bytes(store, stage) == 0


def test_a_flipped_byte_is_noticed(store: Store, files: dict[str, Path]) -> None:
    """Lance keeps no checksum: it reads such a row without an error."""
    run(CacheFrames(), store)
    video = next(iter(files))
    pixels = store.table("frames", ["pixels"], f"video_id = '{video}' AND index = 2")["pixels"][0].as_py()
    data = next(p for p in (store.table_path("frames") / "data").iterdir() if pixels in p.read_bytes())
    content = bytearray(data.read_bytes())
    content[content.index(pixels) + 100] ^= 1
    data.write_bytes(content)
    reader = FrameReader(Store(store.path))
    assert reader.read(video, [1, 3]).shape[0] == 2
    with pytest.raises(ValueError, match=f"frame 2 of video {video} is damaged"):
        reader.read(video, [1, 2, 3])


def test_missing_rows_of_a_video_are_noticed(store: Store, files: dict[str, Path]) -> None:
    run(CacheFrames(), store)
    first, second = list(files)[:2]
    store.delete("frames", f"video_id = '{first}' AND index = 3")
    reader = FrameReader(store)
    with pytest.raises(UserError, match="some of its cached frames are missing"):
        reader.read(first, [0])
    assert reader.read(second, [0]).shape[0] == 1


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


def test_an_empty_cache_reads_as_empty(tmp_path: Path) -> None:
    reader = FrameReader(Store(tmp_path, create=True))
    assert reader.videos == []


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0}, {"fps": -1}, {"max_frames": 0}, {"short_side": 3}, {"codec": "png"}, {"deadline_s": 0}],
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
