"""How well scores and samplers find the moments that questions are about, on samples whose true spans are known."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.framereader import FrameReader
from pipeline.runner import Progress
from pipeline.samplers import SAMPLERS, Floats, is_flat, largest_gap, parameters_of
from pipeline.store import Snapshot, Store
from pipeline.variants import within

DRAWS = 4
"""Views drawn a sample of a sampler that works by chance: its figures are means over them."""

_ROWS = 256  # scores of so many samples are in memory at once

Spans = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Judged:
    """A sample that can be judged: scores and times [K] of the frames in its clip, and which show which span [n, K]."""

    sample_id: str
    scores: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    shows: npt.NDArray[np.bool_]


def in_spans(times: Floats, spans: Spans) -> npt.NDArray[np.bool_]:
    """bool [n, K]: whether a frame at `times` [K] seconds lies in each of `spans` [n], [start_s, end_s), end left out.

    Spans that adjoin share no frame this way.
    """
    t = np.asarray(times, dtype=np.float64)
    edges = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    inside: npt.NDArray[np.bool_] = (t >= edges[:, :1]) & (t < edges[:, 1:])
    return inside


def auc(scores: Floats, inside: npt.NDArray[np.bool_]) -> float:
    """Chance that a frame inside scores higher than a frame outside; ties count half. In K log K, by ranks.

    Args:
        scores: [K], finite. inside: [K].

    Raises:
        ValueError: there is no frame on one of the two sides, or a score is not finite.
    """
    s = np.asarray(scores, dtype=np.float64)
    positives = int(inside.sum())
    negatives = len(s) - positives
    if not positives or not negatives or not np.isfinite(s).all():
        raise ValueError(f"no AUC of {positives} frames inside and {negatives} outside, or a score is not finite")
    _, group, counts = np.unique(s, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # from 1; equal scores share the mean of theirs
    above = ranks[inside].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def evaluate(
    store: Store,
    frames: Sequence[int] = (8, 16),
    source: str | None = None,
    split: str | None = None,
    seed: int = 0,
    moments: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge the scores and every sampler, with its defaults, on the samples with spans and scores.

    A view hits when one of its frames lies in any of the sample's spans, and hits all when one lies in each of them.
    Samples whose frames are all inside, all outside or scored with a number that is not finite say nothing about scorer
    or sampler, and are left out.

    Args:
        frames: budgets to draw views of.
        source: only samples of it. split: only samples of it.
        seed: of the samplers that work by chance.
        moments: a key of the original rows that holds spans of the file, [[start_s, end_s]], to judge by instead of the
            samples' own: what must be seen may be more than what is asked for.
        progress: is told of judged samples.

    Returns:
        scorers, samples (judged), auc and auc_se (mean over samples and its standard error), inside (mean share of
        frames inside), left_out by reason, and samplers: rows of sampler, frames, hit and hit_all with their standard
        errors (_se), gap (mean largest gap), flat (samples whose scores told nothing), short (samples with no more
        frames than the view).

    Raises:
        UserError: no sample can be judged.
    """
    left_out = dict.fromkeys(("no spans", "no frames", "no scores", "all frames in", "all frames out", "not finite"), 0)
    aucs: list[float] = []
    shares: list[float] = []
    tallies = {(name, budget): _Tally() for name in SAMPLERS for budget in frames}
    scorers: set[str] = set()
    scores, reader = store.snapshot("frame_scores"), FrameReader(store)
    samples = _narrowed(store, source, split, moments)
    todo = _to_judge(samples, reader, scores, left_out)
    if progress:
        progress.start("evaluate-scorer", len(todo))
    for sample in _judged(todo, reader, scores, left_out, scorers):
        inside = np.logical_or.reduce(sample.shows, axis=0)
        aucs.append(auc(sample.scores, inside))
        shares.append(float(inside.mean()))
        for (name, budget), tally in tallies.items():
            tally.figures.append(_draws(name, budget, sample, seed))
            tally.flat += SAMPLERS[name].by_score and is_flat(sample.scores)
            tally.short += len(sample.times) <= budget
        if progress:
            progress.advance(1)
    if progress:
        progress.stop()
    if not aucs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "there is none"
        raise UserError(
            f"no sample of {store.location} can be judged ({reasons})",
            "samples with true spans, cached frames and scores",
            f"strive-data score-frames --store {store.location}",
        )
    return {
        "scorers": sorted(scorers),
        "samples": len(aucs),
        "auc": float(np.mean(aucs)),
        "auc_se": _standard_error(aucs),
        "inside": float(np.mean(shares)),
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "samplers": [{"sampler": name, "frames": n, **tally.row()} for (name, n), tally in tallies.items()],
    }


