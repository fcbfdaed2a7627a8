"""A scan of a file's packets: what it announces, when each frame is shown, and why decord must not read it.

No picture is decoded but the first, so it takes milliseconds.
"""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np

from pipeline.decode.containers import encrypted, ends_early
from pipeline.videofile import DecodeError, file_size

# FFmpeg goes on after damage and only says so in its messages: they are heard here and in `by_pyav`, never printed.
av.logging.set_level(av.logging.DEBUG)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())

AV_ERRORS = (av.error.FFmpegError, OSError, ValueError)

CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "live_flv", "asf", "asf_o", "mpeg", "mpegts", "mpegvideo", "m4v", "ogg", "nut"),
    *("mxf", "rm", "dv", "wtv", "ivf", "h264", "hevc", "vvc", "obu", "vc1", "mjpeg", "mpjpeg", "gif", "apng", "dnxhd"),
    *("yuv4mpegpipe", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif_pipe"),  # to say: a picture
    *("mp3", "wav", "flac", "aac", "ac3", "aiff", "w64"),  # to say: without pictures
)
"""Formats that are opened, by FFmpeg's names. Playlists (HLS, DASH, concat) are none of them: they open other files."""

MOST_PIXELS = 1 << 26
"""Of a picture as it is stored, 8192 x 8192: a decoder holds up to seventeen of them at once."""

_NARROW = 16  # decord mistakes the channel axis of videos this narrow
# What FFmpeg calls an error but for one: a picture that was to be forgotten is not there, which is usual after a seek
# or a cut, and harmless. And what it calls none: pictures pieced together, and pictures that are missing from a row.
_ERROR, _BENIGN, _SERIOUS = 16, "mmco", ("concealing", "Frame num gap")


@dataclass(frozen=True)
class Scan:
    """What the packets of a file say about the n frames that a player shows, in the order of their presentation.

    pts: int64 [n], in the container's ticks. key: bool [n]. times: float64 [n], seconds from the first frame's start.
    announced: frames that the container's index or header counts, n where it counts none.
    doubts: why decord must not read this file; empty for ordinary files. counted: frames are found by counting, because
    their timestamps are missing or stand in another order.
    damage: what is missing of the file as a whole, e.g. its end; "" when nothing is known to be.
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
    announced: int
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    damage: str
    counted: bool


@dataclass
class _Packets:
    """What one pass over the packets of a stream found."""

    shown: list[tuple[int, bool, int]] = field(default_factory=list)  # (pts, key frame?, duration)
    discarded: int = 0
    empty: int = 0
    missing: int = 0  # without a timestamp
    corrupt: int = 0
    leading: bool = False
    broken: str = ""  # the error that ended the pass
    complaint: str = ""  # the first message of the container's reader


def scan_packets(path: Path) -> Scan:
    """Read all packets of the best video stream without decoding them, and decode the first frame for its rotation.

    Raises:
        DecodeError: it is missing, not a video, encrypted, or nothing in it decodes.
    """
    file_size(path)
    try:
        with opened(path) as container:
            name = container.format.name
            stream = _video_stream(path, container)
            if encrypted(path, name, stream.id):
                raise DecodeError("encrypted", f"{path}: its pictures are encrypted and would decode to noise")
            if stream.codec_context and stream.width * stream.height > MOST_PIXELS:
                size = f"{stream.width} x {stream.height}"
                raise DecodeError("picture too large", f"{path}: {size} is more than {MOST_PIXELS} pixels")
            found = _read(container, stream)
            indexed = len(stream.index_entries) if "mp4" in name else 0
            announced = max(stream.frames, indexed)
            tick, rate = float(stream.time_base or 0), float(stream.average_rate or 0)
            index, codec = stream.index, stream.codec_context.name if stream.codec_context else ""
            ratio = stream.sample_aspect_ratio
        cut = ends_early(path, name)
    except AV_ERRORS as error:
        raise DecodeError("unreadable container", f"{path}: {error}") from error
    if not found.shown:
        why = found.broken or "its video stream has not a single packet"
        raise DecodeError("no frames", f"{path}: {why}, of {announced} announced" if announced else f"{path}: {why}")
    if not codec:
        raise DecodeError("no decoder", f"{path}: its codec is unknown")
    seen = len(found.shown) + found.discarded + found.empty
    if name == "avi" and announced > seen and not cut:  # its times are counted packets
        raise DecodeError("damaged", f"{path}: {announced - seen} of {announced} frames are gone, nobody knows which")
    first = _first_frame(path, index)

    shown, missing = found.shown, found.missing
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
    lacking = f"{seen} of {indexed} indexed frames are in the file" if indexed > seen else ""
    damage = lacking or (cut and "the file ends before its container does") or found.broken
    doubts = [
        (found.discarded, f"{found.discarded} discarded packets (edit list)"),
        (found.leading, "open GOP"),
        ("mpegts" in name, "MPEG transport stream"),
        (name == "avi", "AVI: timestamps in decoding order"),
        (missing, "packets without timestamps"),
        (repeated, "repeated timestamps"),
        (not key[0], "does not begin at a keyframe"),
        (first.width <= _NARROW, "narrow"),
        (raw % 90, "odd rotation"),
        (found.corrupt, f"{found.corrupt} packets marked corrupt"),
        (found.complaint, f"the container's reader complains: {found.complaint}"),
        (damage, f"damaged: {damage}"),
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
        announced=announced or len(pts),
        doubts=tuple(text for there, text in doubts if there),
        notes=tuple(text for there, text in notes if there),
        damage=damage or "",
        counted=bool(missing or name == "avi"),
    )


def url(path: Path) -> str:
    """The path as FFmpeg takes it: names with a colon or a leading dash are paths too."""
    return "file:" + os.path.abspath(path)


def opened(path: Path) -> Any:
    """The file as PyAV's container, if it is one of CONTAINERS; no other file is read, and no picture is too large.

    Raises:
        AV_ERRORS: it cannot be opened.
    """
    limits = {"max_pixels": str(2 * MOST_PIXELS)}  # FFmpeg counts what it puts around a picture, too
    allowed = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    container = av.open(url(path), options=allowed | limits)
    for stream in container.streams.video:
        if stream.codec_context:
            stream.codec_context.options = limits  # a picture may announce another size than its container
    return container


def is_complaint(level: int, text: str) -> bool:
    """Whether a message of FFmpeg tells of damage. `level`: FFmpeg's, where worse is smaller."""
    return text.startswith(_SERIOUS) or (level <= _ERROR and not text.startswith(_BENIGN))


