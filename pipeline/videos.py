"""The videos of a source: found in a folder, named by their content, looked into once. Fills `videos`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.decode import DecodeError, content_id, probe
from pipeline.fingerprint import fingerprint
from pipeline.runner import Progress
from pipeline.schemas import VIDEOS
from pipeline.sources import Rejected
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location, Store, literal
from pipeline.videofolder import VideoFolder

PROBE_VERSION = 1

Found = dict[str, tuple[str, str] | Rejected]
"""{video as the rows name it: (video_id, full path) or why not}."""


@dataclass
class Probe:
    """Look into the video files of a source. `paths`: {video_id: where it lies}. Other videos keep their rows."""

    source: str
    paths: dict[str, str]

    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[str] = "videos"
    scope: ClassVar[str | None] = None
    batch_size: ClassVar[int] = 8
    deadline_s: ClassVar[float | None] = 120.0

    @property
    def name(self) -> str:
        return f"probe {self.source}"

    def plan(self, store: Store) -> list[Item]:
        rows = store.table("videos", ["video_id", "path"]).to_pylist()
        paths = {row["video_id"]: row["path"] for row in rows} | self.paths
        return [Item((v,), fingerprint("probe", PROBE_VERSION, v, path), path) for v, path in sorted(paths.items())]

    def setup(self, place: Location, device: str) -> None:
        """Nothing to load."""

    def process(self, items: Sequence[Item]) -> Outcome:
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        for item in items:
            row = {"video_id": item.key[0], "path": item.payload, "fingerprint": item.fingerprint}
            try:
                rows.append(row | asdict(probe(Path(item.payload))))
            except DecodeError as error:
                failures.append(Failure(item.key, item.fingerprint, error.reason, str(error)))
        return Outcome(pa.Table.from_pylist(rows, schema=VIDEOS) if rows else None, failures)


def identify(names: Iterable[str], folder: VideoFolder, progress: Progress | None = None) -> Found:
    """Find the videos that rows name, and read as much of each as its identity takes."""
    wanted = sorted(set(names))
    found: Found = {}
    if progress:
        progress.start("reading videos", len(wanted))
    for name in wanted:
        try:
            path = folder.find(name)
            found[name] = (content_id(path), str(path))
        except DecodeError as error:
            found[name] = Rejected(error.reason, str(error))
        except Rejected as rejection:
            found[name] = rejection
        if progress:
            progress.advance(1)
    if progress:
        progress.stop()
    return found


def one_path_each(store: Store, found: Found) -> dict[str, str]:
    """{video_id: path}. A file with several names keeps the one that the store knows, while that still holds it."""
    candidates: dict[str, list[str]] = defaultdict(list)
    for pair in found.values():
        if not isinstance(pair, Rejected):
            candidates[pair[0]].append(pair[1])
    known = dict(zip(*(store.table("videos", ["video_id", "path"])[c].to_pylist() for c in range(2)), strict=True))
    return {
        video: known[video] if video in known and _still_holds(known[video], video, paths) else min(paths)
        for video, paths in candidates.items()
    }


def _still_holds(path: str, video_id: str, just_read: Sequence[str]) -> bool:
    if path in just_read:
        return True
    try:
        return content_id(Path(path)) == video_id
    except DecodeError:
        return False


def lengths(store: Store, stage: Probe) -> dict[str, float | Rejected]:
    """{video_id: duration in seconds, or why it cannot be used}."""
    table = store.table("videos", ["video_id", "duration_s"])
    facts: dict[str, float | Rejected] = dict(
        zip(table["video_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True)
    )
    for row in store.table("quarantine", filter=f"stage = {literal(stage.name)}").to_pylist():
        facts[row["key"]] = Rejected(row["reason"], row["message"])
    return facts
