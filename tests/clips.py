"""Clips with the frame number burnt in, and oddities that real files have. The number is read back from the pixels."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10
WIDTH, HEIGHT = 96, 64


def picture(number: int, width: int = WIDTH, height: int = HEIGHT, tint: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: the number as black and white blocks in the upper half, a white corner, a grey tint below."""
    frame = np.full((height, width, 3), 40, np.uint8)
    block = width // (BITS + 2)
    for bit in range(BITS):
        value = 255 if number >> bit & 1 else 0
        frame[2 : height // 2, (bit + 1) * block : (bit + 2) * block] = value
    frame[height // 2 :] = 60 + tint % 120
    frame[-height // 4 :, : width // 4] = 255
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number burnt into a frame of any size; -1 when the white corner is not where it belongs."""
    height, width = frame.shape[:2]
    if frame[-height // 8 :, : width // 8].mean() < 180:
        return -1
    block = width / (BITS + 2)
    row = frame[round(height * 0.2) : round(height * 0.35)].astype(float).mean((0, 2))
    bits = [
        row[round((bit + 1.3) * block) : max(round((bit + 1.7) * block), round((bit + 1.3) * block) + 1)]
        for bit in range(BITS)
    ]
    return sum(int(values.mean() > 128) << bit for bit, values in enumerate(bits))


def write_clip(
    path: Path,
    frames: int = 40,
    fps: int = 10,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    gop: int = 12,
    bframes: int = 2,
    ticks: Callable[[int], int] | None = None,
    rotation: int = 0,
    x264: str = "",
    tint: int = 0,
    pix_fmt: str = "yuv420p",
    container: dict[str, str] | None = None,
) -> Path:
    """An H.264 file. `ticks`: when frame i is shown, in units of 1/fps: a variable rate where gaps differ.

    container: options of the muxer.
    """
    options = {
        "preset": "veryfast",
        "crf": "16",
        "bf": str(bframes),
        "g": str(gop),
        "sc_threshold": "0",
        "threads": "1",
    }
    if x264:
        options["x264-params"] = x264
    pictures = (picture(i, *size, tint=tint) for i in range(frames))
    return encode(path, "libx264", pictures, fps, options, ticks, rotation, pix_fmt, container)


def encode(
    path: Path,
    codec: str,
    pictures: Iterable[np.ndarray],
    fps: int = 10,
    options: dict[str, str] | None = None,
    ticks: Callable[[int], int] | None = None,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
    container: dict[str, str] | None = None,
) -> Path:
    """A file of any codec from uint8 [H, W, 3] pictures; arguments as in `write_clip`."""
    stream: Any = None
    with av.open(str(path), "w", options=container or {}) as opened:
        for i, pixels in enumerate(pictures):
            if stream is None:
                stream = opened.add_stream(codec, rate=fps, options=options or {})
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], pix_fmt
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = ticks(i) if ticks else i, Fraction(1, fps)
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())
    return path


def has_encoder(codec: str) -> bool:
    """Whether this build of PyAV brings an encoder along."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def cut_clip(source: Path, path: Path, first: int, fps: int = 10) -> Path:
    """A stream copy that begins in the middle of a group of pictures: an edit list hides the frames before `first`."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        start = round(first / fps / stream.time_base)
        packets = [packet for packet in old.demux(stream) if packet.pts is not None]
        key = max(p.pts for p in packets if p.is_keyframe and p.pts <= start)
        begin = next(i for i, p in enumerate(packets) if p.is_keyframe and p.pts == key)
        for packet in packets[begin:]:
            packet.pts -= start
            packet.dts -= start
            packet.stream = copy
            new.mux(packet)
    return path


def remux(source: Path, path: Path, container: dict[str, str] | None = None) -> Path:
    """The same packets in another container; `container`: options of its muxer."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=container or {}) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return path


def damage(source: Path, path: Path, ranges: Sequence[tuple[float, float]]) -> Path:
    """A copy with parts of its bytes zeroed, as shares of the file."""
    data = bytearray(source.read_bytes())
    for start, end in ranges:
        first, last = int(start * len(data)), int(end * len(data))
        data[first:last] = bytes(last - first)
    path.write_bytes(data)
    return path


def packet_spans(path: Path) -> list[tuple[int, int, bool]]:
    """Where the packets of an mp4 file's first video stream lie, in decoding order: (position, bytes, key frame?)."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        return [(int(packet.pos or 0), packet.size, packet.is_keyframe) for packet in packets]


def overwrite(source: Path, path: Path, start: int, data: bytes) -> Path:
    """A copy with some bytes replaced."""
    whole = bytearray(source.read_bytes())
    whole[start : start + len(data)] = data
    path.write_bytes(whole)
    return path


def write_sound(path: Path) -> Path:
    """An mp4 file with sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for i in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
