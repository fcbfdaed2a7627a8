"""Annotations and videos into the store: `videos` by content, `samples` by source, rows left out with their reason."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.decode import DecodeError, content_id, probe
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.runner import Progress, run
from pipeline.schemas import SAMPLES, VIDEOS
from pipeline.sources import (
    FORMATS,
    Draft,
    Rejected,
    check_mapping,
    draft_generic,
    draft_video_r1,
    guess_format,
    read_rows,
)
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Store, literal

PROBE_VERSION = 1
SAMPLES_VERSION = 1


@dataclass
class IngestReport:
    """What became of a file's rows: rows = samples + rejected. `removed` are samples that this source had before."""

    source: str
    rows: int
    samples: int
    rejected: int
    repaired: int
    added: int
    already: int
    removed: int
    videos: int
    videos_added: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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

    def setup(self, store_path: str, device: str) -> None:
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


@dataclass
class Samples:
    """The samples of one source, and the rows that could not become any."""

    source: str
    items: list[Item]  # payload: the row of `samples`, or a Rejected

    reads: ClassVar[tuple[str, ...]] = ("videos",)
    writes: ClassVar[str] = "samples"
    batch_size: ClassVar[int] = 4096
    deadline_s: ClassVar[float | None] = None

    @property
    def name(self) -> str:
        return f"ingest {self.source}"

    @property
    def scope(self) -> str | None:
        return f"source = {literal(self.source)}"

    def plan(self, store: Store) -> list[Item]:
        return self.items

    def setup(self, store_path: str, device: str) -> None:
        """Nothing to load."""

    def process(self, items: Sequence[Item]) -> Outcome:
        rows = [item.payload | {"fingerprint": item.fingerprint} for item in items if isinstance(item.payload, dict)]
        failures = [
            Failure(item.key, item.fingerprint, item.payload.reason, str(item.payload))
            for item in items
            if isinstance(item.payload, Rejected)
        ]
        return Outcome(pa.Table.from_pylist(rows, schema=SAMPLES) if rows else None, failures)