def _narrowed(store: Store, source: str | None, split: str | None, moments: str | None) -> Iterator[dict[str, Any]]:
    """The samples of a source and a split; their spans are the true ones, or those that `moments` names."""
    columns = ["sample_id", "video_id", "source", "split", "spans", "clip", *(["origin"] if moments else [])]
    for sample in store.table("samples", columns).to_pylist():
        if source in (None, sample["source"]) and split in (None, sample["split"]):
            if moments:
                sample["spans"] = spans_of(sample.pop("origin"), moments)
            yield sample


def _to_judge(
    samples: Iterable[dict[str, Any]], reader: FrameReader, scores: Snapshot, left_out: dict[str, int]
) -> list[tuple[int, dict[str, Any]]]:
    """Samples with spans, frames and scores, each with the row of its scores, in the order of these.

    Args:
        left_out: counts the others, by reason.
    """
    row_of = {key: row for row, key in enumerate(scores.columns(["sample_id"])["sample_id"].to_pylist())}
    todo: list[tuple[int, dict[str, Any]]] = []
    for sample in samples:
        if not sample["spans"]:
            left_out["no spans"] += 1
        elif sample["video_id"] not in reader:
            left_out["no frames"] += 1
        elif sample["sample_id"] not in row_of:
            left_out["no scores"] += 1
        else:
            todo.append((row_of[sample["sample_id"]], sample))
    return sorted(todo, key=lambda pair: pair[0])


def _judged(
    todo: Sequence[tuple[int, dict[str, Any]]],
    reader: FrameReader,
    table: Snapshot,
    left_out: dict[str, int],
    scorers: set[str],
) -> Iterator[Judged]:
    """The samples that say something; scores are read in parts.

    Args:
        left_out: counts the others, by reason. scorers: gets the names of the models that scored.

    Raises:
        UserError: scores are of other frames than those that are cached now.
    """
    for start in range(0, len(todo), _ROWS):
        part = todo[start : start + _ROWS]
        taken = table.take([row for row, _ in part], ["scorer", "scores"])
        for (_, sample), scorer, scores in zip(part, taken["scorer"].to_pylist(), taken["scores"], strict=True):
            times = np.asarray(reader.times(sample["video_id"]))
            values = np.asarray(scores.values.to_numpy(), dtype=np.float64)
            if len(values) != len(times):
                raise UserError(
                    f"sample {sample['sample_id']}",
                    f"its {len(values)} scores are of other frames than the {len(times)} that are cached",
                    "strive-data score-frames",
                )
            shown = within(times, sample["clip"])
            shows = in_spans(times[shown], sample["spans"])
            reason = _silent(values[shown], np.logical_or.reduce(shows, axis=0))
            if reason:
                left_out[reason] += 1
            else:
                scorers.add(scorer)
                yield Judged(sample["sample_id"], values[shown], times[shown], shows)


def spans_of(origin: str, key: str) -> list[list[float]]:
    """The spans under a key of an original row (JSON); none when it has no such key.

    Raises:
        UserError: the key holds something else.
    """
    row = json.loads(origin)
    value = row.get(key) if isinstance(row, dict) else None
    try:
        return [[float(start), float(end)] for start, end in value or []]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--moments {key}: {str(value)[:80]}", "spans in seconds, [[start, end], ...]", "name another key"
        ) from error


def _silent(scores: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> str:
    """Why a sample says nothing; "" when it does."""
    if not inside.any():
        return "all frames out"
    if inside.all():
        return "all frames in"
    return "" if np.isfinite(scores).all() else "not finite"


def _draws(name: str, budget: int, sample: Judged, seed: int) -> tuple[float, float, float]:
    """Of a sampler's views of a sample: the shares that hit and that hit all, and the mean largest gap."""
    sampler, parameters = SAMPLERS[name], parameters_of(name, budget)
    figures = []
    for draw in range(DRAWS if sampler.by_chance else 1):
        own = seed_of(seed, sample.sample_id, name, budget, draw)
        chosen = sampler.draw(sample.scores, sample.times, budget, own, parameters, itself=True).indices
        seen = sample.shows[:, chosen].any(axis=1)
        figures.append((float(seen.any()), float(seen.all()), largest_gap(sample.times[chosen], sample.times)))
    hit, hit_all, gap = np.mean(figures, axis=0).tolist()
    return hit, hit_all, gap


class _Tally:
    """What the views of one sampler and budget came to, sample by sample."""

    def __init__(self) -> None:
        self.figures: list[tuple[float, float, float]] = []
        self.flat = self.short = 0

    def row(self) -> dict[str, Any]:
        hits, alls, gaps = zip(*self.figures, strict=True)
        row = {"hit": float(np.mean(hits)), "hit_se": _standard_error(hits)}
        row |= {"hit_all": float(np.mean(alls)), "hit_all_se": _standard_error(alls)}
        return row | {"gap": float(np.mean(gaps)), "flat": self.flat, "short": self.short}


def _standard_error(values: Sequence[float]) -> float | None:
    """Of a mean over samples; None for a single one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
