"""kill -9 while workers write frames themselves: a video is wholly there or not at all, and nothing is left behind."""

import shutil
import sys
from pathlib import Path

from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from pipeline.videos import Probe
from tests.clips import number_of, write_clip
from tests.kill import kill_at_random_moments

CLIPS, FRAMES = 60, 40
ORDER = [("video_id", "ascending"), ("index", "ascending")]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store

if __name__ == "__main__":
    run(CacheFrames(fps=10, hold_bytes=1), Store(sys.argv[1]), workers=2)
"""


def test_frames_that_workers_write_survive_kills(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{i}.mp4", FRAMES, tint=i, size=(24, 16)) for i in range(CLIPS)]
    fresh = Store(tmp_path / "fresh", create=True)
    run(Probe("test", {content_id(clip): str(clip) for clip in clips}), fresh)
    work = tmp_path / "work"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def reset() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(fresh.path, work)

    def check() -> None:
        reader = FrameReader(Store(work))
        assert all(reader.count(video) == FRAMES for video in reader.videos)
        assert Store(work).count("frames") == FRAMES * len(reader.videos)

    root = Path(__file__).resolve().parent.parent
    killed = kill_at_random_moments(
        [sys.executable, script, work, root], work, reset=reset, check=check, moments=4, seed=1
    )
    assert killed >= 2
    run(CacheFrames(fps=10, hold_bytes=1), Store(fresh.path))
    store = Store(work)
    assert store.table("frames").sort_by(ORDER).equals(fresh.table("frames").sort_by(ORDER))
    video = FrameReader(store).videos[0]
    assert [number_of(frame) for frame in FrameReader(store).read(video, range(FRAMES))] == list(range(FRAMES))
    store.tidy("frames", reclaim=True)
    frames = store.snapshot("frames")
    named = {frames.pages(fragment, "pixels")[0] for fragment in set((frames.addresses() >> 32).tolist())}
    assert set((store.table_path("frames") / "data").iterdir()) == named, "files of killed workers are gone"
