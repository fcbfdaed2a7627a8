"""What becomes of each clip of a folder: backend, frames, true duration, verdict. A crash or a hang costs one clip."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import av
import av.error
import numpy as np
import pyarrow as pa

from pipeline.decode import DecodeError, Scan, decode_frames, scan_packets, target_size, upright_size
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location
from pipeline.workers import execute

NOT_CLIPS = (".csv", ".json", ".md", ".txt")
SHORT_SIDE = 128
STRIDES = (1, 7)  # --check reads all frames, and every 7th, for which the decoder has to jump
FAR = 8.0  # mean difference of 8-bit levels that no two decoders of one frame show
NEARER = 0.5  # a neighbour that is nearer by so much is the frame that was given


@dataclass
class ReadClips:
    """Decode every frame of each clip; one row a clip. check: compare each with a sequential decode by PyAV."""

    check: bool
    deadline_s: float | None = 300.0

    name: ClassVar[str] = "clips-table"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[str] = ""
    scope: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 1

    def plan(self, store: Any) -> list[Item]:
        """Nothing: the clips are named on the command line."""
        return []

    def setup(self, place: Location, device: str) -> None:
        """Nothing to load."""

    def process(self, items: Sequence[Item]) -> Outcome:
        """Read the clips; those that cannot be read are failures."""
        outcome = Outcome(None)
        for item in items:
            try:
                outcome.rows = pa.Table.from_pylist([read_clip(Path(item.payload), self.check)])
            except DecodeError as error:
                outcome.failures.append(Failure(item.key, item.fingerprint, error.reason, str(error)))
        return outcome


def read_clip(path: Path, check: bool) -> dict[str, Any]:
    """The row of one clip.

    Raises:
        DecodeError: it cannot be read.
    """
    start = time.perf_counter()
    scan = scan_packets(path)
    size = target_size(*upright_size(scan), SHORT_SIDE)
    backends, decoded = [], 0
    for part in decode_frames(path, scan, np.arange(len(scan.times)), size):
        backends.append(part.backend)
        decoded += len(part.frames)
    seconds = time.perf_counter() - start
    lost = f"{len(scan.times) - decoded} frames do not decode" if decoded < len(scan.times) else ""
    remarks = "; ".join(filter(None, (lost, *scan.doubts, *scan.notes)))
    return {
        "backend": "+".join(dict.fromkeys(backends)),
        "decoded": decoded,
        "announced": scan.announced,
        "duration_s": round(scan.duration_s, 3),
        "verdict": ("damaged: " if lost or scan.damage else "ok: ") + remarks if remarks else "ok",
        "seconds": round(seconds, 2),
        "wrong": wrong_frames(path, scan, size) if check else None,
    }


def wrong_frames(path: Path, scan: Scan, size: tuple[int, int]) -> int:
    """Frames that are not those that a player shows at their times, over all STRIDES."""
    truth = sequential(path, scan, size)
    wrong = 0
    for stride in STRIDES:
        for part in decode_frames(path, scan, np.arange(0, len(scan.times), stride), size):
            for index, frame in zip(part.indices.tolist(), part.frames, strict=True):
                near = {
                    i: float(np.abs(truth[i].astype(np.int16) - frame).mean())
                    for i in range(index - 8, index + 9)
                    if i in truth
                }
                own = near.get(index, np.inf)
                wrong += bool(own > FAR or own > min(near.values(), default=0.0) + NEARER)
    return wrong


def sequential(path: Path, scan: Scan, size: tuple[int, int]) -> dict[int, np.ndarray[Any, Any]]:
    """uint8 [H, W, 3] by presentation index: all pictures that come out of a plain decode from start to end."""
    places = {pts: index for index, pts in enumerate(scan.pts.tolist())}
    stored = size if scan.rotation % 180 == 0 else size[::-1]
    found: dict[int, np.ndarray[Any, Any]] = {}
    with av.open(f"file:{path}") as container:
        stream: Any = container.streams[scan.stream]
        count = 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # this is about which frame is which; what is damaged, decode_frames says
                continue
            for frame in frames:
                index = count if scan.counted else places.get(frame.pts)
                count += 1
                if index is not None:
                    pixels = frame.reformat(*stored, format="rgb24", interpolation="BILINEAR").to_ndarray()
                    found[index] = np.rot90(pixels, scan.rotation // 90)
    return found


def table(folder: Path, check: bool, workers: int, deadline_s: float) -> list[dict[str, Any]]:
    """One row a clip, by name."""
    clips = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix not in NOT_CLIPS)
    batches = [[Item((clip.name,), "", str(clip))] for clip in clips]
    rows: dict[str, dict[str, Any]] = {}
    for (item,), outcome in execute(ReadClips(check, deadline_s), Location(""), batches, workers, "cpu"):
        name = item.key[0]
        if outcome.rows is not None:
            rows[name] = {"clip": name, **outcome.rows.to_pylist()[0]}
        for failure in outcome.failures:
            blank = dict.fromkeys(("backend", "decoded", "announced", "duration_s", "seconds", "wrong"))
            rows[name] = {"clip": name, **blank, "verdict": f"quarantined: {failure.reason}"}
    return [rows[clip.name] for clip in clips]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips_table", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="its files are the clips")
    parser.add_argument("--check", action="store_true", help="compare every frame with a sequential decode by PyAV")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--deadline", type=float, default=300.0, help="seconds that one clip may take (default: 300)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is not a folder: name one that holds clips")
    rows = table(arguments.folder, arguments.check, arguments.workers, arguments.deadline)
    print("| clip | backend | frames | duration s | verdict | seconds |" + (" wrong |" if arguments.check else ""))
    print("|---|---|---|---|---|---|" + ("---|" if arguments.check else ""))
    for row in rows:
        frames = "" if row["decoded"] is None else f"{row['decoded']} / {row['announced']}"
        cells = [row["clip"], row["backend"], frames, row["duration_s"], row["verdict"], row["seconds"]]
        cells += [row["wrong"]] if arguments.check else []
        print("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    if arguments.json:
        quarantined = sum(row["decoded"] is None for row in rows)
        wrong = sum(row["wrong"] or 0 for row in rows) if arguments.check else None
        print(json.dumps({"clips": len(rows), "quarantined": quarantined, "wrong_frames": wrong, "rows": rows}))


if __name__ == "__main__":
    main()
