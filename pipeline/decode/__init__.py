"""Video files to frames with their true times. The only part of the project that reads video files.

Which backend reads a file is a rule, not a trial:

1. A scan of the packets finds every file that decord is known to read wrongly: its doubts (`packets`).
2. decord reads files without doubts, as long as it does not fail, its own timestamps name the frames asked for, and
   its FFmpeg reports no error (`by_decord`).
3. PyAV reads all others, what decord did not give, and videos whose frames memory should not hold (`by_pyav`).
4. torchcodec, where it is installed, is asked for frames that PyAV cannot give without anything being damaged
   (`by_torchcodec`).

`Decoded.backend` names the backend. A frame that cannot be decoded is an error or left out, never another frame.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.decode.by_decord import open_decord
from pipeline.decode.by_pyav import Missing, read_pyav
from pipeline.decode.by_torchcodec import has_torchcodec, open_torchcodec
from pipeline.decode.packets import Scan, scan_packets
from pipeline.videofile import DecodeError, content_id, file_size

__all__ = [
    "DecodeError",
    "Decoded",
    "Scan",
    "VideoInfo",
    "content_id",
    "decode",
    "decode_frames",
    "frame_times",
    "nearest",
    "probe",
    "scan_packets",
    "target_size",
    "upright_size",
]

_CHUNK, _CHUNK_BYTES = 32, 2 << 20  # frames that are decoded together, and their bytes, at most; one may be larger


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds; the columns of the `videos` table. Sizes are those after rotation."""

    codec: str
    bytes: int
    width: int
    height: int
    rotation: int
    fps: float
    duration_s: float
    frame_count: int
    variable_rate: bool
    status: str


@dataclass(frozen=True)
class Decoded:
    """frames: uint8 [n, H, W, 3], RGB, upright. times: float64 [n], true seconds from the first frame's start.

    indices: int64 [n], which frames of the video they are. backend: decord, pyav or torchcodec.
    """

    frames: np.ndarray
    times: np.ndarray
    indices: np.ndarray
    backend: str


def probe(path: Path) -> VideoInfo:
    """Read a file's packets and decode its first frame.

    Raises:
        DecodeError: it is missing, not a video, encrypted, or nothing in it decodes.
    """
    scan = scan_packets(path)
    width, height = upright_size(scan)
    gaps = np.diff(scan.times)
    variable = bool(len(gaps) and np.ptp(gaps) > max(1.5 * scan.tick_s, 0.01 * float(np.median(gaps))))
    return VideoInfo(
        codec=scan.codec,
        bytes=file_size(path),
        width=width,
        height=height,
        rotation=scan.rotation,
        fps=len(scan.times) / scan.duration_s if scan.duration_s > 0 else 0.0,
        duration_s=scan.duration_s,
        frame_count=len(scan.times),
        variable_rate=variable,
        status="; ".join((*scan.doubts, *scan.notes)) or "ok",
    )


def frame_times(path: Path) -> np.ndarray:
    """float64 [n]: true times of all frames that a player shows, seconds from the first frame's start.

    Raises:
        DecodeError: as `probe`.
    """
    return scan_packets(path).times


def nearest(times: np.ndarray, targets: Sequence[float] | np.ndarray) -> np.ndarray:
    """Index of the frame nearest to each target, the earlier of two equally near ones.

    Args:
        times: float64 [n], ascending, n >= 1.
        targets: [k] seconds, in any order.

    Returns:
        int64 [k].
    """
    wanted = np.asarray(targets, np.float64)
    right = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    left = (right - 1).clip(0)
    return np.where(wanted - times[left] <= times[right] - wanted, left, right)


def upright_size(scan: Scan) -> tuple[int, int]:
    """(width, height) of a file's frames, in pixels, after rotation."""
    return (scan.width, scan.height) if scan.rotation % 180 == 0 else (scan.height, scan.width)


