"""Duplicates and leaks as rows: what stands twice in a store, and whether what was found still holds."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.store import Store, literal

VERSION = 1
KINDS = ("duplicates", "leaks")
VIDEO, QUESTION = "duplicate video", "duplicate question"
LEAKED_VIDEO, LEAKED_QUESTION = "leaked video", "leaked question"
REASONS = (LEAKED_VIDEO, LEAKED_QUESTION, VIDEO, QUESTION)
"""Why `select` leaves a sample out, by what was found."""


@dataclass(frozen=True)
class Recipe:
    """How was looked: the kind, the scorer's label ("" for none), the thresholds, and for leaks against what."""

    kind: str
    scorer: str
    video_threshold: float
    question_threshold: float
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overlap:
    """Two videos or two samples that are alike. Of duplicates `a` is to be kept; of leaks `a` is the training one."""

    of: str
    a: str
    b: str
    by: str
    similarity: float
    shift_s: float = 0.0


@dataclass
class Found:
    """What a search for duplicates or leaks came to. left_out: videos that could not be compared, by reason."""

    recipe: Recipe
    overlaps: list[Overlap]
    videos: int
    samples: int
    left_out: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many of each, as "video by embedding"."""
        keys = [f"{o.of} by {o.by}" for o in self.overlaps]
        return {key: keys.count(key) for key in sorted(set(keys))}


def state(store: Store, recipe: Recipe) -> str:
    """Fingerprint of everything that determines what is found: the recipe, all samples, the scorer's embeddings."""
    samples = store.table("samples", ["sample_id", "fingerprint"])
    only = f"scorer = {literal(recipe.scorer)}"
    vectors = store.table("frame_embeddings", ["video_id", "fingerprint"], only)
    rows = [sorted(zip(*(t[c].to_pylist() for c in t.column_names), strict=True)) for t in (samples, vectors)]
    return fingerprint("overlaps", VERSION, asdict(recipe), rows)


def write(store: Store, found: Found) -> None:
    """Replace what is stored of this kind. The check's own row comes last, so that it never vouches for half."""
    kind, print_ = found.recipe.kind, state(store, found.recipe)
    rows = [{"kind": kind, **asdict(overlap), "fingerprint": print_} for overlap in found.overlaps]
    check = {"kind": kind, "recipe": json.dumps(asdict(found.recipe)), "fingerprint": print_}
    with store.writing():
        for table in ("overlap_checks", "overlaps"):
            store.delete(table, f"kind = {literal(kind)}")
        if rows:
            store.append("overlaps", pa.Table.from_pylist(rows, schema=schemas.OVERLAPS))
        store.append("overlap_checks", pa.Table.from_pylist([check], schema=schemas.OVERLAP_CHECKS))


def read(store: Store, kind: str) -> tuple[Recipe, list[Overlap]]:
    """What was found of a kind.

    Raises:
        UserError: nobody looked for it, or samples or embeddings have changed since.
    """
    again = f"strive-data {kind}" + (" --against val,test" if kind == "leaks" else "")
    checks = store.table("overlap_checks", filter=f"kind = {literal(kind)}").to_pylist()
    if not checks:
        raise UserError(f"--exclude {kind}", "nobody looked for them in this store", again)
    said = json.loads(checks[0]["recipe"])
    recipe = Recipe(**said | {"against": tuple(said["against"])})
    if recipe.against:
        again = f"strive-data {kind} --against {','.join(recipe.against)}"
    if state(store, recipe) != checks[0]["fingerprint"]:
        raise UserError(f"--exclude {kind}", "samples or embeddings have changed since they were looked for", again)
    columns = ["of", "a", "b", "by", "similarity", "shift_s"]
    rows = store.table("overlaps", columns, f"kind = {literal(kind)}").to_pylist()
    return recipe, [Overlap(**row) for row in rows]


def excluded(store: Store, kinds: Sequence[str], pool: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Which samples of a pool are left out, and why.

    Leaks: every sample on a leaked video and every leaked question, unless it belongs to what was looked against.
    Duplicates: of near-duplicate videos in the pool the preferred one keeps its samples; then of near-duplicate
    questions the preferred one stays.

    Args:
        kinds: of KINDS.
        pool: rows with sample_id, video_id, dataset and split.

    Returns:
        {sample_id: one of REASONS}.

    Raises:
        UserError: an unknown kind, or see `read`.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UserError(
            f"--exclude {unknown[0]!r}", f"one or more of {', '.join(KINDS)}", "strive-data select --exclude leaks"
        )
    left = list(pool)
    out: dict[str, str] = {}
    if "leaks" in kinds:
        recipe, found = read(store, "leaks")
        leaked = {of: {overlap.a for overlap in found if overlap.of == of} for of in ("video", "question")}
        for row in left:
            if not {row["dataset"], row["split"]} & set(recipe.against):
                if row["video_id"] in leaked["video"]:
                    out[row["sample_id"]] = LEAKED_VIDEO
                elif row["sample_id"] in leaked["question"]:
                    out[row["sample_id"]] = LEAKED_QUESTION
    if "duplicates" in kinds:
        _, found = read(store, "duplicates")
        for of, column, reason in (("video", "video_id", VIDEO), ("question", "sample_id", QUESTION)):
            left = [row for row in left if row["sample_id"] not in out]
            twice = redundant({row[column] for row in left}, [(o.a, o.b) for o in found if o.of == of])
            out |= {row["sample_id"]: reason for row in left if row[column] in twice}
    return out


def redundant(items: set[str], pairs: Iterable[tuple[str, str]]) -> set[str]:
    """The items that a kept one makes needless: one is kept unless it is the lesser twin of a kept one.

    Args:
        items: those at hand; pairs with others say nothing.
        pairs: (preferred, lesser); the preference is an order, so that pairs form no circle.
    """
    above: dict[str, list[str]] = {}
    for a, b in pairs:
        if a in items and b in items:
            above.setdefault(b, []).append(a)
    kept: dict[str, bool] = {}
    for start in sorted(above):
        todo = [start]
        while todo:
            item = todo[-1]
            waiting = [a for a in above.get(item, []) if a not in kept]
            if waiting:
                todo += waiting
                continue
            kept[item] = not any(kept[a] for a in above.get(item, []))
            todo.pop()
    return {item for item, stays in kept.items() if not stays}