def first_complaint(messages: list[tuple[int, str, str]]) -> str:
    """The first of PyAV's captured messages (level, source, text) that tells of damage; "" when none does."""
    return next((text.strip() for level, _, text in messages if is_complaint(level, text)), "")


def _video_stream(path: Path, container: Any) -> Any:
    """The stream that a player shows. Cover art is no video, and a picture file is none either.

    Raises:
        DecodeError: there is no such stream.
    """
    name = container.format.name
    if name.endswith("_pipe") or name == "image2":
        raise DecodeError("still image", f"{path} is a picture ({name}), not a video")
    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        raise DecodeError("no video stream", f"{path} has no pictures that move ({name})")
    best = container.streams.best("video")
    return best if best in videos else max(videos, key=lambda stream: stream.width * stream.height)


def _read(container: Any, stream: Any) -> _Packets:
    found, last_key = _Packets(), None
    with av.logging.Capture() as messages:
        for packet in _demux(container, stream, found):
            found.complaint = found.complaint or first_complaint(messages)
            messages.clear()  # a long file may make many
            if packet.is_discard:
                found.discarded += 1
                continue
            start = packet.pts
            if start is None:
                found.missing += 1
                start = len(found.shown)
            elif packet.is_keyframe:
                last_key = start
            elif last_key is not None and start < last_key:
                found.leading = True
            found.corrupt += packet.is_corrupt
            found.shown.append((start, packet.is_keyframe, packet.duration or 0))
    found.complaint = found.complaint or first_complaint(messages)
    return found


def _demux(container: Any, stream: Any, found: _Packets) -> Iterator[Any]:
    """The packets that hold something, up to the container's end or to where it cannot be read on."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
            else:
                found.empty += packet.dts is not None  # the last one, which ends the stream, has no time
    except av.error.FFmpegError as error:
        found.broken = f"its container breaks off ({error.strerror})"


class _Picture(NamedTuple):
    """What a first frame says of all: pixels before rotation, degrees."""

    width: int
    height: int
    rotation: int


def _first_frame(path: Path, stream: int) -> _Picture:
    """The first picture that comes out, damaged or not: its size and its rotation are those of all."""
    found = _Packets()
    try:
        with opened(path) as container, closing(_pictures(container, stream, found)) as pictures:
            for picture in pictures:
                return picture
    except AV_ERRORS as error:
        raise DecodeError("frame not decodable", f"{path}: first frame: {error}") from error
    raise DecodeError("frame not decodable", f"{path}: no frame comes out of its packets ({found.broken or 'pyav'})")


def _pictures(container: Any, stream: int, found: _Packets) -> Generator[_Picture]:
    """Frames as plain numbers: packets and frames that outlive their container are never freed."""
    for packet in _demux(container, container.streams[stream], found):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:  # the next packet may decode
            continue
        yield from (_Picture(frame.width, frame.height, frame.rotation) for frame in frames)
    rest = container.streams[stream].codec_context.decode(None)
    yield from (_Picture(frame.width, frame.height, frame.rotation) for frame in rest)
