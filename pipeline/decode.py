"""Video files to frames with their true times. The only module that reads video files.

decord is fast and reads ordinary files rightly; on files with edit lists, open GOPs or odd timestamps it silently
returns other frames than those asked for. A scan of the packets finds such files, and PyAV reads them instead.
A frame that cannot be decoded is an error, never another frame.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import decord
import numpy as np

from pipeline.videofile import DecodeError, content_id, encrypted, file_size

__all__ = [
    "DecodeError",
    "Decoded",
    "VideoInfo",
    "content_id",
    "decode",
    "decode_frames",
    "frame_times",
    "nearest",
    "probe",
    "scan_packets",
    "target_size",
]

decord.logging.set_level(decord.logging.QUIET)

_CHUNK = 32  # frames that are decoded together
_NARROW = 16  # decord mistakes the channel axis of videos this narrow


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
    """frames: uint8 [n, H, W, 3], RGB, upright. times: float64 [n], true seconds from the first frame's start."""

    frames: np.ndarray
    times: np.ndarray
    backend: str


@dataclass(frozen=True)
class Scan:
    """What the packets of a file say about the n frames that a player shows, in the order of their presentation.

    pts: int64 [n], in the container's ticks. key: bool [n]. times: float64 [n], seconds from the first frame's start.
    doubts: why decord must not read this file; empty for ordinary files. counted: frames are found by counting, because
    their timestamps are missing, repeat, or stand in another order.
    """

    pts: np.ndarray
    key: np.ndarray
    times: np.ndarray
    duration_s: float
    tick_s: float
    stream: int
    codec: str
    width: int  # as stored, before rotation
    height: int
    rotation: int  # counterclockwise, 0, 90, 180 or 270
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    counted: bool


def probe(path: Path) -> VideoInfo:
    """Read a file's packets and decode its first frame.

    Raises:
        DecodeError: it is missing, not a video, encrypted, or nothing in it decodes.
    """
    scan = scan_packets(path)
    width, height = _upright(scan.width, scan.height, scan.rotation)
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


def decode(path: Path, times: Sequence[float], short_side: int | None = None) -> Decoded:
    """The frames nearest to the given times (in any order, repeats allowed), with their true times.

    Args:
        times: seconds from the first frame's start.
        short_side: scale down to this many pixels on the shorter side; None keeps the size.

    Raises:
        DecodeError: the file or one of the frames cannot be decoded.
    """
    scan = scan_packets(path)
    indices = nearest(scan.times, times)
    unique, back = np.unique(indices, return_inverse=True)
    parts = list(decode_frames(path, scan, unique, short_side))
    if not parts:
        width, height = target_size(scan, short_side)
        return Decoded(np.zeros((0, height, width, 3), np.uint8), np.zeros(0), "none")
    frames = np.concatenate([part.frames for part in parts])
    return Decoded(frames[back], scan.times[indices], "+".join(dict.fromkeys(part.backend for part in parts)))


def target_size(scan: Scan, short_side: int | None) -> tuple[int, int]:
    """(width, height) of decoded frames: upright, scaled down to `short_side`, never up."""
    width, height = _upright(scan.width, scan.height, scan.rotation)
    shorter = min(width, height)
    if short_side is None or short_side >= shorter:
        return width, height
    return max(1, round(width * short_side / shorter)), max(1, round(height * short_side / shorter))


def decode_frames(path: Path, scan: Scan, indices: np.ndarray, short_side: int | None = None) -> Iterator[Decoded]:
    """Decode frames by index, in chunks, so that a long video need not fit in memory.

    Args:
        scan: of this file.
        indices: int [k], ascending and unique, among the frames of `scan`.

    Raises:
        DecodeError: a frame cannot be decoded by any backend.
    """
    size = target_size(scan, short_side)
    chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
    reader = _open_decord(path, scan, size)
    while reader is not None and chunks:
        frames = _read_decord(reader, scan, chunks[0], size)
        if frames is None:
            break
        yield Decoded(frames, scan.times[chunks.pop(0)], "decord")
    if not chunks:
        return
    del reader
    rest = _read_pyav(path, scan, np.concatenate(chunks), size)
    for chunk in chunks:
        yield Decoded(np.stack([next(rest) for _ in chunk]), scan.times[chunk], "pyav")