def ingest(
    store: Store,
    file: Path,
    videos_dir: Path | None = None,
    source_name: str | None = None,
    split: str = "train",
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring the samples of one source to what an annotation file says.

    Args:
        file: json, jsonl, csv or parquet.
        videos_dir: where the paths in the file start; default: the file's folder.
        source_name: one file is one source; default: the file's name without its ending.
        split: of rows that name none.
        format: video-r1, generic, or auto.
        mapping: {our field: their column}, for generic files.

    Raises:
        UserError: the file is unusable, or not one of its rows can become a sample (then nothing is removed).
    """
    begun = time.monotonic()
    rows = read_rows(file)
    drafts = _drafts(rows, file, format, mapping)
    source = source_name or file.stem
    folder = Path(os.path.abspath(videos_dir or file.parent))
    with store.writing():
        found = _identify(drafts, folder, progress)
        paths = _one_path_each(store, found)
        before = store.count("videos")
        stage = Probe(source, paths)
        run(stage, store, workers=workers, progress=progress)
        facts = _facts(store, stage)
        items, repairs = _items(drafts, found, facts, source, split)
        tasks = Counter(item.payload["task"] for item in items if isinstance(item.payload, dict))
        reasons = Counter(item.payload.reason for item in items if isinstance(item.payload, Rejected))
        if not tasks:
            counted = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            raise UserError(str(file), f"none of its {len(rows)} rows can become a sample: {counted}", _advice(reasons))
        report = run(Samples(source, items), store, progress=progress, retry_quarantined=True)
        used = {item.payload["video_id"] for item in items if isinstance(item.payload, dict)}
        samples = tasks.total()
        added = report.done
        return IngestReport(
            source=source,
            rows=len(rows),
            samples=samples,
            rejected=reasons.total(),
            repaired=sum(bool(kinds) for kinds in repairs),
            added=added,
            already=samples - added,
            removed=report.stale,
            videos=len(used),
            videos_added=store.count("videos") - before,
            seconds=time.monotonic() - begun,
            reasons=dict(reasons.most_common()),
            repairs=dict(Counter(kind for kinds in repairs for kind in kinds).most_common()),
            tasks=dict(tasks.most_common()),
        )


def total_of(store: Store, reports: Sequence[IngestReport]) -> dict[str, Any]:
    """The counts of several sources together; a video that several ask about counts once."""
    parts = [report.as_dict() for report in reports]
    total: dict[str, Any] = {}
    for name, value in parts[0].items():
        if isinstance(value, dict):
            total[name] = dict(sum((Counter(part[name]) for part in parts), Counter[str]()).most_common())
        else:
            total[name] = sum(part[name] for part in parts) if name != "source" else ", ".join(p[name] for p in parts)
    sources = ", ".join(literal(report.source) for report in reports)
    total["videos"] = len(store.table("samples", ["video_id"], f"source IN ({sources})")["video_id"].unique())
    return total


def resolve_path(folder: Path, name: str) -> Path:
    """Where a row's video lies. `name` may be absolute, but may not lead out of the folder.

    Raises:
        Rejected: it leads out.
    """
    path = Path(os.path.normpath(folder / name))  # by its text only: a link that the user put there is the user's will
    if folder not in path.parents:
        raise Rejected("path leaves the videos folder", f"{name} is not below {folder}")
    return path


def sample_id(source: str, row_id: str, video_id: str, question: str) -> str:
    """The stable name of a sample."""
    return fingerprint("sample", source, row_id, video_id, question)


def clip_spans(
    spans: Iterable[tuple[float, float]], duration_s: float
) -> tuple[list[tuple[float, float]], tuple[str, ...]]:
    """Spans cut to a video's length in seconds, and what was repaired.

    Raises:
        Rejected: a span begins at or after the end.
    """
    clipped: list[tuple[float, float]] = []
    repaired = False
    for start, end in spans:
        if start >= duration_s:
            raise Rejected("span past the video's end", f"[{start}, {end}] in a video of {duration_s:.3f} s")
        repaired |= end > duration_s
        clipped.append((start, min(end, duration_s)))
    return clipped, ("span cut to the video's end",) if repaired else ()


def _drafts(
    rows: list[Any], file: Path, format: str, mapping: Mapping[str, str] | None
) -> list[tuple[int, Draft | Rejected]]:
    if format not in ("auto", *FORMATS):
        raise UserError(f"--format {format}", f"one of auto, {', '.join(FORMATS)}", "leave it out")
    chosen = guess_format(rows) if format == "auto" and not mapping else "generic" if format == "auto" else format
    if mapping and chosen != "generic":
        raise UserError(f"--format {chosen}", "a column mapping is for generic files", "leave out --map")
    check_mapping(mapping or {}, rows)
    read = draft_video_r1 if chosen == "video-r1" else partial(draft_generic, mapping=mapping)
    drafts: list[tuple[int, Draft | Rejected]] = []
    for number, row in enumerate(rows):
        try:
            drafts.append((number, read(row, number)))
        except Rejected as rejection:
            drafts.append((number, rejection))
    return drafts


def _identify(
    drafts: Sequence[tuple[int, Draft | Rejected]], folder: Path, progress: Progress | None
) -> dict[str, tuple[str, str] | Rejected]:
    """{path as the rows name it: (video_id, full path) or why not}."""
    names = sorted({draft.video for _, draft in drafts if isinstance(draft, Draft)})
    found: dict[str, tuple[str, str] | Rejected] = {}
    if progress:
        progress.start("reading videos", len(names))
    for name in names:
        try:
            path = resolve_path(folder, name)
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


def _one_path_each(store: Store, found: Mapping[str, tuple[str, str] | Rejected]) -> dict[str, str]:
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


def _facts(store: Store, stage: Probe) -> dict[str, float | Rejected]:
    """{video_id: duration in seconds, or why it cannot be used}."""
    table = store.table("videos", ["video_id", "duration_s"])
    facts: dict[str, float | Rejected] = dict(
        zip(table["video_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True)
    )
    for row in store.table("quarantine", filter=f"stage = {literal(stage.name)}").to_pylist():
        facts[row["key"]] = Rejected(row["reason"], row["message"])
    return facts


def _items(
    drafts: Sequence[tuple[int, Draft | Rejected]],
    found: Mapping[str, tuple[str, str] | Rejected],
    facts: Mapping[str, float | Rejected],
    source: str,
    split: str,
) -> tuple[list[Item], list[tuple[str, ...]]]:
    """One item a row, and what was repaired in each row that became a sample."""
    items: list[Item] = []
    repairs: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for number, draft in drafts:
        try:
            row, repaired = _row(draft, found, facts, source, split)
            if row["sample_id"] in seen:
                raise Rejected("repeated row", f"the same id, video and question stand in an earlier row: {row}")
        except Rejected as rejection:
            message = f"row {number}: {rejection}"
            key = (f"row {number}",)
            cause = Rejected(rejection.reason, message)
            items.append(Item(key, fingerprint("rejected", rejection.reason, message), cause))
            continue
        seen.add(row["sample_id"])
        items.append(Item((row["sample_id"],), fingerprint("sample", SAMPLES_VERSION, row), row))
        repairs.append(repaired)
    return items, repairs


def _row(
    draft: Draft | Rejected,
    found: Mapping[str, tuple[str, str] | Rejected],
    facts: Mapping[str, float | Rejected],
    source: str,
    split: str,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    if isinstance(draft, Rejected):
        raise draft
    place = found[draft.video]
    if isinstance(place, Rejected):
        raise place
    duration = facts[place[0]]
    if isinstance(duration, Rejected):
        raise duration
    spans, clipped = clip_spans(draft.spans, duration)
    row = {
        "sample_id": sample_id(source, draft.row_id, place[0], draft.question),
        "source": source,
        "split": draft.split or split,
        "video_id": place[0],
        "task": draft.task,
        "question": draft.question,
        "options": list(draft.options),
        "answer": draft.answer,
        "spans": [list(span) for span in spans],
        "origin": draft.origin,
    }
    return row, (*draft.repairs, *clipped)


def _advice(reasons: Counter[str]) -> str:
    if reasons.most_common(1)[0][0] in ("missing file", "path leaves the videos folder"):
        return "name the folder of the videos with --videos"
    return "check --format and --map"
