"""Annotations and videos into the store: `videos` by content, `samples` by source, rows left out with their reason."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline import sources
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.runner import Progress, run
from pipeline.schemas import SAMPLES, WAITING
from pipeline.sources import Draft, Rejected
from pipeline.spans import place
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location, Store, literal
from pipeline.videofolder import VideoFolder
from pipeline.videos import Found, Probe, identify, lengths, one_path_each
from pipeline.workers import Engine

SAMPLES_VERSION = 2


@dataclass
class IngestReport:
    """What became of a file's questions: rows = samples + rejected.

    `waiting` are samples whose videos are not here yet; `removed` are samples that this source had before.
    """

    source: str
    format: str
    split: str
    rows: int
    samples: int
    rejected: int
    repaired: int
    waiting: int
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

    def setup(self, place: Location, device: str) -> None:
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
    split: str | None = None,
    format: str = "auto",
    mapping: Mapping[str, str] | None = None,
    *,
    workers: int = 0,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring the samples of one source to what an annotation file says.

    A row whose video is not in the folder is rejected. Only when no folder is named and none of the videos of a public
    dataset lies beside its file, the annotations come in alone: their samples wait, each missing video stands in
    quarantine, and the same file with a folder of videos replaces them.

    Args:
        file: annotations in any layout of `sources`.
        videos_dir: where the videos lie; default: the file's folder.
        source_name: one file is one source; default: the name of its format and its own, e.g. nextgqa-val.
        split: of rows that name none; default: what the file's name tells, else the source's own.
        format: the name of a source, or auto.
        mapping: {our field: their column}, for generic files.

    Raises:
        UserError: the file is unusable, or not one of its rows can become a sample (then nothing is removed).
    """
    begun = time.monotonic()
    source, rows = sources.read(file, format, mapping)
    drafts = source.drafts(rows)
    stem = file.name.split(".")[0]
    name = source_name or _name(source.name, stem)
    usual = split or source.split(stem) or source.default_split
    folder = VideoFolder(Path(os.path.abspath(videos_dir or file.parent)), search=videos_dir is not None)
    with store.writing():
        found = identify((draft.video for draft in drafts if isinstance(draft, Draft)), folder, progress)
        alone = videos_dir is None and not source.paths_count and _none_is_here(found)
        if alone and not _has_videos(store, name):
            found = _awaited(found, folder)
        paths = one_path_each(store, found)
        before = store.count("videos")
        stage = Probe(name, paths)
        run(stage, store, workers=workers, engine=engine, progress=progress)
        facts = lengths(store, stage)
        items, repairs = _items(drafts, found, facts, name, usual, source.dataset(stem))
        samples = [item.payload for item in items if isinstance(item.payload, dict)]
        reasons = Counter(item.payload.reason for item in items if isinstance(item.payload, Rejected))
        if not samples:
            counted = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            raise UserError(str(file), f"none of its {len(rows)} rows can become a sample: {counted}", _advice(reasons))
        report = run(Samples(name, items), store, progress=progress, retry_quarantined=True)
        here = {row["video_id"] for row in samples if not row["video_id"].startswith(WAITING)}
        return IngestReport(
            source=name,
            format=source.name,
            split=", ".join(sorted({row["split"] for row in samples})),
            rows=len(rows),
            samples=len(samples),
            rejected=reasons.total(),
            repaired=sum(bool(kinds) for kinds in repairs),
            waiting=sum(row["video_id"].startswith(WAITING) for row in samples),
            added=report.done,
            already=len(samples) - report.done,
            removed=report.stale,
            videos=len(here),
            videos_added=store.count("videos") - before,
            seconds=time.monotonic() - begun,
            reasons=dict(reasons.most_common()),
            repairs=dict(Counter(kind for kinds in repairs for kind in kinds).most_common()),
            tasks=dict(Counter(row["task"] for row in samples).most_common()),
        )


def total_of(store: Store, reports: Sequence[IngestReport]) -> dict[str, Any]:
    """The counts of several sources together; a video that several ask about counts once."""
    parts = [report.as_dict() for report in reports]
    total: dict[str, Any] = {}
    for name, value in parts[0].items():
        if isinstance(value, dict):
            total[name] = dict(sum((Counter(part[name]) for part in parts), Counter[str]()).most_common())
        else:
            texts = list(dict.fromkeys(part[name] for part in parts)) if isinstance(value, str) else []
            total[name] = ", ".join(texts) if texts else sum(part[name] for part in parts)
    names = ", ".join(literal(report.source) for report in reports)
    used = set(store.table("samples", ["video_id"], f"source IN ({names})")["video_id"].to_pylist())
    total["videos"] = sum(not video.startswith(WAITING) for video in used)
    return total


def sample_id(source: str, row_id: str, video_id: str, question: str) -> str:
    """The stable name of a sample."""
    return fingerprint("sample", source, row_id, video_id, question)


def _name(format: str, stem: str) -> str:
    """What a source is called by default: half of all datasets have a file `val`, so the format comes first."""
    said = "".join(filter(str.isalnum, format))
    return stem if format == "generic" or said in "".join(filter(str.isalnum, stem.lower())) else f"{format}-{stem}"


def _none_is_here(found: Found) -> bool:
    return all(isinstance(place, Rejected) for place in found.values())


def _has_videos(store: Store, source: str) -> bool:
    """Whether samples of this source stand on videos: those are not given up because a folder was not named."""
    return store.count("samples", f"source = {literal(source)} AND video_id NOT LIKE '{WAITING}%'") > 0


def _awaited(found: Found, folder: VideoFolder) -> Found:
    """Videos that are not here yet, under a name for the time being."""
    return {
        name: (WAITING + fingerprint("waiting", name), str(folder.folder / name))
        if isinstance(place, Rejected) and place.reason == "missing file"
        else place
        for name, place in found.items()
    }


def _items(
    drafts: Sequence[Draft | Rejected],
    found: Found,
    facts: Mapping[str, float | Rejected],
    source: str,
    split: str,
    dataset: str | None,
) -> tuple[list[Item], list[tuple[str, ...]]]:
    """One item a row, and what was repaired in each row that became a sample."""
    items: list[Item] = []
    repairs: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for number, draft in enumerate(drafts):
        try:
            row, repaired = _row(draft, found, facts, source, split, dataset)
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
    found: Found,
    facts: Mapping[str, float | Rejected],
    source: str,
    split: str,
    dataset: str | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    if isinstance(draft, Rejected):
        raise draft
    video = found[draft.video]
    if isinstance(video, Rejected):
        raise video
    duration = None if video[0].startswith(WAITING) else facts[video[0]]
    if isinstance(duration, Rejected):
        raise duration
    placed = place(draft, duration)
    row = {
        "sample_id": sample_id(source, draft.row_id, video[0], draft.question),
        "source": source,
        "dataset": dataset or draft.dataset,
        "split": draft.split or split,
        "video_id": video[0],
        "task": draft.task,
        "question": draft.question,
        "options": list(draft.options),
        "answer": draft.answer,
        "spans": [list(span) for span in placed.spans],
        "clip": list(placed.clip or ()),
        "origin": draft.origin,
    }
    return row, (*draft.repairs, *placed.repairs)


def _advice(reasons: Counter[str]) -> str:
    if reasons.most_common(1)[0][0] in ("missing file", "path leaves the videos folder"):
        return "name the folder of the videos with --videos"
    return "check --format and --map"