def scan_packets(path: Path) -> Scan:
    """Read all packets of the best video stream without decoding them, and decode the first frame for its rotation.

    Raises:
        DecodeError: it is missing, not a video, encrypted, or nothing in it decodes.
    """
    file_size(path)
    shown: list[tuple[int, bool, int]] = []
    discarded = missing = 0
    leading = False
    last_key: int | None = None
    try:
        with av.open(_url(path)) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise DecodeError("no video stream", f"{path} has no pictures ({container.format.name})")
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.is_discard:
                    discarded += 1
                    continue
                start = packet.pts
                if start is None:
                    missing += 1
                    start = len(shown)
                elif packet.is_keyframe:
                    last_key = start
                elif last_key is not None and start < last_key:
                    leading = True
                shown.append((start, packet.is_keyframe, packet.duration or 0))
            name, tick = container.format.name, float(stream.time_base or 0)
            rate = float(stream.average_rate or 0)
            index, codec = stream.index, stream.codec_context.name if stream.codec_context else ""
            ratio = stream.sample_aspect_ratio
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DecodeError("unreadable container", f"{path}: {error}") from error
    if not shown:
        raise DecodeError("no frames", f"{path} announces a video stream without a single packet")
    if "mp4" in name and encrypted(path):
        raise DecodeError("encrypted", f"{path}: its pictures are encrypted and would decode to noise")
    if not codec:
        raise DecodeError("no decoder", f"{path}: its codec is unknown")
    first = _first_frame(path, index)

    if not missing:  # without timestamps the order of packets says nothing about the order of frames
        shown.sort(key=lambda packet: packet[0])
    pts = np.array([packet[0] for packet in shown], np.int64)
    key = np.array([packet[1] for packet in shown], bool)
    repeated = len(np.unique(pts)) != len(pts)
    if missing and rate <= 0:
        raise DecodeError("no timestamps", f"{path}: {missing} packets have no time and the container names no rate")
    times = np.arange(len(pts)) / rate if missing else (pts - pts[0]) * tick
    gap = float(np.median(np.diff(times))) if len(times) > 1 else (1 / rate if rate > 0 else 0.0)
    last = gap if missing else (shown[-1][2] * tick or gap)
    raw = first.rotation if abs(first.rotation) <= 360 else 0  # a broken matrix gives INT_MIN
    doubts = [
        (discarded, f"{discarded} discarded packets (edit list)"),
        (leading, "open GOP"),
        ("mpegts" in name, "MPEG transport stream"),
        (name == "avi", "AVI: timestamps in decoding order"),
        (missing, "packets without timestamps"),
        (repeated, "repeated timestamps"),
        (not key[0], "does not begin at a keyframe"),
        (first.width <= _NARROW, "narrow"),
        (raw % 90, "odd rotation"),
    ]
    notes = [
        (ratio not in (None, 0, 1), f"non-square pixels {ratio}"),
        (first.rotation != raw, "broken rotation matrix"),
    ]
    return Scan(
        pts=pts,
        key=key,
        times=times,
        duration_s=float(times[-1]) + last,
        tick_s=tick,
        stream=index,
        codec={"libdav1d": "av1"}.get(codec, codec),
        width=first.width,
        height=first.height,
        rotation=0 if raw % 90 else raw % 360,
        doubts=tuple(text for found, text in doubts if found),
        notes=tuple(text for found, text in notes if found),
        counted=bool(missing or repeated or name == "avi"),
    )


