"""Which samples and how often: a budget spread over what the videos show, and soft weights in place of a cut."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import UserError
from pipeline.search import cluster, embedded, pick_scorer
from pipeline.store import Store

BEYOND_SOURCE, BEYOND_ALL = "beyond --per-source", "beyond --max-samples"
REASONS = (BEYOND_SOURCE, BEYOND_ALL)
"""Why `choose` leaves a sample out."""

FEWEST, MOST = 16, 256
_VIDEOS_A_READ = 64
_NEXT = "strive-data score-frames"

Floats = npt.NDArray[np.float32]


def binds(sources: Iterable[str], per_source: int | None, max_samples: int | None) -> bool:
    """Whether a budget leaves anything out: only then are vectors needed.

    Args:
        sources: of each sample.

    Raises:
        UserError: a budget below 1.
    """
    for option, value in (("--per-source", per_source), ("--max-samples", max_samples)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}", "at least one sample", f"strive-data select {option} 1000")
    counts = Counter(sources)
    too_many = per_source is not None and any(count > per_source for count in counts.values())
    return too_many or (max_samples is not None and counts.total() > max_samples)


def video_vectors(store: Store, videos: Iterable[str], scorer: str | None = None) -> dict[str, Floats]:
    """What each video shows: the mean of its frames' embeddings, float32 [dim], unit length.

    A video whose embeddings cancel out has no direction: its vector is zero.

    Args:
        videos: their video_ids; may repeat.
        scorer: whose embeddings; needed only when several scorers have embedded frames.

    Raises:
        UserError: there are several scorers to choose from, or a video is not embedded.
    """
    wanted = sorted(set(videos))
    if not wanted:
        return {}
    chosen = pick_scorer(store, scorer, option="--scorer")
    of = embedded(store, chosen) if chosen else None
    missing = [video for video in wanted if of is None or video not in of.rows]
    if of is None or missing:
        raise UserError(
            f"{len(missing)} of {len(wanted)} videos, e.g. {missing[0]}",
            "their frames are not embedded, so that nothing says how alike they are",
            _NEXT,
        )
    found: dict[str, Floats] = {}
    for start in range(0, len(wanted), _VIDEOS_A_READ):
        for video, frames in of.read(wanted[start : start + _VIDEOS_A_READ]).items():
            mean = frames.astype(np.float32).mean(axis=0)
            length = float(np.linalg.norm(mean))
            found[video] = mean / length if length > 0.0 else mean
    return found


def clusters_of(videos: int) -> int:
    """How many clusters so many videos are put into: twice the square root, 16..256, never more than videos.

    It does not depend on the budget, so that a larger budget keeps all that a smaller one keeps.
    """
    return min(videos, max(FEWEST, min(MOST, round(2 * math.sqrt(videos)))))


def choose(
    ids: Sequence[str],
    sources: Sequence[str],
    videos: Sequence[str],
    value: Sequence[float] | npt.NDArray[np.floating],
    vectors: Mapping[str, npt.NDArray[np.floating]],
    *,
    per_source: int | None,
    max_samples: int | None,
    seed: int,
) -> tuple[list[str], dict[str, str]]:
    """Which samples stay when there is room for so many of each source, and then for so many in all.

    Rounds go over the clusters, the most different ones first: in each, every cluster that has samples left gives one.
    A cluster gives from its videos in turn, a video its most valuable sample first, ties by id; so the result is
    independent of the order of the samples, and one for a larger `max_samples` holds that for a smaller one.

    Args:
        ids: of the samples, distinct.
        sources, videos: of each sample.
        value: of each sample, finite; the variance of its reward.
        vectors: one for each video, unit length; may be empty when nothing has to be left out (see `binds`).
        per_source, max_samples: budgets; None: no bound.
        seed: of the clusters.

    Returns:
        the ids that stay, ascending, and a reason for each of the others.

    Raises:
        UserError: a budget below 1.
        ValueError: ids repeat, a value is not finite, or a vector is missing.
    """
    if not binds(sources, per_source, max_samples):
        return sorted(ids), {}
    columns = {"id": list(ids), "source": list(sources), "video": list(videos), "value": np.asarray(value, np.float64)}
    frame = pl.DataFrame(columns)
    if frame["id"].n_unique() < frame.height or not bool(frame["value"].is_finite().all()):
        raise ValueError("ids must be distinct and values finite")
    frame = frame.join(_clusters(frame["video"], vectors, seed), on="video", maintain_order="left")
    within = frame if per_source is None else _dealt(frame, "source").filter(pl.col("place") < per_source)
    kept = within.drop("place", strict=False)
    if max_samples is not None:
        kept = _dealt(kept.with_columns(all=pl.lit(0)), "all").filter(pl.col("place") < max_samples)
    reasons = dict.fromkeys(frame["id"].to_list(), BEYOND_SOURCE) | dict.fromkeys(within["id"].to_list(), BEYOND_ALL)
    stay = kept["id"].sort().to_list()
    for key in stay:
        del reasons[key]
    return stay, reasons


def weights(
    variances: Sequence[float] | npt.NDArray[np.floating], tasks: Sequence[str], *, uniform_share: float = 0.5
) -> npt.NDArray[np.float64]:
    """How often each sample is drawn, relative to the others: `u + (1 - u) * v / mean(v)`, the mean taken in its task.

    Within a task the weight grows with the variance of the reward; the mean weight of every task is 1, so that tasks
    with graded rewards, whose variances are smaller, are drawn as often as binary ones. A task without any variance is
    drawn evenly. The even share keeps samples in play that this policy cannot learn from yet, or no longer.

    Args:
        variances: [n], of each sample's reward, finite, at least 0.
        tasks: [n].
        uniform_share: u, the part of each task's weight that is dealt evenly, above 0, at most 1.

    Raises:
        ValueError: a variance or the share is out of range.
    """
    v = np.asarray(variances, np.float64)
    if not (np.isfinite(v).all() and (v >= 0).all() and 0 < uniform_share <= 1):
        raise ValueError(f"expected finite variances >= 0 and a share in (0, 1], got a share of {uniform_share}")
    if len(v) != len(tasks):
        raise ValueError(f"{len(v)} variances and {len(tasks)} tasks")
    _, task = np.unique(np.asarray(tasks, dtype=np.str_), return_inverse=True)
    highest = np.zeros(task.max(initial=-1) + 1)
    np.maximum.at(highest, task, v)
    # Divided by the task's highest first: the mean of the smallest floats would come out as 0.
    share = np.divide(v, highest[task], out=np.ones_like(v), where=highest[task] > 0)
    mean = np.bincount(task, share) / np.bincount(task) if len(v) else highest
    even = np.where(highest[task] > 0, share / mean[task], 1.0)
    found: npt.NDArray[np.float64] = uniform_share + (1.0 - uniform_share) * even
    return found


def _clusters(videos: pl.Series, vectors: Mapping[str, npt.NDArray[np.floating]], seed: int) -> pl.DataFrame:
    """video, cluster: one row a video."""
    names: list[str] = videos.unique().sort().to_list()
    missing = next((name for name in names if name not in vectors), None)
    if missing is not None:
        raise ValueError(f"no vector for video {missing}")
    labels = cluster(np.stack([vectors[name] for name in names]), clusters_of(len(names)), seed)
    return pl.DataFrame({"video": names, "cluster": labels})


def _dealt(frame: pl.DataFrame, group: str) -> pl.DataFrame:
    """The samples with `place`: when each comes in the deal of its group, from 0."""
    best, order = ["value", "id"], [True, False]
    frame = frame.sort(best, descending=order)
    frame = frame.with_columns(pl.int_range(pl.len()).over(group, "video").alias("turn"))
    frame = frame.sort(["turn", *best], descending=[False, *order])
    frame = frame.with_columns(pl.int_range(pl.len()).over(group, "cluster").alias("round"))
    frame = frame.sort(["round", "cluster"])  # one a cluster in each round, in the order of the clusters
    return frame.with_columns(pl.int_range(pl.len()).over(group).alias("place"))
