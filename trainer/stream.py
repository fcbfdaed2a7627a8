"""The stream of a curated dataset: which samples a step sees, and their prebuilt views. Never opens a video file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.framereader import FrameReader
from pipeline.rewards import duration_of
from pipeline.sources import is_evaluation
from pipeline.store import Store
from pipeline.views import View, load_view
from trainer.rows import Rows

ANCHOR, FIRST_IMPORTANCE = 0, 1  # variant numbers


@dataclass(frozen=True)
class Group:
    """One sample and the views that its pool of rollouts is drawn over.

    Attributes:
        sample: the curated row. views: M views. variants: their numbers (0 is the anchor).
        epoch: how often the stream had passed over the dataset before.
        duration_s: of what the question is about, its clip or its video; None when not known.
    """

    sample: dict[str, Any]
    views: Sequence[View]
    variants: Sequence[int]
    epoch: int
    duration_s: float | None = None


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n samples in an epoch: a pure function of (seed, epoch), int64 [n]."""
    return np.random.default_rng(seed_of(seed, "order", epoch)).permutation(n)


def weighted_order(seed: int, epoch: int, weights: Sequence[float] | npt.NDArray[np.floating]) -> np.ndarray:
    """The order of an epoch whose samples are drawn by weight: a pure function of (seed, epoch, weights), int64 [n].

    Systematic resampling (Kitagawa 1996): one random offset, then n even steps along the summed weights, so that
    sample i appears n * w_i / sum(w) times, rounded down or up; no other way of drawing varies less. Equal weights give
    `order` itself.

    Args:
        weights: [n], finite, at least 0, not all 0.

    Raises:
        ValueError: they are not.
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 1 or not (np.isfinite(w).all() and (w >= 0).all() and w.any()):
        raise ValueError("expected finite weights of at least 0, not all 0")
    n = len(w)
    if w.min() == w.max():
        return order(seed, epoch, n)
    w = w / w.max()  # the sum of the largest floats would be infinite
    ends = np.cumsum(w)
    steps = (np.arange(n) + np.random.default_rng(seed_of(seed, "weights", epoch)).random()) * (ends[-1] / n)
    # A last step that rounding puts beyond the end belongs to the last sample that has a weight.
    drawn = np.minimum(np.searchsorted(ends, steps, side="right"), np.flatnonzero(w)[-1])
    shuffled: np.ndarray = drawn[order(seed, epoch, n)]
    return shuffled


def video_durations(store: Store) -> dict[str, float]:
    """Seconds of every video in a store, by video_id."""
    table = store.table("videos", ["video_id", "duration_s"])
    return dict(zip(table["video_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True))


def refuse_evaluation(dataset: str, rows: Iterable[dict[str, Any]]) -> None:
    """Keep evaluation data out of training.

    Raises:
        UserError: samples come from an evaluation split, by its name.
    """
    found = Counter(f"{row['dataset']}/{row['split']}" for row in rows if is_evaluation(row["split"]))
    if found:
        listed = ", ".join(f"{count} of {name}" for name, count in found.most_common())
        raise UserError(
            f"curated dataset {dataset!r} holds evaluation samples ({listed})",
            "training takes samples of training splits only",
            "`strive-data select --split train`, or --allow-eval if this is what you want",
        )


def chosen_variants(available: Sequence[int], count: int, view: str) -> list[int]:
    """The variants that a sample is asked with: its first `count`; with one view, the anchor or one importance view.

    A sample with fewer variants (some came out equal) has them taken in turn, so that every pool is G x M.
    """
    if count > 1:
        ascending = sorted(available)
        return [ascending[i % len(ascending)] for i in range(count)]
    wanted = ANCHOR if view == "anchor" else FIRST_IMPORTANCE
    # A sample whose importance views all came out like the anchor has the anchor alone.
    return [wanted if wanted in available else ANCHOR]


class Stream:
    """Batches of groups, a pure function of the step. Samples are drawn by the dataset's weights: see `weighted_order`.

    Args:
        count: M, views of a sample. view: which one when M is 1. groups: samples a step.
        allow_eval: train although samples come from an evaluation split.

    Raises:
        UserError: the dataset is empty, its frames are gone, or it holds samples of an evaluation split.
    """

    def __init__(
        self,
        store: Store,
        dataset: str,
        tag: str | None,
        *,
        count: int,
        view: str,
        groups: int,
        seed: int,
        allow_eval: bool = False,
    ) -> None:
        self.rows = Rows(store.curated(dataset, tag))
        self.reader = FrameReader(store)
        self.durations = video_durations(store)
        self.weights = np.array(self.rows.column("weight"), np.float64)
        self.count, self.view, self.groups, self.seed = count, view, groups, seed
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._check(dataset)
        if not allow_eval:
            refuse_evaluation(dataset, self.rows.without("variants"))

    def _check(self, dataset: str) -> None:
        if not self.rows:
            raise UserError(f"curated dataset {dataset!r}", "holds no sample", "loosen `strive-data select --min-var`")
        made = list(zip(self.rows.column("video_id"), self.rows.column("frames_fingerprint"), strict=True))
        gone = sum(video not in self.reader for video, _ in made)
        stale = sum(video in self.reader and self.reader.fingerprint(video) != print_ for video, print_ in made)
        if gone or stale:
            raise UserError(
                f"curated dataset {dataset!r}: {gone} samples without cached frames, "
                f"{stale} with frames cached under other settings",
                "expected the frames that its views were built on",
                "run cache-frames, score-frames, build-variants and select again",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, step: int) -> list[Group]:
        """The groups of a step, counted from 0."""
        positions = range(step * self.groups, (step + 1) * self.groups)
        return [self._group(*divmod(p, len(self.rows))) for p in positions]

    def _group(self, epoch: int, place: int) -> Group:
        row = self.rows[int(self._ordered(epoch)[place])]
        by_number = {v["variant"]: v for v in row["variants"]}
        numbers = chosen_variants(list(by_number), self.count, self.view)
        views = [
            load_view(self.reader, row["video_id"], *(by_number[k][name] for name in ("indices", "crop", "scale")))
            for k in numbers
        ]
        return Group(row, views, numbers, epoch, duration_of(row, self.durations))

    def distinct_views(self) -> int:
        """How many different views all samples have together."""
        found = set()
        for row in self.rows:
            by_number = {v["variant"]: v for v in row["variants"]}
            for number in set(chosen_variants(list(by_number), self.count, self.view)):
                v = by_number[number]
                found.add((row["video_id"], tuple(v["indices"]), tuple(v["crop"]), v["scale"]))
        return len(found)

    def _ordered(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of an epoch, computed once: as long as the dataset, it would cost more than reading a group."""
        known, order = self._order
        if known != epoch:
            order = weighted_order(self.seed, epoch, self.weights)
            self._order = epoch, order
        return order

    def batches(self, first: int, last: int) -> Iterator[tuple[int, list[Group]]]:
        """Steps first..last-1, the next one read while the present one trains (Lance releases the GIL)."""
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.batch, first) if first < last else None
            for step in range(first, last):
                assert ahead is not None
                groups = ahead.result()
                ahead = pool.submit(self.batch, step + 1) if step + 1 < last else None
                yield step, groups
