"""The stage that draws the views of each sample: the anchor, and question-aware ones that keep the answer."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, seed_of
from pipeline.framereader import FrameReader
from pipeline.samplers import DEFAULT, PARAMETERS, SAMPLERS, largest_gap, parameters_of, uniform
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location, Store
from pipeline.transforms import WHOLE, Box, draw_box, draw_scale

VERSION = 4
_REDRAWS = 16
_NEXT = "strive-data build-variants --help"


class BuildVariants:
    """Draw M views a sample: variant 0 is the anchor (uniform, whole frame, nothing drawn), the rest by a sampler.

    A view that equals an earlier one of its sample is drawn again, and left out when the video has no other: a sample
    may end with fewer than M. Where scores tell nothing, a view is drawn for coverage alone and its kind says so.
    A sampler without chance has one view to give: it is variant 1, and the others are its neighbours, by seed.

    Args:
        m: views a sample, at least 1.
        frames: frames a view; all cached frames when a video has fewer.
        mix: share of relevance in the sampling weights, 0..1 (importance).
        temperature: of the relevance softmax, in units of the scores' range (importance).
        bins: parts of the timeline that each get a frame; None: half as many as frames (importance).
        seed: of all draws.
        spatial: whether tasks that allow it get centred crops.
        sampler: a name in SAMPLERS.
        power: of the scaled scores (bolt).
        threshold: by how much the best frames of a segment stand out when it stays whole (aks).
        depth: halvings at most (aks).
        resize: views keep this share of their resolution at least, 0.5..1, where the task allows; 1 keeps all of it.
    """

    name = "build-variants"
    reads: tuple[str, ...] = ("samples", "frames", "frame_scores")
    writes = "variants"
    scope: str | None = None
    batch_size = 256
    deadline_s: float | None = None

    def __init__(
        self,
        m: int = 4,
        frames: int = 8,
        mix: float = PARAMETERS["mix"],
        temperature: float = PARAMETERS["temperature"],
        bins: int | None = PARAMETERS["bins"],
        seed: int = 0,
        spatial: bool = True,
        sampler: str = DEFAULT,
        power: float = PARAMETERS["power"],
        threshold: float = PARAMETERS["threshold"],
        depth: int = PARAMETERS["depth"],
        resize: float = 1.0,
    ) -> None:
        self.m, self.frames, self.seed, self.spatial, self.sampler = m, frames, seed, spatial, sampler
        self.resize = resize
        if not 0.5 <= resize <= 1.0:
            raise UserError(f"--resize {resize}", "0.5 to 1: what is smaller may no longer be seen", _NEXT)
        if m < 1 or frames < 1:
            raise UserError(f"{m} variants of {frames} frames", "at least one variant of one frame is needed", _NEXT)
        given = {"mix": mix, "temperature": temperature, "bins": bins}
        given |= {"power": power, "threshold": threshold, "depth": depth}
        self.parameters = parameters_of(sampler, frames, **given)
        self.mix, self.temperature = mix, temperature
        self.bins = max(1, frames // 2) if bins is None else bins

    def plan(self, store: Store) -> list[Item]:
        reader = FrameReader(store)
        cached = set(reader.videos)
        scored = store.table("frame_scores", columns=["sample_id", "fingerprint"]).to_pylist()
        row_of = {row["sample_id"]: (offset, row["fingerprint"]) for offset, row in enumerate(scored)}
        recipe = (VERSION, self.m, self.frames, self.sampler, self.parameters, self.seed, self.spatial, self.resize)
        blind = self.m == 1 or not SAMPLERS[self.sampler].by_score
        items = []
        for sample in store.table("samples", columns=["sample_id", "video_id", "task", "clip", "spans"]).to_pylist():
            key, video, task, clip = sample["sample_id"], sample["video_id"], sample["task"], sample["clip"]
            offset, scores = row_of.get(key, (None, ""))
            if video in cached and (offset is not None or blind):
                frames = reader.fingerprint(video)
                print_ = fingerprint(self.name, *recipe, scores, frames, task, clip, sample["spans"])
                items.append(Item((key,), print_, (video, task, offset, clip, sample["spans"])))
        return items

    def setup(self, place: Location, device: str) -> None:
        store = Store(place)
        self._scores, self._reader = store.snapshot("frame_scores"), FrameReader(store)

    def process(self, items: Sequence[Item]) -> Outcome:
        offsets = sorted({item.payload[2] for item in items if item.payload[2] is not None})
        taken = self._scores.take(offsets, ["scores"])["scores"]
        place = {offset: i for i, offset in enumerate(offsets)}
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        for item in items:
            video, task, offset, clip, spans = item.payload
            times = np.asarray(self._reader.times(video))
            scores = np.zeros(len(times)) if offset is None else taken[place[offset]].values.to_numpy()
            head = {"sample_id": item.key[0], "video_id": video, "fingerprint": item.fingerprint}
            inside = within(times, clip)
            lacking = unseen(times[inside], clip, spans)
            if lacking:
                failures.append(Failure(item.key, item.fingerprint, "moment not cached", f"video {video}: {lacking}"))
                continue
            first = int(np.flatnonzero(inside)[0])
            views = self.views(item.key[0], task, scores[inside], times[inside])
            rows += [head | view | {"indices": [first + i for i in view["indices"]]} for view in views]
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.VARIANTS), failures)

    def views(self, sample_id: str, task: str, scores: Sequence[float] | Any, times: Any) -> list[dict[str, Any]]:
        """The views of one sample, anchor first, each with the columns of schemas.VARIANT_FIELDS. A pure function.

        Args:
            sample_id: part of the seed of every draw.
            task: decides which crops are allowed.
            scores: [K] relevance of the cached frames.
            times: [K] their times in seconds, ascending.
        """
        sampler = SAMPLERS[self.sampler]
        anchor = uniform(len(times), self.frames)
        seen: set[tuple[tuple[int, ...], Box, float]] = {(tuple(anchor), WHOLE, 1.0)}
        views = [_view(0, "anchor", anchor, WHOLE, 1.0, 0, times, 0.0)]
        for variant in range(1, self.m):
            for attempt in range(_REDRAWS):
                # The first attempt's seed is that of the variant; redraws have their own, so nothing else moves.
                seed = seed_of(self.seed, sample_id, variant, *([attempt] if attempt else []))
                itself = variant == 1 and not attempt
                draw = sampler.draw(scores, times, self.frames, seed, self.parameters, itself)
                box = draw_box(task, seed) if self.spatial else WHOLE
                scale = draw_scale(task, seed, self.resize)
                if (tuple(draw.indices), box, scale) not in seen:
                    seen.add((tuple(draw.indices), box, scale))
                    kind = "coverage" if draw.flat or not sampler.by_score else "importance"
                    overlap = float(np.mean([jaccard(draw.indices, view["indices"]) for view in views]))
                    views.append(_view(variant, kind, draw.indices, box, scale, seed, times, overlap))
                    break
            else:
                break  # the video has no further view to give; numbers stay without a gap
        return views


def jaccard(one: Sequence[int], other: Sequence[int]) -> float:
    """Frames that two views share, as a share of those that either shows; views are not empty."""
    return len(set(one) & set(other)) / len({*one, *other})


def within(times: Any, clip: Sequence[float]) -> Any:
    """bool [K]: the frames at `times` (seconds, ascending) that lie in [start, end]; all when `clip` is empty."""
    start, end = clip or (-np.inf, np.inf)
    return (times >= start) & (times <= end)


def unseen(times: Any, clip: Sequence[float], spans: Sequence[Sequence[float]]) -> str:
    """Why the frames of a sample cannot show what it asks about; "" when they can.

    Frames may be missing where a video is damaged. A moment counts as shown when a frame lies in it, or no further from
    it than frames usually lie from each other.

    Args:
        times: [K] seconds, ascending, of the frames in the sample's clip.
        clip: [start, end] or nothing. spans: true moments; none is needed where the question asks for none.
    """
    if not len(times):
        return f"no frame of {list(clip)} s is cached"
    reach = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    if not spans or any(np.any((times >= start - reach) & (times <= end + reach)) for start, end in spans):
        return ""
    return f"no frame near {[list(span) for span in spans]} s is cached; the last is at {times[-1]:.3f} s"


def built(store: Store, m: int, sampler: str = DEFAULT) -> dict[str, Any]:
    """What stands in `variants`, and what is left out of it and why.

    Args:
        m: views a sample that were asked for. sampler: that drew them.

    Returns:
        samples, built (samples with views), views, kinds (views by kind), equal_views (left out, since they equalled
        another of their sample), flat_scores (samples whose scores do not tell frames apart), overlap (mean Jaccard
        index over the pairs of a sample's views, mean over samples; None when no sample has two), and left_out by
        reason.
    """
    cached = set(FrameReader(store).videos)
    samples = store.table("samples", ["sample_id", "video_id"]).to_pylist()
    rows = store.table("variants", ["sample_id", "variant", "kind", "overlap"]).to_pylist()
    have = {row["sample_id"] for row in rows}
    missing = [row for row in samples if row["sample_id"] not in have]
    no_frames = sum(row["video_id"] not in cached for row in missing)
    scored = set(store.table("frame_scores", ["sample_id"])["sample_id"].to_pylist())
    by_score = m > 1 and SAMPLERS[sampler].by_score
    no_scores = sum(row["video_id"] in cached and row["sample_id"] not in scored for row in missing) if by_score else 0
    pairs, shared = Counter[str](), Counter[str]()
    for row in rows:  # a view's overlap is the mean over as many earlier views as its number says
        pairs[row["sample_id"]] += row["variant"]
        shared[row["sample_id"]] += row["variant"] * row["overlap"]
    overlaps = [shared[key] / count for key, count in pairs.items() if count]
    return {
        "samples": len(samples),
        "built": len(have),
        "views": len(rows),
        "kinds": dict(sorted(Counter(row["kind"] for row in rows).items())),
        "equal_views": len(have) * m - len(rows),
        "flat_scores": len({row["sample_id"] for row in rows if row["kind"] == "coverage"}) if by_score else 0,
        "overlap": float(np.mean(overlaps)) if overlaps else None,
        "left_out": {"no frames": no_frames, "no scores": no_scores},
    }


def _view(
    variant: int, kind: str, indices: list[int], box: Box, scale: float, seed: int, times: Any, overlap: float
) -> dict[str, Any]:
    chosen = times[indices]
    return {
        "variant": variant,
        "kind": kind,
        "indices": indices,
        "times": chosen,
        "crop": list(box),
        "scale": scale,
        "seed": seed,
        "coverage": largest_gap(chosen, times),
        "overlap": overlap,
    }
