"""What stands in a store: rows, fingerprints, what is stale, what failed and why, and how much room it takes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.framereader import FrameReader
from pipeline.optimize import worth
from pipeline.schemas import TABLES, WAITING
from pipeline.store import Store

_INGEST = "ingest "  # the stage of a source's rows is called so, and after the source


def status(store: Store) -> dict[str, Any]:
    """A store at a glance.

    Returns:
        {"store", "tables": {name: {"rows", "items", "fingerprints", "stale", "bytes"}}, "curated": {name: {"rows",
        "tags", "stale", "bytes"}}, "rejected": {source: {reason: count}} (rows of annotations), "waiting": {source:
        samples whose videos are not here}, "quarantine": {stage: {reason: count}}, "notes": {stage: {what: count}}
        (items whose rows are kept, but not whole), "optimize": {table: why `strive-data optimize` pays}, "bytes"}. A
        row is stale when what it was made from is gone or has changed; running its stage again replaces it.
    """
    checks: dict[str, Callable[[Store], int]] = {
        "samples": _stale_samples,
        "frames": _stale_frames,
        "frame_embeddings": _stale_embeddings,
        "frame_scores": _stale_scores,
        "variants": _stale_variants,
        "rollouts": _stale_rollouts,
    }
    tables: dict[str, dict[str, Any]] = {}
    for name in TABLES:
        if name == "quarantine":
            continue
        done = store.done(name)
        tables[name] = {
            "rows": store.count(name),
            "items": len({key for key, _ in done}),
            "fingerprints": len({fingerprint for _, fingerprint in done}),
            "stale": checks[name](store) if name in checks and done else 0,
            "bytes": store.bytes(name),
        }
    left_out = _quarantine(store, kept=False)
    rejected = {stage: reasons for stage, reasons in left_out.items() if stage.startswith(_INGEST)}
    return {
        "store": str(store.location),
        "tables": tables,
        "curated": {name: _curated(store, name) for name in store.curated_names()},
        "questions": _questions(store),
        "rejected": {stage.removeprefix(_INGEST): reasons for stage, reasons in rejected.items()},
        "waiting": _waiting(store),
        "quarantine": left_out,
        "notes": _quarantine(store, kept=True),
        "optimize": worth(store),
        "bytes": store.total_bytes(),
    }


def _quarantine(store: Store, kept: bool) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    table = store.table("quarantine", ["stage", "reason"], "kept" if kept else "NOT kept")
    for row in table.group_by(["stage", "reason"]).aggregate([([], "count_all")]).to_pylist():
        counts.setdefault(row["stage"], {})[row["reason"]] = row["count_all"]
    return {
        stage: dict(sorted(reasons.items(), key=lambda r: (-r[1], r[0]))) for stage, reasons in sorted(counts.items())
    }


def _curated(store: Store, name: str) -> dict[str, Any]:
    rows = store.curated(name).select(["video_id", "frames_fingerprint"]).to_pylist()
    reader = FrameReader(store)
    fresh = sum(r["video_id"] in reader and reader.fingerprint(r["video_id"]) == r["frames_fingerprint"] for r in rows)
    return {
        "rows": len(rows),
        "tags": store.curated_tags(name),
        "stale": len(rows) - fresh,
        "bytes": store.curated_bytes(name),
    }


def _questions(store: Store) -> dict[str, int]:
    rows = store.table("frame_scores", ["windows", "cut_tokens"])
    windows, cut = (rows[column].to_numpy() for column in ("windows", "cut_tokens"))
    return {"scored": len(windows), "split": int((windows > 1).sum()), "cut_tokens": int(cut.sum())}


def _waiting(store: Store) -> dict[str, int]:
    rows = store.table("samples", ["source"], f"video_id LIKE '{WAITING}%'")
    return dict(sorted(Counter(rows["source"].to_pylist()).items()))


def _stale_samples(store: Store) -> int:
    return _unknown(store, "samples", "video_id", "videos") - sum(_waiting(store).values())


def _stale_frames(store: Store) -> int:
    return _unknown(store, "frames", "video_id", "videos")


def _stale_embeddings(store: Store) -> int:
    return _unknown(store, "frame_embeddings", "video_id", "frames")


def _stale_rollouts(store: Store) -> int:
    """Of unknown samples or of views that are no longer built."""
    views = set(_pairs(store, "variants", "sample_id", "variant"))
    return sum(pair not in views for pair in _pairs(store, "rollouts", "sample_id", "variant"))


def _stale_scores(store: Store) -> int:
    """Of unknown samples, or not one score a cached frame."""
    video = dict(_pairs(store, "samples", "sample_id", "video_id"))
    reader = FrameReader(store)
    stale = 0
    for row in store.table("frame_scores", ["sample_id", "scores"]).to_pylist():
        cached = video.get(row["sample_id"])
        stale += cached is None or cached not in reader or reader.count(cached) != len(row["scores"])
    return stale


def _stale_variants(store: Store) -> int:
    """Of unknown samples, or with other times than the cached frames at their indices have."""
    known = set(store.table("samples", ["sample_id"])["sample_id"].to_pylist())
    reader = FrameReader(store)
    stale = 0
    for row in store.table("variants", ["sample_id", "video_id", "indices", "times"]).to_pylist():
        stale += row["sample_id"] not in known or not _shows(reader, row["video_id"], row["indices"], row["times"])
    return stale


def _shows(reader: FrameReader, video_id: str, indices: list[int], times: list[float]) -> bool:
    if video_id not in reader or reader.count(video_id) <= max(indices, default=-1):
        return False
    return bool(np.array_equal(reader.times(video_id)[indices], np.asarray(times)))


def _unknown(store: Store, name: str, column: str, parent: str) -> int:
    """Rows of a table whose video is in no row of another one."""
    known = set(store.table(parent, [column])[column].to_pylist())
    return sum(value not in known for value in store.table(name, [column])[column].to_pylist())


def _pairs(store: Store, name: str, first: str, second: str) -> list[tuple[Any, Any]]:
    table = store.table(name, [first, second])
    return list(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))
