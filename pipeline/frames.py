"""The frame cache: each video is decoded once, into rows of `frames`, and read from there ever after."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import simplejpeg

from pipeline.decode import Decoded, DecodeError, content_id, decode_frames, nearest, scan_packets
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.runner import missing_items
from pipeline.schemas import FRAMES
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Store

CACHE_VERSION = 1
CODECS = ("raw", "jpeg")
JPEG_QUALITY = 90
JPEG_SHARE = 1 / 15  # of the raw size, measured on ordinary pictures; an estimate only


@dataclass
class CacheFrames:
    """Decode each video of the store at a steady rate, into rows with the true times of the frames found.

    Args:
        fps: frames wanted a second. Where the video has fewer, each of its frames is taken once.
        max_frames: longer videos are thinned evenly to so many.
        short_side: scale down to this many pixels on the shorter side; None keeps the size.
        codec: raw or jpeg.
        deadline_s: seconds that one video may take in a worker.

    Raises:
        UserError: a parameter is out of its range.
    """

    fps: float = 2.0
    max_frames: int = 768
    short_side: int | None = None
    codec: str = "raw"
    deadline_s: float | None = 300.0

    name: ClassVar[str] = "cache-frames"
    reads: ClassVar[tuple[str, ...]] = ("videos",)
    writes: ClassVar[str] = "frames"
    scope: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.fps = float(self.fps)  # 2 and 2.0 are one rate and must have one fingerprint
        if not 0 < self.fps <= 1000:
            raise UserError(f"--fps {self.fps}", "more than 0, at most 1000", "try --fps 2")
        if self.max_frames < 1:
            raise UserError(f"--max-frames {self.max_frames}", "at least 1", "try --max-frames 768")
        if self.short_side is not None and self.short_side < 16:
            raise UserError(f"--short-side {self.short_side}", "at least 16 pixels", "try --short-side 224")
        if self.codec not in CODECS:
            raise UserError(f"--codec {self.codec}", f"one of {', '.join(CODECS)}", "try --codec raw")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise UserError(f"--deadline {self.deadline_s}", "more than 0 seconds", "try --deadline 300")

    def plan(self, store: Store) -> list[Item]:
        """One item a video. Its content is its name, so path and probe do not matter to the fingerprint."""
        recipe = (self.name, CACHE_VERSION, self.fps, self.max_frames, self.short_side, self.codec)
        rows = store.table("videos", ["video_id", "path"]).sort_by("video_id").to_pylist()
        return [Item((r["video_id"],), fingerprint(*recipe, r["video_id"]), r["path"]) for r in rows]

    def setup(self, store_path: str, device: str) -> None:
        """Nothing to load."""

    def process(self, items: Sequence[Item]) -> Outcome:
        """Decode the videos; those that cannot be decoded, or whose file has changed, are failures."""
        tables: list[pa.Table] = []
        failures: list[Failure] = []
        for item in items:
            try:
                tables.append(self._rows(item))
            except DecodeError as error:
                failures.append(Failure(item.key, item.fingerprint, error.reason, str(error)))
        return Outcome(pa.concat_tables(tables) if tables else None, failures)

    def _rows(self, item: Item) -> pa.Table:
        path, video_id = Path(item.payload), item.key[0]
        if content_id(path) != video_id:
            raise DecodeError("content changed", f"{path} is no longer the video {video_id}: ingest again")
        scan = scan_packets(path)
        indices = wanted_frames(scan.times, self.fps, self.max_frames)
        chunks = [self._encode(part) for part in decode_frames(path, scan, indices, self.short_side)]
        rows = pa.concat_tables(chunks)
        n = rows.num_rows
        columns = {
            "video_id": pa.array([video_id] * n),
            "index": pa.array(range(n), pa.int32()),
            "fingerprint": pa.array([item.fingerprint] * n),
        }
        return pa.table({**{c: rows[c] for c in rows.column_names}, **columns}).select(FRAMES.names).cast(FRAMES)

    def _encode(self, part: Decoded) -> pa.Table:
        n, height, width, _ = part.frames.shape
        if self.codec == "raw":
            pixels = [frame.tobytes() for frame in part.frames]
        else:
            pixels = [simplejpeg.encode_jpeg(frame, JPEG_QUALITY, "RGB", "420") for frame in part.frames]
        return pa.table(
            {
                "time_s": part.times,
                "height": pa.array([height] * n, pa.int32()),
                "width": pa.array([width] * n, pa.int32()),
                "codec": [self.codec] * n,
                "crc": pa.array([zlib.crc32(data) for data in pixels], pa.uint32()),
                "backend": [part.backend] * n,
                "pixels": pa.array(pixels, pa.large_binary()),
            }
        )


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
    total = 0.0
    for video in store.table("videos").to_pylist():
        if video["video_id"] not in missing:
            continue
        count = min(stage.max_frames, video["frame_count"], math.ceil(video["duration_s"] * stage.fps))
        shorter = max(1, min(video["width"], video["height"]))
        scale = min(1.0, stage.short_side / shorter) if stage.short_side else 1.0
        total += count * 3 * round(video["width"] * scale) * round(video["height"] * scale)
    return round(total * (JPEG_SHARE if stage.codec == "jpeg" else 1.0))


class _Run(NamedTuple):
    """The rows of one video, which lie behind each other."""

    start: int
    length: int
    height: int
    width: int
    fingerprint: str
    whole: bool


class FrameReader:
    """Reads cached frames by video and index, from one version of the table. Safe to use from several threads.

    Opening reads the small columns once; memory is a few numbers a frame and a few words a video.
    """

    def __init__(self, store: Store) -> None:
        self._snapshot = store.snapshot("frames")
        table = self._snapshot.columns(["video_id", "index", "time_s", "height", "width", "fingerprint"])
        self._times = table["time_s"].to_numpy()
        self._runs: dict[str, _Run] = {}
        if not table.num_rows:
            return
        index = table["index"].to_numpy()
        codes = table["video_id"].combine_chunks().dictionary_encode()
        video = codes.indices.to_numpy()
        starts = np.flatnonzero(np.r_[True, video[1:] != video[:-1]])
        ends = np.r_[starts[1:], len(video)]
        firsts = table.take(pa.array(starts)).to_pylist()
        for start, end, row in zip(starts.tolist(), ends.tolist(), firsts, strict=True):
            name = row["video_id"]
            whole = name not in self._runs and bool((index[start:end] == np.arange(end - start)).all())
            self._runs[name] = _Run(start, end - start, row["height"], row["width"], row["fingerprint"], whole)

    @property
    def videos(self) -> list[str]:
        """Ids of the cached videos, sorted."""
        return sorted(self._runs)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._runs

    def count(self, video_id: str) -> int:
        """Number of cached frames of a video."""
        return self._run(video_id).length

    def times(self, video_id: str) -> np.ndarray:
        """float64 [n]: true times of its frames, seconds from the first frame's start."""
        run = self._run(video_id)
        times: np.ndarray = self._times[run.start : run.start + run.length]
        return times

    def size(self, video_id: str) -> tuple[int, int]:
        """(height, width) of its frames, pixels."""
        run = self._run(video_id)
        return run.height, run.width

    def fingerprint(self, video_id: str) -> str:
        """Fingerprint of its cached frames."""
        return self._run(video_id).fingerprint

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames of one video, in any order, repeats allowed.

        Returns:
            uint8 [len(indices), H, W, 3], RGB; the caller's own.

        Raises:
            UserError: the video has no cached frames, or some of them are missing.
            IndexError: an index is outside the video.
            ValueError: stored bytes do not match their checksum.
        """
        run = self._run(video_id)
        wanted = np.asarray(indices, np.int64)
        unique, back = np.unique(wanted, return_inverse=True)
        if len(unique) and not (unique[0] >= 0 and unique[-1] < run.length):
            raise IndexError(f"frames {unique[0]}..{unique[-1]} of video {video_id}, which has {run.length}")
        rows = self._snapshot.take((unique + run.start).tolist(), ["index", "codec", "crc", "pixels"])
        height, width = run.height, run.width
        frames = np.empty((len(unique), height, width, 3), np.uint8)
        parts: tuple[list[Any], ...] = tuple(rows[c].to_pylist() for c in ("index", "codec", "crc"))
        for place, (index, codec, crc) in enumerate(zip(*parts, strict=True)):
            data = rows["pixels"][place].as_buffer()
            pixels = np.frombuffer(data, np.uint8)
            if zlib.crc32(data) != crc or index != unique[place]:
                raise ValueError(
                    f"frame {unique[place]} of video {video_id} is damaged: its bytes do not match their checksum; "
                    "remove the rows of this video and run strive-data cache-frames again"
                )
            if codec == "raw":
                frames[place] = pixels.reshape(height, width, 3)
            else:
                frames[place] = simplejpeg.decode_jpeg(np.frombuffer(pixels, np.uint8), "RGB")
        return frames if np.array_equal(back, np.arange(len(frames))) else frames[back]

    def _run(self, video_id: str) -> _Run:
        run = self._runs.get(video_id)
        if run is None:
            raise UserError(f"video {video_id}", "it has no cached frames", "strive-data cache-frames")
        if not run.whole:
            raise UserError(
                f"video {video_id}",
                "some of its cached frames are missing",
                "remove its rows, then strive-data cache-frames",
            )
        return run
