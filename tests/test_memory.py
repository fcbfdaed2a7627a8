"""Memory stays flat: over many clips, and over a video whose frames are far more than memory should hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clips import remux, write_clip

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20

HEAD = """
import json, resource, sys
from pathlib import Path
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.videofile import content_id
from pipeline.videos import Probe

def memory(what):
    line = next(line for line in open("/proc/self/status") if line.startswith(what))
    return int(line.split()[1]) << 10
"""

CACHE = """
if __name__ == "__main__":
    clip, place, hold = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = Store(place, create=True)
    run(Probe("test", {content_id(clip): str(clip)}), store)
    report = run(CacheFrames(fps=1000, max_frames=10**6, hold_bytes=hold), store, workers=1)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    found = {"parent": memory("VmHWM"), "worker": children, "rows": report.rows}
    print(json.dumps({**found, "backends": sorted(set(store.table("frames", ["backend"])["backend"].to_pylist()))}))
"""

MANY = """
clips, times = sys.argv[1].split(":"), int(sys.argv[2])
import ctypes
stage, early = CacheFrames(fps=1000), 0

def held():
    # What is freed and not yet given back is no leak, and comes and goes by megabytes.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory("VmRSS")

items = [(Path(clip), content_id(Path(clip))) for clip in clips]
from pipeline.stage import Item
for i in range(times):
    path, video = items[i % len(items)]
    outcome = stage.process([Item((video,), "f", str(path))])
    assert outcome.rows.num_rows == 12, outcome
    if i + 1 == times // 2:
        early = held()
print(json.dumps({"early": early, "late": held(), "backend": outcome.rows["backend"][0].as_py()}))
"""


def measure(script: str, folder: Path, *arguments: object) -> dict[str, Any]:
    """Run a script in a process of its own; what it prints."""
    file = folder / "script.py"
    file.write_text(HEAD + script)
    command = [sys.executable, str(file), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_memory_over_300_clips_stays_flat(tmp_path: Path, backend: str) -> None:
    clips = [write_clip(tmp_path / f"{i}.mp4", 12, tint=i) for i in range(10)]
    if backend == "pyav":  # transport streams are not for decord
        clips = [remux(clip, clip.with_suffix(".ts")) for clip in clips]
    found = measure(MANY, tmp_path, ":".join(map(str, clips)), 600)  # the first 300 warm up what is kept
    assert found["backend"] == backend
    assert found["late"] - found["early"] < 2 * MIB, found  # over 300 clips, whose frames are 66 MB


def test_a_long_video_is_not_held_in_memory(tmp_path: Path) -> None:
    width, height, frames = 480, 270, 2000
    raw = 3 * width * height * frames  # 778 MB
    clip = write_clip(tmp_path / "long.mp4", frames, 25, size=(width, height), gop=50)
    short = write_clip(tmp_path / "short.mp4", 2, 25, size=(width, height))
    least = measure(CACHE, tmp_path, short, tmp_path / "short", 1)
    flat = measure(CACHE, tmp_path, clip, tmp_path / "flat", 8 * MIB)
    whole = measure(CACHE, tmp_path, clip, tmp_path / "whole", 1 << 40)
    assert flat["rows"] == whole["rows"] == frames
    for process in ("parent", "worker"):
        assert whole[process] - least[process] > 0.9 * raw, (least, flat, whole)
        assert flat[process] - least[process] < 64 * MIB, (least, flat, whole)


def test_decord_is_not_asked_for_more_frames_than_memory_should_hold(tmp_path: Path) -> None:
    """It decodes ahead without bound when the one who writes is slow: 400 MB of a long video, on a busy machine."""
    clip = write_clip(tmp_path / "clip.mp4", 12)
    frames = 3 * 12 * 96 * 64
    fits, exceeds = (measure(CACHE, tmp_path, clip, tmp_path / str(hold), hold) for hold in (frames, frames - 1))
    assert (fits["backends"], exceeds["backends"]) == (["decord"], ["pyav"])
