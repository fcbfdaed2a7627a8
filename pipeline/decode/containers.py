"""What a container declares about its content, read from its bytes: encryption, and an end that lies beyond the file.

Decoders tell neither: encrypted pictures decode to noise without an error, and a cut file simply ends early. Nothing
here looks at pixels: a file is called encrypted only when it says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MP4_PARENTS = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_MP4_MEDIA = (b"moov", b"moof", b"mdat")

# Matroska element ids, with their length marker as in the specification.
_SEGMENT, _TRACKS, _CLUSTER, _TRACK, _TRACK_TYPE = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0x83
_ENCODINGS, _ENCODING, _ENCRYPTION = 0x6D80, 0x6240, 0x5035
_VIDEO_TRACK = 1

_MANY = 100_000  # siblings that are looked at: more than a sound file of many hours has

_TS_SYNC, _TS_SAMPLE = 0x47, 8 << 20  # bytes of a transport stream that are looked at
_TS_LAYOUTS = ((188, 0), (192, 4), (204, 0))  # packet length, offset of its sync byte


def encrypted(path: Path, container: str, stream_id: int) -> bool:
    """Whether the container declares its pictures encrypted.

    Args:
        container: FFmpeg's name of the format.
        stream_id: FFmpeg's id of the video stream; in a transport stream the PID of its packets.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        if "mp4" in container:
            return _mp4_encrypted(stream, 0, os.fstat(stream.fileno()).st_size)
        if "matroska" in container:
            return _matroska_encrypted(stream)
        if "mpegts" in container:
            return _transport_scrambled(stream.read(_TS_SAMPLE), stream_id)
    return False


def ends_early(path: Path, container: str) -> bool:
    """Whether the file is shorter than its container says (mp4, Matroska, AVI).

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if "mp4" in container:
            return any(kind in _MP4_MEDIA and stop > size for kind, _, stop in _boxes(stream, 0, size))
        if "matroska" in container:
            return any(kind == _SEGMENT and end is not None and end > size for kind, _, end in _elements(stream, size))
        if container == "avi":
            head = stream.read(8)
            return head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 > size
    return False


def _boxes(stream: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an mp4 file between two positions: (kind, start of the body, declared end)."""
    for _ in range(_MANY):
        stream.seek(start)
        head = stream.read(16)
        size, body = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), start + 16
        stop = end if size == 0 else start + size
        if body > end or stop < body:
            return
        yield head[4:8], body, stop
        start = stop


def _mp4_encrypted(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether a sample description between two positions names encrypted video (`encv`)."""
    for kind, body, stop in _boxes(stream, start, end):
        if kind == b"encv":
            return True
        if kind == b"moov":  # the only one
            return _mp4_encrypted(stream, body, min(stop, end))
        inside = body + 8 if kind == b"stsd" else body  # behind its version and count
        if kind in _MP4_PARENTS and _mp4_encrypted(stream, inside, min(stop, end)):
            return True
    return False


def _elements(stream: BinaryIO, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Matroska elements from the present position on: (id, start of the body, its end or None when not declared)."""
    start = stream.tell()
    for _ in range(_MANY):
        if start >= end:
            return
        stream.seek(start)
        kind, size = _number(stream, keep_marker=True), _number(stream, keep_marker=False)
        if kind is None or size is None:
            return
        body = stream.tell()
        unknown = size < 0
        yield kind, body, None if unknown else body + size
        if unknown:
            return
        start = body + size


def _number(stream: BinaryIO, keep_marker: bool) -> int | None:
    """A number of 1 to 8 bytes, its length marked by its leading zeros; -1: "unknown"; None: at the end, or broken."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    data = first + stream.read(length - 1)
    if len(data) < length:
        return None
    value = int.from_bytes(data, "big")
    if keep_marker:
        return value
    value -= 1 << (7 * length)
    return -1 if value == (1 << (7 * length)) - 1 else value


def _matroska_encrypted(stream: BinaryIO) -> bool:
    size = os.fstat(stream.fileno()).st_size
    for kind, body, end in _elements(stream, size):
        if kind != _SEGMENT:
            continue
        stream.seek(body)
        for part, part_body, part_end in _elements(stream, min(end or size, size)):
            if part == _CLUSTER:  # the pictures begin; what describes them stands before
                return False
            if part == _TRACKS and part_end is not None:
                tracks = _children(stream, part_body, min(part_end, size), _TRACK)
                return any(_track_encrypted(stream, *span) for span in tracks)
    return False


def _track_encrypted(stream: BinaryIO, body: int, end: int) -> bool:
    for start, stop in _children(stream, body, end, _TRACK_TYPE):
        stream.seek(start)
        if int.from_bytes(stream.read(stop - start), "big") != _VIDEO_TRACK:
            return False
    for encodings in _children(stream, body, end, _ENCODINGS):
        for encoding in _children(stream, *encodings, _ENCODING):
            if _children(stream, *encoding, _ENCRYPTION):
                return True
    return False


def _children(stream: BinaryIO, body: int, end: int, kind: int) -> list[tuple[int, int]]:
    """(start, end) of the bodies of those children of an element that are of one kind."""
    stream.seek(body)
    found = list(_elements(stream, end))
    return [(start, min(stop, end)) for name, start, stop in found if name == kind and stop is not None]


def _transport_scrambled(data: bytes, pid: int) -> bool:
    """Whether most packets of a PID carry scrambling bits. One alone may be a damaged byte."""
    values = np.frombuffer(data, np.uint8)
    for length, offset in _TS_LAYOUTS:
        rows = values[: len(values) // length * length].reshape(-1, length)[:, offset : offset + 4]
        if not len(rows) or (rows[:, 0] == _TS_SYNC).mean() < 0.9:
            continue
        pids = (rows[:, 1].astype(np.int64) & 0x1F) << 8 | rows[:, 2]
        mine = rows[pids == pid]
        return bool(len(mine) and (mine[:, 3] >> 6 != 0).mean() > 0.5)
    return False
