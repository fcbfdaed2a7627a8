"""300 damaged copies of a clip: each ends as true frames or as a reason, never as a crash, a hang or a wrong frame."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pyarrow as pa
import pytest

from pipeline.decode import DecodeError, decode_frames, scan_packets
from pipeline.stage import Failure, Item, Outcome
from pipeline.workers import execute
from tests.clips import encode, picture, remux

FRAMES, SIZE, FPS = 40, (64, 64), 10
EACH = 50  # copies of a kind of damage and a container
SAME = 6.0  # mean difference of 8-bit levels up to which a frame shows a picture; two pictures differ by 8 and more


def pictures() -> list[np.ndarray]:
    """uint8 [64, 64, 3] each: its number, and a grey of its own."""
    return [picture(i, *SIZE, tint=i * 37) for i in range(FRAMES)]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """1 to 20 bits turned over."""
    values = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(0, len(values), rng.integers(1, 21)):
        values[place] ^= 1 << rng.integers(8)
    return values.tobytes()


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The end is gone, or a piece from the middle."""
    first, last = np.sort(rng.integers(0, len(data), 2))
    return data[:last] if rng.random() < 0.5 else data[:first] + data[min(last, first + len(data) // 10) :]


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros, of noise, or from elsewhere in the file; over what was there, or between it."""
    length = int(rng.integers(1, len(data) // 8))
    source, target = rng.integers(0, len(data) - length, 2)
    block = [bytes(length), rng.bytes(length), data[source : source + length]][rng.integers(3)]
    return data[:target] + block + data[target + (length if rng.random() < 0.7 else 0) :]


DAMAGE = {"flipped": flipped, "cut": cut, "spliced": spliced}


def payloads(path: Path) -> Iterator[tuple[int, str]]:
    """(timestamp, hash of its bytes) of the packets of a file's video, as far as it can be read."""
    with suppress(av.error.FFmpegError), av.open(f"file:{path}") as container:
        for packet in container.demux(container.streams.best("video")):
            if packet.size and packet.pts is not None:
                yield packet.pts, hashlib.sha256(bytes(packet)).hexdigest()


@dataclass
class Judge:
    """Decode each damaged copy, and judge every frame that comes back against the pictures of the sound clip.

    Times are the container's, which may be damaged too: a frame must show the picture of the packet at its time. That
    packet is known by its bytes, or, where these are harmed, by its place among all packets, or else by its time. A
    frame that shows another one of the clip's pictures is wrong; one that shows none of them is visibly damaged: nobody
    who sees it takes it for something else.
    """

    sound: Path
    deadline_s: float | None = 20.0
    clean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numbers: dict[str, int] = field(default_factory=dict)  # by the hash of its packet, in decoding order

    name: ClassVar[str] = "judge"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[str] = ""
    scope: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 1

    def plan(self, store: Any) -> list[Item]:
        return []

    def setup(self, store_path: str, device: str) -> None:
        self.clean = np.stack(pictures()).astype(np.int16)
        packets = list(payloads(self.sound))
        shown = sorted(pts for pts, _ in packets)
        self.numbers = {digest: shown.index(pts) for pts, digest in packets}
        assert len(self.numbers) == FRAMES

    def process(self, items: Sequence[Item]) -> Outcome:
        (item,) = items
        try:
            verdicts = Counter(self.verdicts(Path(item.payload)))
        except DecodeError as error:
            return Outcome(None, [Failure(item.key, "", error.reason, str(error))])
        return Outcome(pa.table({"verdict": list(verdicts), "count": list(verdicts.values())}))

    def verdicts(self, path: Path) -> list[str]:
        scan = scan_packets(path)
        packets = list(payloads(path))
        belongs: dict[int, list[int]] = {}  # damaged tables give several packets one timestamp
        places = dict(enumerate(self.numbers.values())) if len(packets) == FRAMES else {}
        for place, (pts, digest) in enumerate(packets):
            number = self.numbers.get(digest, places.get(place))
            if number is not None:
                belongs.setdefault(pts, []).append(number)
        found = []
        for part in decode_frames(path, scan, np.arange(len(scan.times)), SIZE):
            for index, time, frame in zip(part.indices.tolist(), part.times.tolist(), part.frames, strict=True):
                far = np.abs(self.clean - frame).mean((1, 2, 3))
                own = belongs.get(int(scan.pts[index]), [round(time * FPS)])
                if any(far[number] <= SAME for number in own if 0 <= number < FRAMES):
                    found.append("true")
                else:
                    found.append("wrong" if far.min() <= SAME else "visibly damaged")
        return found


@pytest.mark.timeout(240)
def test_no_damage_gives_a_crash_a_hang_or_a_wrong_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"preset": "veryfast", "crf": "12", "g": "12", "bf": "2", "sc_threshold": "0", "threads": "1"}
    sound = encode(tmp_path / "sound.mp4", "libx264", pictures(), FPS, options, container={"movflags": "faststart"})
    originals = {"mp4": sound.read_bytes(), "mkv": remux(sound, tmp_path / "sound.mkv").read_bytes()}
    rng = np.random.default_rng(20)
    batches = []
    for container, data in originals.items():
        for kind, hurt in DAMAGE.items():
            for number in range(EACH):
                path = tmp_path / f"{kind}-{number}.{container}"
                path.write_bytes(hurt(data, rng))
                batches.append([Item((container, kind, number), "", str(path))])
    ends: Counter[str] = Counter()
    frames: Counter[str] = Counter()
    wrong = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for (item,), outcome in execute(Judge(sound), "", batches, 1, "cpu"):
        ends.update(failure.reason for failure in outcome.failures)
        if outcome.rows is not None:
            ends["frames"] += 1
            found = dict(zip(*outcome.rows.to_pydict().values(), strict=True))
            frames.update(found)
            if "wrong" in found:
                wrong.append((item.key, found))
    with capsys.disabled():
        print(f"\n300 damaged clips: {dict(ends.most_common())}; frames: {dict(frames.most_common())}")
    assert sum(ends.values()) == 2 * len(DAMAGE) * EACH == 300
    assert not wrong, wrong
    assert not ends["deadline"]
    assert ends["worker died"] <= 3  # a decoder library may crash: it costs that clip, and is counted
    assert ends["frames"] > 150
    assert frames["true"] > 20 * frames["visibly damaged"]
