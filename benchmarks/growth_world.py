"""A world of any size, and one stage on it in a process of its own: what `benchmarks.growth` runs and measures.

    python -m benchmarks.growth_world FOLDER --samples 1000 --stage ingest

Clips are copies of one tiny file, each with its number behind its end, so that every video is another one. Frames are
scored by colours and lengths of words, questions answered by script: what models cost is left out, and what the store,
the stages and the ledger cost is all that is there.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline import drawing, runner, status, verify
from pipeline.answerer import Request, Response
from pipeline.curate import select
from pipeline.drawing import Asker
from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.plan import Plan
from pipeline.scorer import Loader
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.variants import BuildVariants
from pipeline.verdicts import Rule
from trainer.stream import Stream

SAMPLES_A_VIDEO = 20
SIDE, FRAMES, FPS = 32, 8, 4
VIEWS, VIEW_FRAMES = 4, 4
DRAWS = 2
GROUPS = 8  # samples a step
_FREE = b"\0\0\0\x10free"  # an empty box of 16 bytes, 8 of which are a number: players skip it

STAGES = ("ingest", "cache", "scores", "variants", "ledger", "select", "stream")


class Colours:
    """An encoder without a model: the mean colours of parts of a picture, the lengths of a text's words."""

    context, frames_a_pass = 64, 64

    def count_tokens(self, text: str) -> int:
        """Words, and two ends."""
        return len(text.split()) + 2

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """float32 [n, 16], unit length."""
        parts = frames.reshape(len(frames), 16, -1).mean(axis=2, dtype=np.float32) + 1
        return _unit(parts)

    def encode_windows(self, windows: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [n, 16], unit length."""
        return _unit(np.array([[len(w) * (i + 3) % 11 + 1 for i in range(16)] for w in windows], np.float32))


class Script:
    """A policy without a model: right by chance, by the seed of the draw alone."""

    fingerprint = "script-1"

    def prepare(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Nothing is kept of a view."""
        return requests

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        """One response for each seed."""
        return [[_response(seed) for seed in request.seeds] for request in requests]


def _response(seed: int) -> Response:
    letter = "B" if seed % 16 < 9 else "C"
    return Response(f"<think>It turns at {seed % 97}.</think><answer>{letter}</answer>", 12, -1.5)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def colours(device: str) -> Colours:
    """What a stage loads."""
    return Colours()


def script(device: str) -> Script:
    """What a stage loads."""
    return Script()


LOADER = Loader(colours, "colours", "colours-1")
ASKER = Asker(script, Script.fingerprint, adaptive=False, batch=32)


def write(folder: Path, samples: int, seed: int = 0) -> None:
    """Clips and one annotation file about them."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    data = _clip(folder / "clip.mp4")
    videos = max(1, samples // SAMPLES_A_VIDEO)
    for number in range(videos):
        (clips / f"{number:06d}.mp4").write_bytes(data + _FREE + number.to_bytes(8, "big"))
    chance = random.Random(seed)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(samples):
            row: dict[str, Any] = {"id": str(number), "video": f"{number % videos:06d}.mp4", "split": "train"}
            row["question"] = f"What does person {chance.randrange(10**6)} do after the door has been closed?"
            row |= {"options": ["a red ball", "the blue cube", "two children", "nobody at all"], "answer": "B"}
            stream.write(json.dumps(row) + "\n")


def _clip(path: Path) -> bytes:
    """The bytes of an H.264 file of a few frames, each of another grey."""
    with av.open(str(path), "w") as opened:
        stream: Any = opened.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "threads": "1"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            pixels = np.full((SIDE, SIDE, 3), 20 + 25 * number, np.uint8)
            pixels[: SIDE // 2, : 4 * number + 1] = 250
            opened.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        opened.mux(stream.encode())
    return path.read_bytes()


def run_ingest(folder: Path, store: Store) -> int:
    """What is to be done, in items."""
    return ingest(store, folder / "train.jsonl", folder / "clips", "growth").added


def run_cache(folder: Path, store: Store) -> int:
    """As above."""
    return runner.run(CacheFrames(fps=FPS), store).done


def run_scores(folder: Path, store: Store) -> int:
    """As above."""
    return sum(runner.run(stage, store).done for stage in (EmbedFrames(LOADER), ScoreFrames(LOADER)))


def run_variants(folder: Path, store: Store) -> int:
    """As above."""
    return runner.run(BuildVariants(m=VIEWS, frames=VIEW_FRAMES), store).done


def run_ledger(folder: Path, store: Store) -> int:
    """As above."""
    tasks = pl.DataFrame(pl.from_arrow(store.table("samples", ["sample_id", "task"]).sort_by("sample_id")))
    _, reports = drawing.fill(store, ASKER, "anchor", tasks, DRAWS, Rule(None), None, FrameReader(store))
    return sum(report.done for report in reports)


def run_select(folder: Path, store: Store) -> int:
    """Draws that were made: none, when the ledger is full."""
    return select(store, Plan(draws=DRAWS, tag="growth"), Rule(None), ASKER).drawn_now


def run_stream(folder: Path, store: Store) -> int:
    """A tenth of an epoch; samples that were seen."""
    stream = Stream(store, "default", None, count=VIEWS, view="importance", groups=GROUPS, seed=0)
    steps = -(-len(stream) // (10 * GROUPS))
    return sum(len(groups) for _, groups in stream.batches(0, steps))


def run_changed(folder: Path, store: Store) -> int:
    """Samples whose views were removed and drawn anew."""
    return runner.run(BuildVariants(m=VIEWS - 1, frames=VIEW_FRAMES), store).stale


def run_status(folder: Path, store: Store) -> int:
    """Rows that are stale: none."""
    return sum(table["stale"] for table in status.status(store)["tables"].values())


def run_verify(folder: Path, store: Store) -> int:
    """Things that are wrong: none."""
    stages: list[Stage] = [CacheFrames(fps=FPS), EmbedFrames(LOADER), ScoreFrames(LOADER)]
    return len(verify.verify(store, [*stages, BuildVariants(m=VIEWS, frames=VIEW_FRAMES)]).findings)


RUN: dict[str, Callable[[Path, Store], int]] = {
    "ingest": run_ingest,
    "cache": run_cache,
    "scores": run_scores,
    "variants": run_variants,
    "ledger": run_ledger,
    "select": run_select,
    "stream": run_stream,
    "status": run_status,
    "verify": run_verify,
    "changed": run_changed,
}


def warm_up(stage: str) -> None:
    """Everything that a process does once: a stage and those before it on a world of two videos."""
    with tempfile.TemporaryDirectory() as fresh:
        folder = Path(fresh)
        write(folder, 2 * SAMPLES_A_VIDEO)
        store = Store(folder / "store", create=True)
        for name in (*STAGES, "status", "verify"):
            RUN[name](folder, store)
            if name == stage:
                break


def resident_mib(name: str) -> float:
    """Of this process, in MiB: VmRSS is now, VmHWM the highest since `forget_peak`."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Count the peak of memory anew, from now."""
    Path("/proc/self/clear_refs").write_text("5")


def measured(folder: Path, stage: str) -> dict[str, Any]:
    """Run a stage and say what it took, start and warm-up apart."""
    begun = time.perf_counter()
    warm_up(stage)
    warm_s = time.perf_counter() - begun
    started = resource.getrusage(resource.RUSAGE_SELF)
    forget_peak()
    base = resident_mib("VmRSS")
    begun, busy = time.perf_counter(), time.process_time()
    items = RUN[stage](folder, Store(folder / "store", create=stage == "ingest"))
    return {
        "stage": stage,
        "items": items,
        "seconds": time.perf_counter() - begun,
        "processor_s": time.process_time() - busy,
        "base_mib": base,
        "peak_mib": resident_mib("VmHWM"),
        "start_s": started.ru_utime + started.ru_stime,
        "warm_s": warm_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth_world", allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="of the world; made when it is not there")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--stage", choices=tuple(RUN), help="default: only make the world")
    options = parser.parse_args()
    if not options.folder.exists():
        write(options.folder, options.samples)
    if options.stage:
        print(json.dumps(measured(options.folder, options.stage)))


if __name__ == "__main__":
    main()
