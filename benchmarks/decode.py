"""What it costs to serve the frames of a view: decoded on the fly, from the cache (raw, JPEG), from a memory map."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import decord
import numpy as np
import pyarrow as pa

from pipeline.decode import content_id, probe
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.schemas import VIDEOS
from pipeline.store import Store

WIDTH, HEIGHT, RATE, SECONDS, GOP = 640, 360, 25, 60, 250
TILE = 24  # pixels; it divides the height
CACHE_FPS = 2.0
BATCH = 4  # views that are served one after the other, as for a step of training
MAX_JPEG_DIFFERENCE = 6.0  # mean absolute difference of 8-bit levels

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Serve = Callable[[np.ndarray[Any, np.dtype[np.int64]]], Pixels]


def pictures(seed: int = 0) -> Iterator[Pixels]:
    """A textured background that pans, with boxes that move over it: uint8 [H, W, 3].

    Its detail gives JPEGs of about 32 kB; real clips of this size gave 4 to 57 kB, 21 in the middle.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (HEIGHT // TILE, 2 * WIDTH // TILE, 3))
    wide = np.kron(coarse, np.ones((TILE, TILE, 1))) + rng.normal(0, 3, (HEIGHT, 2 * WIDTH // TILE * TILE, 3))
    background = np.clip(wide, 0, 255).astype(np.uint8)
    boxes = rng.uniform(0, 1, (6, 4)) * (WIDTH - 80, HEIGHT - 80, 5, 3)
    colours = rng.integers(0, 256, (6, 3))
    for i in range(RATE * SECONDS):
        picture = background[:, i % WIDTH : i % WIDTH + WIDTH].copy()
        for (x, y, dx, dy), colour in zip(boxes, colours, strict=True):
            left, top = int(x + i * dx) % (WIDTH - 80), int(y + i * dy) % (HEIGHT - 80)
            picture[top : top + 60, left : left + 60] = colour
        yield picture


def write_clip(path: Path) -> None:
    """An H.264 mp4 with one key frame every GOP frames."""
    options = {"preset": "veryfast", "crf": "23", "g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = WIDTH, HEIGHT, "yuv420p", Fraction(1, RATE)
        for i, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cached(clip: Path, store: Path, codec: str) -> tuple[Store, str]:
    """A store with the clip in its frame cache, through the project's own stage, and the clip's id."""
    opened = Store(store, create=True)
    video_id = content_id(clip)
    row = {"video_id": video_id, "path": str(clip), "fingerprint": fingerprint(video_id), **vars(probe(clip))}
    opened.append("videos", pa.Table.from_pylist([row], schema=VIDEOS))
    report = run(CacheFrames(fps=CACHE_FPS, codec=codec), opened)
    if report.failed:
        raise RuntimeError(f"the clip could not be cached: {report.reasons}")
    return opened, video_id


def on_the_fly(clip: Path, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Serve:
    """Decode with decord: a new reader for each view. `positions`: the clip's frame behind each cached frame."""

    def serve(indices: np.ndarray[Any, np.dtype[np.int64]]) -> Pixels:
        reader = decord.VideoReader(str(clip), num_threads=1)
        frames: Pixels = reader.get_batch(positions[indices].tolist()).asnumpy()
        return frames

    return serve


def with_pyav(clip: Path, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Serve:
    """Decode with PyAV: from the start to the last frame that is wanted; only those wanted become RGB."""

    def serve(indices: np.ndarray[Any, np.dtype[np.int64]]) -> Pixels:
        wanted = set(positions[indices].tolist())
        frames: list[Pixels] = []
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
                    if len(frames) == len(wanted):
                        break
        return np.stack(frames)

    return serve


def ways(folder: Path) -> tuple[dict[str, Serve], int]:
    """All ways to serve a view, and the number of cached frames to choose from."""
    clip = folder / "clip.mp4"
    write_clip(clip)
    stores: dict[str, Store] = {}
    for codec in ("raw", "jpeg"):
        stores[codec], video_id = cached(clip, folder / codec, codec)
    raw, jpeg = (FrameReader(store) for store in stores.values())
    raw_1, jpeg_1 = (FrameReader(store, threads=1) for store in stores.values())
    count = raw.count(video_id)
    file = folder / "frames.npy"
    np.save(file, raw.read(video_id, range(count)))
    mapped = np.load(file, mmap_mode="r")
    positions = np.round(raw.times(video_id) * RATE).astype(np.int64)
    return {
        "onthefly": on_the_fly(clip, positions),
        "pyav": with_pyav(clip, positions),
        "raw": lambda indices: raw.read(video_id, indices),
        "jpeg": lambda indices: jpeg.read(video_id, indices),
        "memmap": lambda indices: mapped[indices],
        "raw_1_thread": lambda indices: raw_1.read(video_id, indices),
        "jpeg_1_thread": lambda indices: jpeg_1.read(video_id, indices),
    }, count


def check(served: dict[str, Pixels]) -> None:
    """All ways must have served the same pictures.

    Raises:
        RuntimeError: they did not.
    """
    truth = served["onthefly"]
    for name in ("raw", "raw_1_thread", "memmap"):
        if not np.array_equal(served[name], truth):
            raise RuntimeError(f"{name} served other frames than decoding did")
    for name, limit in (("jpeg", MAX_JPEG_DIFFERENCE), ("jpeg_1_thread", MAX_JPEG_DIFFERENCE), ("pyav", 1.0)):
        difference = float(np.abs(served[name].astype(np.int16) - truth).mean())
        if difference > limit:
            raise RuntimeError(f"{name} frames differ by {difference:.1f} levels on average")


def measure(frames: int, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Serve `rounds` batches of views of `frames` frames in every way; the medians of the time a view, their ratios.

    The ways take turns of one batch, in a random order: what runs before warms or cools the processor's caches.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        serve, count = ways(Path(folder))
        views = [np.sort(rng.choice(count, frames, replace=False)) for _ in range(1 + rounds * BATCH)]
        check({name: one(views[0]) for name, one in serve.items()})
        seconds: dict[str, list[float]] = {name: [] for name in serve}
        for i in range(1, len(views), BATCH):
            for name in rng.permutation(list(serve)).tolist():
                start = time.perf_counter()
                for view in views[i : i + BATCH]:
                    serve[name](view)
                seconds[name].append((time.perf_counter() - start) / BATCH)
    typical = {name: median(values) for name, values in seconds.items()}
    return {
        "raw_vs_onthefly": round(typical["onthefly"] / typical["raw"], 2),
        "jpeg_vs_onthefly": round(typical["onthefly"] / typical["jpeg"], 2),
        "raw_vs_memmap": round(typical["memmap"] / typical["raw"], 2),
        "raw_vs_pyav": round(typical["pyav"] / typical["raw"], 2),
        "frames": frames,
        "rounds": rounds,
        "milliseconds": {name: round(1000 * value, 2) for name, value in typical.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__, allow_abbrev=False)
    parser.add_argument("--frames", type=int, default=32, choices=(8, 32), help="frames of a view (default: 32)")
    parser.add_argument("--rounds", type=int, default=9, help=f"batches of {BATCH} views (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.frames, arguments.rounds)
    print(
        f"{arguments.frames} frames of {WIDTH} x {HEIGHT}: time a view, median of {arguments.rounds} batches of {BATCH}"
    )
    for name, value in figures["milliseconds"].items():
        print(f"  {name:13s} {value:9.2f} ms")
    print(f"  raw is {figures['raw_vs_onthefly']} times as fast as decoding, jpeg {figures['jpeg_vs_onthefly']} times")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
