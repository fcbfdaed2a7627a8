"""PyAV: exact, for every file that it can open. Each frame is checked against its timestamp, and damage is heard.

FFmpeg goes on behind a damaged packet: it hands out pictures that it has pieced together from older ones. Such pictures
are not believed: not that of the packet itself, and none that leans on it, which is every one up to the next key frame.
Damage shows as an error, as a message of FFmpeg, as a mark on a picture, or as a picture that never comes.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.decode.packets import AV_ERRORS, Scan, first_complaint, opened

_A_PICTURE_A_PACKET = ("h264", "hevc")  # other codecs have packets that are not shown
_CORRUPT = "the decoder marks it corrupt"


@dataclass(frozen=True)
class Missing:
    """A frame that did not decode. damaged: its packets are, so that no other backend is worth asking."""

    why: str
    damaged: bool


def read_pyav(
    path: Path, scan: Scan, indices: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray | Missing]]:
    """Frames by index.

    Args:
        indices: int [k], ascending and unique.
        size: (width, height) of the frames.

    Yields:
        Each index, in order, with uint8 [H, W, 3] or what is wrong with it.
    """
    stored = size if scan.rotation % 180 == 0 else size[::-1]
    left = indices.tolist()
    try:
        # Packets and frames that outlive their container are never freed: the reader lets go of them first.
        with opened(path) as container, closing(_Reader(container, scan)) as reader:
            while left:
                picture = _upright(reader.fetch(left[0]), stored, scan.rotation)
                yield left.pop(0), picture
    except AV_ERRORS as error:
        yield from ((index, Missing(str(error), damaged=False)) for index in left)


def _upright(frame: Any, stored: tuple[int, int], rotation: int) -> np.ndarray | Missing:
    """A decoded frame as uint8 [H, W, 3], scaled and rotated; what is missing stays so."""
    if isinstance(frame, Missing):
        return frame
    picture = frame.reformat(width=stored[0], height=stored[1], format="rgb24", interpolation="BILINEAR")
    return np.ascontiguousarray(np.rot90(picture.to_ndarray(), rotation // 90))


class _Reader:
    """One open file, read from key frames on.

    Frames are found by their timestamps (presentation index = place in scan.pts), or by counting where those are of no
    use. `bad` holds the timestamps of packets whose pictures are not believed.
    """

    def __init__(self, container: Any, scan: Scan) -> None:
        self.container, self.scan = container, scan
        self.stream = container.streams[scan.stream]
        self.stream.codec_context.thread_count = 1  # messages then come while their packet is decoded
        self.keys = np.flatnonzero(scan.key)
        self.in_order = scan.counted  # no more seeks
        self.frames: Iterator[Any] = iter(())
        self._begin(0)

    def close(self) -> None:
        """Let go of all packets and frames."""
        self._stop()
        self.frame = None

    def fetch(self, index: int) -> Any:
        """The av.VideoFrame with this index, or Missing. Indices must ascend from call to call."""
        group = self._group(index)
        tries: list[int | None] = []
        if self.in_order or (self.position >= 0 and group <= self._group(self.position)):
            tries.append(None)  # near enough: read on
        if not self.in_order:
            # The key frame before it; an earlier one, as pictures around a key frame may lean on those before; the
            # file's start, as a seek may land too late.
            tries += dict.fromkeys(max(0, start) for start in (group, group - 2, 0))
        why, damaged = "its packets give no such frame", False
        for start in tries:
            if start is not None:
                self._seek(start)
                # The last resort is taken once: whatever else is wanted lies behind it.
                self.in_order = start == 0 and group > 2
            frame = self._advance(index)
            if frame is not None:
                return frame
            if complaint := self._complaint(index):
                why, damaged = complaint, True
            if self.first_group == 0 or (damaged and group - self.first_group >= 2):
                break
        return Missing(why, damaged)

    def _group(self, index: int) -> int:
        """Which key frame a frame follows, counted from 1; 0 before the first."""
        return int(np.searchsorted(self.keys, index, side="right"))

    def _seek(self, group: int) -> None:
        first = min(0, self.stream.start_time or 0)
        ticks = first if group <= 1 else int(self.scan.pts[self.keys[group - 1]])
        self.container.seek(ticks, stream=self.stream, backward=True)
        self._begin(0 if group <= 1 else group)

    def _begin(self, group: int) -> None:
        self.first_group = group
        self._stop()
        self.frames = self._decode()
        self.position, self.frame = -1, None  # the last frame that came out: its presentation index, and itself
        self.bad: dict[int, str] = {}
        self.lost = "no key frame before it" if len(self.keys) else ""  # why frames of this group are not believed
        self.leading_lost = ""  # the same for those shown before its key frame
        self.key_pts: int | None = None
        self.at_start = group == 0
        self.miscounted = ""  # why counted frames are not believed
        # Packets whose pictures are still to come: (group, place in decoding order, shown before the key frame?).
        self.fed: dict[int, tuple[int, int, bool]] = {}
        self.groups = self.packets = 0
        self.gone: dict[int, int] = {}  # group: place from which on its pictures are not believed

    def _stop(self) -> None:
        if isinstance(self.frames, Generator):
            self.frames.close()

    def _advance(self, index: int) -> Any:
        """Read on until frame `index`; None when the stream ends, has passed it, or gives it damaged."""
        while self.position < index and (frame := next(self.frames, None)) is not None:
            place = self._place(frame)
            if place is not None:
                self.position, self.frame = place, frame
        return self.frame if self.position == index and not self._complaint(index) else None

    def _place(self, frame: Any) -> int | None:
        """The presentation index of a frame that comes out; None when it is none of those that are shown."""
        if self.scan.counted:
            if frame.is_corrupt:
                self.miscounted = self.miscounted or _CORRUPT
            return self.position + 1
        if frame.pts is None:
            return None
        first, end = (int(np.searchsorted(self.scan.pts, frame.pts, side)) for side in ("left", "right"))
        if first == end:
            return None
        self._settle(frame)
        return min(max(first, self.position + 1), end - 1)  # frames that share a timestamp, one after the other

    def _settle(self, frame: Any) -> None:
        """Damage that shows only when pictures come out: one that is marked corrupt, and one that never came."""
        if self.scan.codec in _A_PICTURE_A_PACKET:
            for pts in [pts for pts in self.fed if pts < frame.pts]:
                self._blame(pts, "its packet gives no picture")
        group, order, leading = self.fed.get(frame.pts, (0, 0, False))
        if frame.is_corrupt:
            self._blame(frame.pts, _CORRUPT)
        if order > self.gone.get(group, order) or (leading and group - 1 in self.gone):
            self.bad.setdefault(frame.pts, "it leans on a picture that is damaged")
        self.fed.pop(frame.pts, None)

    def _blame(self, pts: int, why: str) -> None:
        group, order, leading = self.fed.pop(pts, (0, 0, False))
        if not leading and pts not in self.bad:
            self.gone[group] = min(self.gone.get(group, order), order)
        self.bad.setdefault(pts, why)

    def _complaint(self, index: int) -> str:
        return self.miscounted if self.scan.counted else self.bad.get(int(self.scan.pts[index]), "")

    def _decode(self) -> Iterator[Any]:
        """Frames as they come out, while `_judge` keeps the account of what to believe."""
        packets = iter(self.container.demux(self.stream))
        while True:
            with av.logging.Capture() as messages:
                broken, frames, packet = "", [], None
                try:
                    packet = next(packets, None)
                    if packet is not None and (packet.size or packet.dts is None):  # the last, empty one flushes
                        frames = packet.decode()
                except av.error.FFmpegError as error:
                    broken = error.strerror or str(error)
            if packet is None:
                if broken:  # the container cannot be read on; what the decoder still holds is good
                    yield from self.stream.codec_context.decode(None)
                return
            self._judge(packet, first_complaint(messages) or broken)
            yield from frames

    def _judge(self, packet: Any, complaint: str) -> None:
        """Note whether the picture of a packet is to be believed, by what was said while it was decoded."""
        if not packet.size:
            return
        if packet.is_corrupt and not complaint:
            complaint = "its packet is marked corrupt"
        pts = packet.pts
        leading = pts is not None and self.key_pts is not None and pts < self.key_pts and not packet.is_keyframe
        if packet.is_keyframe:
            # At the file's very start nothing is known against them: those that need an earlier group make complaints.
            self.leading_lost = "" if self.at_start else self.lost
            self.lost, self.key_pts = "", pts
            self.groups += 1
        self.at_start = False
        self.packets += 1
        if pts is not None and not packet.is_discard:
            self.fed[pts] = (self.groups, self.packets, leading)
        if complaint:  # a packet may have given no frame
            self.miscounted = self.miscounted or complaint
        if complaint and leading:
            self.leading_lost = self.leading_lost or complaint
        elif complaint and not packet.is_disposable:
            self.lost = self.lost or complaint
        doubt = complaint or (self.lost or self.leading_lost if leading else self.lost)
        if doubt and pts is not None:
            self.bad[pts] = doubt
