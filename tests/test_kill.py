"""kill -9 of cache-frames at random moments: no row is lost or doubled, and the store always opens."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.runner import run
from pipeline.store import Store
from tests.clips import number_of, write_clip
from tests.kill import kill_at_random_moments

CLIPS, BROKEN, FRAMES = 120, 6, 12
ORDER = [("video_id", "ascending"), ("index", "ascending")]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with many small videos, some of them spoilt after the probe."""
    folder = tmp_path_factory.mktemp("kill")
    names = [f"{i}.mp4" for i in range(CLIPS)]
    for i, name in enumerate(names):
        write_clip(folder / name, FRAMES, tint=i)
    rows = [{"video": name, "question": "what?", "answer": "a dog"} for name in names]
    (folder / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(Store(folder / "fresh", create=True), folder / "many.jsonl")
    for name in names[:BROKEN]:
        (folder / name).write_bytes(b"spoilt")
    return folder / "fresh"


def test_cache_frames_survives_kills(fresh: Path, tmp_path: Path) -> None:
    work = tmp_path / "store"
    expected = Store(shutil.copytree(fresh, tmp_path / "expected"))
    stage = CacheFrames(fps=10)
    videos = run(stage, expected).done

    def reset() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(fresh, work)

    def check() -> None:
        store = Store(work)
        reader = FrameReader(store)
        assert store.count("frames") == sum(reader.count(video) for video in reader.videos)  # whole videos, once
        assert len(store.table("quarantine")["key"].unique()) == store.count("quarantine")

    command = [sys.executable, "-m", "cli.data", "cache-frames", "--store", work, "--fps", "10"]
    killed = kill_at_random_moments(command, work, reset=reset, check=check)
    assert killed >= 5
    store = Store(work)
    assert len(FrameReader(store).videos) == videos > CLIPS // 2
    assert store.table("frames").sort_by(ORDER).equals(expected.table("frames").sort_by(ORDER))
    failed = ["stage", "key", "reason", "fingerprint"]
    left_out, as_expected = (s.table("quarantine", failed).sort_by("key") for s in (store, expected))
    assert left_out.equals(as_expected)
    assert left_out.num_rows > 0
    video = FrameReader(store).videos[0]
    assert [number_of(frame) for frame in FrameReader(store).read(video, range(FRAMES))] == list(range(FRAMES))
    assert run(stage, store).to_do == 0
