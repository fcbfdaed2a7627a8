"""What an evaluation asks: samples of a store, each with the frames that a policy is to see."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.prompts import SYSTEM
from pipeline.rewards import duration_of
from pipeline.samplers import uniform
from pipeline.store import Store, literal
from pipeline.transforms import WHOLE
from pipeline.variants import within
from pipeline.views import ANCHOR, BLIND
from trainer.stream import FIRST_IMPORTANCE, video_durations

VERSION = 1
NUMBERS = {"anchor": ANCHOR, "importance": FIRST_IMPORTANCE, "blind": BLIND}
"""The variant of each view; blind is no frame at all."""

_ALL = ("anchor", "importance")
_HELP = "strive-train eval --help"


@dataclass(frozen=True)
class Shown:
    """Cached frames, ascending, and what of them: the columns of a variant."""

    indices: tuple[int, ...]
    crop: tuple[float, ...] = WHOLE
    scale: float = 1.0


@dataclass(frozen=True)
class Exam:
    """One sample on one view: the row of `samples`, the frames, and the length of what the question is about."""

    sample: dict[str, Any]
    view: str
    shown: Shown
    duration_s: float | None
    frames: str  # fingerprint of the cached frames

    def fingerprint(self, policy: str, max_tokens: int) -> str:
        """Identity of a greedy answer and its truth: everything that determines them."""
        s, shown = self.sample, self.shown
        asked = [s[name] for name in ("sample_id", "task", "question", "options", "answer", "spans", "origin")]
        seen = [self.view, self.frames, list(shown.indices), list(shown.crop), shown.scale]
        return fingerprint("eval", VERSION, SYSTEM, policy, max_tokens, asked, seen, self.duration_s)


@dataclass(frozen=True)
class Exams:
    """All exams, by sample and view; and how many were left out, by reason."""

    todo: list[Exam]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Asked:
    """Which samples, and how they are shown.

    Attributes:
        dataset, tag: a curated dataset. split: all samples of a split. One of both.
        source: of these, those of one source.
        view: anchor, importance, blind, several with commas, or all (anchor,importance).
        frames: a budget: the anchor is sampled anew from the cache, a longer importance view is thinned evenly. None:
            views as they were built.
        limit: samples at most, the first by id.
    """

    dataset: str | None = None
    tag: str | None = None
    split: str | None = None
    source: str | None = None
    view: str = "all"
    frames: int | None = None
    limit: int | None = None

    def views(self) -> tuple[str, ...]:
        """The views by name.

        Raises:
            UserError: one is unknown.
        """
        names = [name.strip() for name in self.view.split(",")]
        found = tuple(dict.fromkeys(one for name in names for one in (_ALL if name == "all" else (name,))))
        if not set(found) <= set(NUMBERS):
            raise UserError(
                f"--view {self.view}", "expected one of anchor, importance, all, blind, or several with commas", _HELP
            )
        return found

    def name(self) -> str:
        """The option that chose the samples, as it was typed."""
        return f"--dataset {self.dataset}" if self.dataset is not None else f"--split {self.split}"


def exams(store: Store, reader: FrameReader, asked: Asked) -> Exams:
    """The exams that `asked` names, ordered by sample, then by view.

    A sample without cached frames, or without a view of a kind, is left out and counted; blind needs neither.

    Raises:
        UserError: neither or both of dataset and split, an unknown view, nothing to ask, or views that were built on
            other frames than those in the cache.
    """
    views = asked.views()
    if asked.frames is not None and asked.frames < 1:
        raise UserError(f"--frames {asked.frames}", "at least one frame", _HELP)
    rows, variants = _samples(store, asked)
    durations = video_durations(store)
    todo: list[Exam] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        video = row["video_id"]
        frames = reader.fingerprint(video) if video in reader else ""
        if frames and row.get("frames_fingerprint", frames) != frames:
            raise UserError(
                f"{asked.name()}: sample {row['sample_id']}",
                "its views were built on frames that are no longer those in the cache",
                "strive-data build-variants, then select",
            )
        for view in views:
            shown = Shown(()) if view == "blind" else _shown(reader, row, variants, view, asked.frames, left_out)
            if shown is not None:
                todo.append(Exam(row, view, shown, duration_of(row, durations), frames))
    if not todo:
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(
            asked.name() + (f" --source {asked.source}" if asked.source else ""),
            f"no sample with a view of kind {asked.view!r} in the store" + (f" ({counted})" if counted else ""),
            "strive-data status shows the samples; build-variants makes their views",
        )
    return Exams(todo, dict(left_out))


def _samples(store: Store, asked: Asked) -> tuple[list[dict[str, Any]], dict[tuple[str, int], dict[str, Any]]]:
    """The samples, by id, with their origins; and the built views by (sample, variant)."""
    if (asked.dataset is None) == (asked.split is None):
        raise UserError("strive-train eval", "expected either --dataset or --split", _HELP)
    if asked.dataset is not None:
        rows = store.curated(asked.dataset, asked.tag).to_pylist()
        origins = store.table("samples", ["sample_id", "origin"])
        origin = dict(zip(*(origins[name].to_pylist() for name in ("sample_id", "origin")), strict=True))
        rows = [row | {"origin": origin.get(row["sample_id"], "{}")} for row in rows]
        variants = {(row["sample_id"], v["variant"]): v for row in rows for v in row["variants"]}
    elif asked.tag is not None:
        raise UserError(f"--tag {asked.tag}", "a tag is of a curated dataset: give --dataset too", _HELP)
    else:
        rows = store.table("samples", filter=f"split = {literal(str(asked.split))}").to_pylist()
        variants = {(v["sample_id"], v["variant"]): v for v in store.table("variants").to_pylist()}
    if asked.source is not None:
        known = sorted({row["source"] for row in rows})
        rows = [row for row in rows if row["source"] == asked.source]
        if not rows:
            raise UserError(
                f"{asked.name()} --source {asked.source}",
                f"no sample of that source; there is {', '.join(known) or 'none'}",
                "strive-data status",
            )
    return sorted(rows, key=lambda row: str(row["sample_id"]))[: asked.limit], variants


def _shown(
    reader: FrameReader,
    row: dict[str, Any],
    variants: dict[tuple[str, int], dict[str, Any]],
    view: str,
    budget: int | None,
    left_out: Counter[str],
) -> Shown | None:
    """The frames of a sample's view; None, and counted, where there are none."""
    video = row["video_id"]
    if video not in reader:
        left_out["no cached frames"] += 1
        return None
    if view == "anchor" and budget is not None:
        inside = np.flatnonzero(within(np.asarray(reader.times(video)), row["clip"]))
        if not len(inside):
            left_out["no cached frame in the clip"] += 1
            return None
        return Shown(tuple(inside[uniform(len(inside), budget)].tolist()))
    built = variants.get((row["sample_id"], NUMBERS[view]))
    if built is None:
        left_out[f"no {view} view"] += 1
        return None
    return Shown(thinned(built["indices"], budget), tuple(built["crop"]), float(built["scale"]))


def thinned(indices: Sequence[int], budget: int | None) -> tuple[int, ...]:
    """`budget` of the frames, evenly spread; all of them when there are no more, or without a budget."""
    return tuple(indices) if budget is None else tuple(indices[i] for i in uniform(len(indices), budget))