def target_size(
    width: int, height: int, short_side: int | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """(width, height) scaled down, never up, until both limits hold; the aspect as near as whole pixels allow.

    Args:
        short_side: at most so many pixels on the shorter side, at least 1; None: no limit.
        max_pixels: at most so many pixels in all, at least 1; None: no limit.

    Raises:
        ValueError: a size or a limit is less than 1.
    """
    if min(width, height, *(limit for limit in (short_side, max_pixels) if limit is not None)) < 1:
        raise ValueError(f"{width} x {height}, short_side {short_side}, max_pixels {max_pixels}: less than 1")
    wide, high, shorter = width, height, min(width, height)
    if short_side is not None and short_side < shorter:
        wide, high = round(width * short_side / shorter), round(height * short_side / shorter)
    if max_pixels is not None and wide * high > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        low = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
        sizes = [(low[0] + right, low[1] + up) for right in (0, 1) for up in (0, 1)]
        fitting = [(w, h) for w, h in sizes if w * h <= max_pixels and w <= wide and h <= high]
        wide, high = min(
            fitting or [(min(low[0], max_pixels), min(low[1], max_pixels))],  # one pixel high, or one wide
            key=lambda size: (abs(math.log(size[0] * height / (size[1] * width))), -size[0] * size[1]),
        )
    return wide, high


def decode(
    path: Path, times: Sequence[float] | np.ndarray, short_side: int | None = None, max_pixels: int | None = None
) -> Decoded:
    """The frames nearest to the given times (in any order, repeats allowed), with their true times.

    A frame is shown until the next one begins, so its true time lies within half the gap between two frames of what was
    asked, or, behind the last frame's start, within the time for which that one is shown.

    Args:
        times: seconds from the first frame's start, at most the end of the last frame.
        short_side, max_pixels: as in `target_size`.

    Raises:
        DecodeError: the file or one of the frames cannot be decoded, or a time lies outside the video.
    """
    scan = scan_packets(path)
    wanted = np.asarray(times, np.float64)
    outside = wanted[~((wanted >= -scan.tick_s) & (wanted <= scan.duration_s + scan.tick_s))]
    if len(outside):
        span = f"0 to {scan.duration_s:.3f} s, where the video has frames (no backend was asked)"
        raise DecodeError("time outside the video", f"{path}: {outside[0]:.3f} s does not lie within {span}")
    indices = nearest(scan.times, wanted).astype(np.int64)
    unique, back = np.unique(indices, return_inverse=True)
    width, height = target_size(*upright_size(scan), short_side, max_pixels)
    parts = list(_read(path, scan, unique, (width, height), strict=True, ahead=True))
    if not parts:
        return Decoded(np.zeros((0, height, width, 3), np.uint8), np.zeros(0), indices, "none")
    frames = np.concatenate([part.frames for part in parts])
    backend = "+".join(dict.fromkeys(part.backend for part in parts))
    return Decoded(frames[back], scan.times[indices], indices, backend)


def decode_frames(
    path: Path, scan: Scan, indices: np.ndarray, size: tuple[int, int], *, strict: bool = False, ahead: bool = True
) -> Iterator[Decoded]:
    """Decode frames by index, in chunks, so that a long video need not fit in memory.

    Frames that cannot be decoded are left out: `Decoded.indices` says which are there.

    Args:
        scan: of this file.
        indices: int [k], ascending and unique, among the frames of `scan`.
        size: (width, height) of the frames, as from `target_size`.
        strict: leave nothing out.
        ahead: decord may be asked. While it has a file open it decodes ahead of what is read, without bound: a reader
            that is slower than it, with more frames than memory should hold, says False.

    Raises:
        DecodeError: none of the frames can be decoded; if strict, at the first that cannot, or when the file as a whole
            is damaged (`scan.damage`).
    """
    if strict and scan.damage:
        raise DecodeError("damaged", f"{path}: {scan.damage}")
    return _read(path, scan, indices, size, strict, ahead)


def _read(
    path: Path, scan: Scan, indices: np.ndarray, size: tuple[int, int], strict: bool, ahead: bool
) -> Iterator[Decoded]:
    together = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * size[0] * size[1])))
    chunks = [indices[i : i + together] for i in range(0, len(indices), together)]
    read_decord = open_decord(path, scan, size) if chunks and ahead else None
    some = False
    while read_decord is not None and chunks:
        frames = read_decord(chunks[0])
        if frames is None:
            break
        some = True
        yield Decoded(frames, scan.times[chunks[0]], chunks.pop(0).astype(np.int64), "decord")
    if not chunks:
        return
    read_decord = None  # its file and its threads
    trouble: DecodeError | None = None
    found = _by_exact_backends(path, scan, np.concatenate(chunks), size)
    for chunk in chunks:
        good: list[tuple[int, str, np.ndarray]] = []
        for _ in chunk:
            index, backend, answer = next(found)
            if not isinstance(answer, Missing):
                good.append((index, backend, answer))
                continue
            where = f"{path}: frame {index} ({scan.times[index]:.3f} s), {backend}"
            trouble = trouble or DecodeError("frame not decodable", f"{where}: {answer.why}")
            if strict:
                raise trouble
        for backend, run in groupby(good, key=lambda entry: entry[1]):
            there, _, pictures = zip(*run, strict=True)
            some = True
            yield Decoded(np.stack(pictures), scan.times[list(there)], np.array(there, np.int64), backend)
    if trouble is not None and not some:
        raise trouble


def _by_exact_backends(
    path: Path, scan: Scan, indices: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[int, str, np.ndarray | Missing]]:
    """Each index with the name of the last backend that was asked for it, and its frame or why there is none."""
    ask: Callable[[int], np.ndarray | Missing] | None = None
    for index, answer in read_pyav(path, scan, indices, size):
        if not isinstance(answer, Missing) or answer.damaged or not has_torchcodec():
            yield index, "pyav", answer
            continue
        ask = ask or open_torchcodec(path, scan, size)
        second = ask(index)
        if isinstance(second, Missing):
            yield index, "pyav and torchcodec", Missing(f"{answer.why}; {second.why}", damaged=False)
        else:
            yield index, "torchcodec", second
