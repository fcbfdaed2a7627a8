"""The frame cache: each video is decoded once, into rows of `frames`, and read from there ever after."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import simplejpeg

from pipeline.checksum import checksum
from pipeline.decode import (
    Decoded,
    DecodeError,
    Scan,
    content_id,
    decode_frames,
    nearest,
    scan_packets,
    target_size,
    upright_size,
)
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.runner import missing_items
from pipeline.schemas import FRAMES
from pipeline.stage import Failure, Item, Outcome, Written
from pipeline.store import Location, Store, write_fragments

CACHE_VERSION = 2
CODECS = ("raw", "jpeg")
JPEG_QUALITY = 90
JPEG_SHARE = 1 / 15  # of the raw size, measured on ordinary pictures; an estimate only
MISSING = "damaged: frames missing"
_RUN_UP = 125  # frames decoded before a wanted one, since its key frame: half of the 250 that encoders use


@dataclass
class CacheFrames:
    """Decode each video of the store at a steady rate, into rows with the true times of the frames found.

    A damaged video keeps the frames that truly decode, and a note says what is missing.

    Args:
        fps: frames wanted a second. Where the video has fewer, each of its frames is taken once.
        max_frames: longer videos are thinned evenly to so many.
        short_side: scale down to this many pixels on the shorter side; None keeps the size.
        max_pixels: scale down to at most so many pixels a frame; None keeps the size.
        codec: raw or jpeg.
        strict: leave damaged videos out altogether.
        deadline_s: seconds that one video may take in a worker.
        hold_bytes: a video whose frames take more bytes is decoded frame by frame (`decode_frames(ahead=False)`), and
            its rows are written as they come, not held in memory.

    Raises:
        UserError: a parameter is out of its range.
    """

    fps: float = 2.0
    max_frames: int = 768
    short_side: int | None = None
    max_pixels: int | None = None
    codec: str = "raw"
    strict: bool = False
    deadline_s: float | None = 300.0
    hold_bytes: int = 128 << 20

    name: ClassVar[str] = "cache-frames"
    reads: ClassVar[tuple[str, ...]] = ("videos",)
    writes: ClassVar[str] = "frames"
    scope: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 1
    _store: Location = field(default=Location(""), init=False, repr=False)

    def __post_init__(self) -> None:
        self.fps = float(self.fps)  # 2 and 2.0 are one rate and must have one fingerprint
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps}", "more than 0, at most 1000", "try --fps 2")
        if self.max_frames < 1:
            raise UserError(f"--max-frames {self.max_frames}", "at least 1", "try --max-frames 768")
        if self.short_side is not None and self.short_side < 16:
            raise UserError(f"--short-side {self.short_side}", "at least 16 pixels", "try --short-side 224")
        if self.max_pixels is not None and self.max_pixels < 256:
            raise UserError(f"--max-pixels {self.max_pixels}", "at least 256", "try --max-pixels 100352")
        if self.codec not in CODECS:
            raise UserError(f"--codec {self.codec}", f"one of {', '.join(CODECS)}", "try --codec raw")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise UserError(f"--deadline {self.deadline_s}", "more than 0 seconds", "try --deadline 300")

    def plan(self, store: Store) -> list[Item]:
        """One item a video. Its content is its name, so path and probe do not matter to the fingerprint."""
        recipe = (self.name, CACHE_VERSION, self.fps, self.max_frames, self.short_side, self.max_pixels)
        rows = store.table("videos").sort_by("video_id").to_pylist()
        return [
            Item(
                (row["video_id"],),
                fingerprint(*recipe, self.codec, self.strict, row["video_id"]),
                row["path"],
                self._megapixels(row),
            )
            for row in rows
        ]

    def setup(self, place: Location, device: str) -> None:
        """Nothing to load."""
        self._store = place

    def process(self, items: Sequence[Item]) -> Outcome:
        """Decode the videos; those that cannot be decoded, or whose file has changed, are failures."""
        tables: list[pa.Table] = []
        outcome = Outcome(None)
        for item in items:
            try:
                rows, note = self._cache(item)
            except DecodeError as error:
                outcome.failures.append(Failure(item.key, item.fingerprint, error.reason, str(error)))
                continue
            if isinstance(rows, Written):
                outcome.written.append(rows)
            else:
                tables.append(rows)
            if note:
                outcome.notes.append(Failure(item.key, item.fingerprint, MISSING, f"{item.payload}: {note}"))
        outcome.rows = pa.concat_tables(tables) if tables else None
        return outcome

    def expected_frames(self, video: Mapping[str, Any]) -> int:
        """How many frames a row of `videos` will give, at most."""
        return max(1, min(self.max_frames, int(video["frame_count"]), math.ceil(float(video["duration_s"]) * self.fps)))

    def _megapixels(self, video: Mapping[str, Any]) -> float:
        """What a decoder has to go through for a row of `videos`: what its share of the time is taken to be."""
        frames = min(int(video["frame_count"]), self.expected_frames(video) * _RUN_UP)
        return max(1.0, frames * int(video["width"]) * int(video["height"]) / 1e6)

    def _cache(self, item: Item) -> tuple[pa.Table | Written, str]:
        """The rows of a video, and what is missing from them, if anything."""
        path, video_id = Path(item.payload), item.key[0]
        if content_id(path) != video_id:
            raise DecodeError("content changed", f"{path} is no longer the video {video_id}: ingest again")
        scan = scan_packets(path)
        wanted = wanted_frames(scan.times, self.fps, self.max_frames)
        size = target_size(*upright_size(scan), self.short_side, self.max_pixels)
        fits = 3 * size[0] * size[1] * len(wanted) <= self.hold_bytes
        parts = _Parts(decode_frames(path, scan, wanted, size, strict=self.strict, ahead=fits))
        tables = (self._rows(item, start, part) for start, part in parts)
        held: list[pa.Table] = []
        size_held = 0
        rows: pa.Table | Written | None = None
        for table in tables:
            held.append(table)
            size_held += table.nbytes
            if size_held > self.hold_bytes:
                fragments = write_fragments(self._store, self.writes, chain(_drain(held), tables))
                rows = Written(item.key, item.fingerprint, parts.count, fragments)
        if parts.trouble is not None:
            raise parts.trouble
        return pa.concat_tables(held) if rows is None else rows, _missing(scan, wanted, parts.indices)

    def _rows(self, item: Item, start: int, part: Decoded) -> pa.Table:
        """Decoded frames as rows, the first of which is number `start` of its video."""
        n, height, width, _ = part.frames.shape
        pixels = _raw(part.frames) if self.codec == "raw" else _jpeg(part.frames)
        columns = {
            "video_id": [item.key[0]] * n,
            "index": pa.array(range(start, start + n), pa.int32()),
            "time_s": part.times,
            "height": pa.array([height] * n, pa.int32()),
            "width": pa.array([width] * n, pa.int32()),
            "codec": [self.codec] * n,
            "checksum": pa.array([checksum(value.as_buffer()) for value in pixels], pa.uint64()),
            "backend": [part.backend] * n,
            "pixels": pixels,
            "fingerprint": [item.fingerprint] * n,
        }
        return pa.table({name: columns[name] for name in FRAMES.names}).cast(FRAMES)


class _Parts:
    """Decoded parts with the number of their first frame. An error ends them: it must not pass through Lance."""

    def __init__(self, parts: Iterable[Decoded]) -> None:
        self._parts = parts
        self._found: list[np.ndarray] = []
        self.count = 0
        self.trouble: DecodeError | None = None

    def __iter__(self) -> Iterator[tuple[int, Decoded]]:
        try:
            for part in self._parts:
                start = self.count
                self.count += len(part.indices)
                self._found.append(part.indices)
                yield start, part
        except DecodeError as error:
            self.trouble = error

    @property
    def indices(self) -> np.ndarray:
        """int64 [count]: which frames of the video came so far."""
        return np.concatenate([np.zeros(0, np.int64), *self._found])


def wanted_frames(times: np.ndarray, fps: float, max_frames: int) -> np.ndarray:
    """The frames nearest to the moments 0, 1/fps, 2/fps, ... of a video, thinned evenly to at most `max_frames`.

    Args:
        times: float64 [n] seconds, ascending from 0.

    Returns:
        int64 [k], ascending, without repeats, 1 <= k <= max_frames.
    """
    steps = int(np.floor(times[-1] * fps + 1e-6)) + 1  # times are rounded to the container's ticks
    indices = np.unique(nearest(times, np.arange(steps) / fps))
    if len(indices) > max_frames:
        indices = indices[np.linspace(0, len(indices) - 1, max_frames).round().astype(np.int64)]
    return indices


def estimate_bytes(store: Store, stage: CacheFrames) -> int:
    """Bytes that a run would add to `frames`, from what the probe found; JPEG by its usual share of the raw size."""
    missing = {item.key[0] for item in missing_items(stage, store)}
    total = 0
    for video in store.table("videos").to_pylist():
        if video["video_id"] in missing:
            width, height = target_size(video["width"], video["height"], stage.short_side, stage.max_pixels)
            total += stage.expected_frames(video) * 3 * width * height
    return round(total * (JPEG_SHARE if stage.codec == "jpeg" else 1.0))


def _missing(scan: Scan, wanted: np.ndarray, found: np.ndarray) -> str:
    """What a damaged video lacks, in words; empty when it lacks nothing."""
    words: list[str] = []
    lost = np.setdiff1d(wanted, found)
    if len(lost):
        span = f"{scan.times[lost[0]]:.3f} to {scan.times[lost[-1]]:.3f} s"
        words.append(f"{len(found)} of {len(wanted)} wanted frames decode; the others lie within {span}")
    if scan.damage:
        words.append(scan.damage)
    return "; ".join(words)


def _raw(frames: np.ndarray) -> pa.Array:
    """uint8 [n, H, W, 3] as large_binary [n], without a copy."""
    frames = np.ascontiguousarray(frames)
    offsets = np.arange(len(frames) + 1, dtype=np.int64) * (frames.nbytes // len(frames))
    return pa.Array.from_buffers(pa.large_binary(), len(frames), [None, pa.py_buffer(offsets), pa.py_buffer(frames)])


def _jpeg(frames: np.ndarray) -> pa.Array:
    return pa.array([simplejpeg.encode_jpeg(f, JPEG_QUALITY, "RGB", "420") for f in frames], pa.large_binary())


def _drain(held: list[pa.Table]) -> Iterator[pa.Table]:
    """The tables in their order, each let go as it is given away."""
    while held:
        yield held.pop(0)