def _open_decord(path: Path, scan: Scan, size: tuple[int, int]) -> Any:
    """A decord reader, or None when decord is not to be trusted with this file or cannot open it."""
    if scan.doubts:
        return None
    try:
        # fault_tol: by default decord repeats the last good frame for damaged ones.
        reader = decord.VideoReader(os.path.abspath(path), num_threads=1, width=size[0], height=size[1], fault_tol=1e-9)
        return reader if len(reader) == len(scan.pts) else None
    except Exception:  # decord raises RuntimeError, DECORDError, IndexError...; PyAV then decides what is wrong
        return None


def _read_decord(reader: Any, scan: Scan, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """uint8 [k, H, W, 3], or None when decord fails or its own timestamps deny that these are the frames asked for."""
    try:
        frames: np.ndarray = reader.get_batch(indices.tolist()).asnumpy()
        starts = reader.get_frame_timestamp(indices)[:, 0] - reader.get_frame_timestamp(0)[0]
    except Exception:  # as above
        return None
    tolerance = 0.5 * float(np.diff(scan.times).min()) if len(scan.times) > 1 else np.inf
    right = frames.shape == (len(indices), size[1], size[0], 3)
    return frames if right and np.abs(starts - scan.times[indices]).max() < tolerance else None


def _read_pyav(path: Path, scan: Scan, indices: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield uint8 [H, W, 3] a frame. Seeks to keyframes; every frame is checked against its timestamp."""
    keys = np.flatnonzero(scan.key)
    stored = size if scan.rotation % 180 == 0 else size[::-1]
    try:
        with av.open(_url(path)) as container:
            stream = container.streams[scan.stream]
            stream.codec_context.thread_count = 1
            frames: Iterator[Any] = iter(container.decode(stream))
            position = -1  # presentation index of the last frame that came out
            for index in indices.tolist():
                before = keys[: int(np.searchsorted(keys, index, side="right"))]
                # The keyframe before the target, then earlier ones, then the file's start: a seek may land too late.
                starts: list[int | None] = [*before[::-1][:3].tolist(), 0]
                if scan.counted or (position >= 0 and (not len(before) or int(before[-1]) <= position)):
                    starts.insert(0, None)  # near enough: read on
                for start in starts:
                    if start is not None and not scan.counted:
                        ticks = int(scan.pts[start]) if start else min(0, stream.start_time or 0)
                        container.seek(ticks, stream=stream, backward=True)
                        frames, position = iter(container.decode(stream)), -1
                    found, position = _advance(frames, scan, index, position)
                    if found is not None:
                        break
                else:
                    raise DecodeError("frame not decodable", f"{path}: frame {index} ({scan.times[index]:.3f} s)")
                if found.is_corrupt:
                    raise DecodeError("corrupt frame", f"{path}: frame {index} ({scan.times[index]:.3f} s)")
                picture = found.reformat(width=stored[0], height=stored[1], format="rgb24", interpolation="BILINEAR")
                yield np.ascontiguousarray(np.rot90(picture.to_ndarray(), scan.rotation // 90))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DecodeError("frame not decodable", f"{path}: {error}") from error


def _advance(frames: Iterator[Any], scan: Scan, index: int, position: int) -> tuple[Any, int]:
    """Read on until frame `index`; (frame, its index), or (None, position) when the stream ends or has passed it."""
    for frame in frames:
        if scan.counted:
            position += 1
        elif frame.pts is None or (place := int(np.searchsorted(scan.pts, frame.pts))) == len(scan.pts):
            continue
        else:
            position = place
            if scan.pts[place] != frame.pts:
                continue
        if position >= index:
            return (frame if position == index else None), position
    return None, position


def _first_frame(path: Path, stream: int) -> Any:
    try:
        with av.open(_url(path)) as container:
            for frame in container.decode(container.streams[stream]):
                return frame
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DecodeError("frame not decodable", f"{path}: first frame: {error}") from error
    raise DecodeError("frame not decodable", f"{path}: no frame comes out of its packets")


def _upright(width: int, height: int, rotation: int) -> tuple[int, int]:
    return (width, height) if rotation % 180 == 0 else (height, width)


def _url(path: Path) -> str:
    return "file:" + os.path.abspath(path)  # names with a colon or a leading dash are paths too
