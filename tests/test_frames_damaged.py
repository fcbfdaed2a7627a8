"""Damaged videos in the frame cache: what decodes is kept and the rest is told, or the video is left out."""

from pathlib import Path

import pytest

from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from pipeline.videos import Probe
from tests.clips import number_of, overwrite, packet_spans, write_clip

ORDER = [("video_id", "ascending"), ("index", "ascending")]


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Store, str]:
    """A store with one sound video and one whose middle is spoilt; the id of the latter."""
    whole = write_clip(tmp_path / "whole.mp4", 40, gop=10, bframes=0)
    spans = packet_spans(whole)
    start, size, _ = spans[12]
    end = spans[17][0] + spans[17][1]
    spoilt = overwrite(whole, tmp_path / "spoilt.mp4", start, bytes(end - start))
    assert size > 0
    store = Store(tmp_path / "store", create=True)
    run(Probe("test", {content_id(path): str(path) for path in (whole, spoilt)}), store)
    return store, content_id(spoilt)


def test_a_damaged_video_keeps_its_true_frames_and_says_so(damaged: tuple[Store, str]) -> None:
    store, video = damaged
    report = run(CacheFrames(fps=10), store, workers=1)
    assert (report.done, report.failed, report.reasons) == (2, 0, {})
    assert report.notes == {"damaged: frames missing": 1}
    reader = FrameReader(store)
    times, frames = reader.times(video), reader.read(video, range(reader.count(video)))
    numbers = [number_of(frame) for frame in frames]
    assert numbers == [*range(12), *range(20, 40)]  # up to the next key frame, nothing is to be believed
    assert numbers == [round(10 * t) for t in times]
    note = store.table("quarantine", filter="kept").to_pylist()
    assert [(row["stage"], row["key"]) for row in note] == [("cache-frames", video)]
    assert "32 of 40 wanted frames decode; the others lie within 1.200 to 1.900 s" in note[0]["message"]
    again = run(CacheFrames(fps=10), store)
    assert (again.to_do, again.already, again.notes) == (0, 2, report.notes)
    changed = run(CacheFrames(fps=10, max_frames=1), store)  # the first frame is sound
    assert (changed.done, changed.notes, store.count("quarantine")) == (2, {}, 0)


def test_strict_leaves_damaged_videos_out(damaged: tuple[Store, str]) -> None:
    store, video = damaged
    run(CacheFrames(fps=10), store)
    report = run(CacheFrames(fps=10, strict=True), store)
    assert (report.done, report.failed, report.notes, sum(report.reasons.values())) == (1, 1, {}, 1)
    assert video not in FrameReader(store)
    assert store.table("quarantine")["kept"].to_pylist() == [False]
    assert run(CacheFrames(fps=10), store).notes == {"damaged: frames missing": 1}
    assert video in FrameReader(store)


def test_a_long_video_may_lack_whole_stretches(tmp_path: Path) -> None:
    """Frames come in parts of 32; one in which nothing decodes does not cost the others."""
    whole = write_clip(tmp_path / "whole.mp4", 80, gop=10, bframes=0)
    spans = packet_spans(whole)
    end = spans[69][0] + spans[69][1]
    spoilt = overwrite(whole, tmp_path / "spoilt.mp4", spans[30][0], bytes(end - spans[30][0]))
    store = Store(tmp_path / "store", create=True)
    run(Probe("test", {content_id(spoilt): str(spoilt)}), store)
    report = run(CacheFrames(fps=10, hold_bytes=1), store)
    assert (report.done, report.notes) == (1, {"damaged: frames missing": 1})
    reader = FrameReader(store)
    frames = reader.read(reader.videos[0], range(reader.count(reader.videos[0])))
    assert [number_of(frame) for frame in frames] == [*range(30), *range(70, 80)]
    rows = store.table("frames").sort_by(ORDER)
    store.remove_items("frames", [(reader.videos[0],)])
    run(CacheFrames(fps=10), store)
    assert store.table("frames").sort_by(ORDER).equals(rows)


def test_a_long_damaged_video_leaves_nothing_behind_under_strict(damaged: tuple[Store, str]) -> None:
    """The error comes when part of its frames is in a file already."""
    store, video = damaged
    report = run(CacheFrames(fps=10, strict=True, hold_bytes=1), store, workers=1)
    assert (report.done, report.failed) == (1, 1)
    assert FrameReader(store).videos == [v for v in store.table("videos")["video_id"].to_pylist() if v != video]
    assert store.count("frames") == 40
    assert len(list((store.table_path("frames") / "data").iterdir())) == 1
