"""Clusters of vectors by k-means: like things lie together."""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

_ROUNDS = 10
_TRAINING = 64, 16_384  # vectors that k-means sees: so many a cluster, and at least so many
_SEEDING = 16, 4_096  # vectors that the first centres are drawn from, likewise
_CANDIDATES = 6
_EQUAL = 1e-5  # squared distance of vectors that are one and the same in float32


def cluster(vectors: npt.NDArray[np.floating], k: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """The cluster of each vector, by spherical k-means (nearest centre by cosine).

    The first centres are drawn as k-means++ draws them (Arthur and Vassilvitskii 2007): each next one with a chance
    that grows with the squared distance from those before, so that a small far group tends to get its own. Clusters
    keep that order: the first few are far from each other. Where vectors are equal there are fewer clusters than k.

    Args:
        vectors: [n, dim], unit length, n >= 1, finite.
        k: clusters wanted, 1..n.
        seed: the same vectors in the same order and the same seed give the same clusters.

    Returns:
        int64 [n], numbers below k.

    Raises:
        ValueError: k lies outside 1..n, or a number is not finite.
    """
    x = np.ascontiguousarray(vectors, np.float32)
    if not 1 <= k <= len(x) or not np.isfinite(x).all():
        raise ValueError(f"expected finite vectors and 1 <= k <= n, got k = {k} and shape {x.shape}")
    rng = np.random.default_rng(seed)
    trained = _some(x, k, _TRAINING, rng)
    centres = _spread_out(_some(trained, k, _SEEDING, rng), k, rng)
    means: Any = faiss.Kmeans(
        x.shape[1],
        len(centres),
        niter=_ROUNDS,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(trained),  # faiss draws no sample of its own
    )
    means.train(trained, init_centroids=centres)
    _, found = means.index.search(x, 1)
    labels: npt.NDArray[np.int64] = found[:, 0].astype(np.int64)
    return labels


def _some(
    x: npt.NDArray[np.float32], k: int, enough: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The vectors, or where they are more than enough as many of them, drawn without repetition, in their order."""
    count = max(enough[0] * k, enough[1])
    return x if len(x) <= count else x[np.sort(rng.choice(len(x), count, replace=False))]


def _spread_out(x: npt.NDArray[np.float32], k: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """At most k of the vectors, drawn one by one by their squared distance from the nearest drawn before.

    Of a few candidates that are drawn so, the one stays that brings all vectors nearest to their centres.
    """
    chosen = [int(rng.integers(len(x)))]
    lengths = np.einsum("nd,nd->n", x, x).astype(np.float64)
    nearest = _squared(x, lengths, chosen)[:, 0]
    while len(chosen) < k and nearest.any():
        chances = np.cumsum(nearest)
        drawn = np.searchsorted(chances, rng.random(_CANDIDATES) * chances[-1], side="right")
        candidates = np.minimum(drawn, np.flatnonzero(nearest)[-1])  # rounding may lead past the last one
        after = np.minimum(nearest[:, None], _squared(x, lengths, candidates))
        best = int(after.sum(axis=0).argmin())
        nearest = after[:, best]
        chosen.append(int(candidates[best]))
    return x[chosen]


def _squared(
    x: npt.NDArray[np.float32], lengths: npt.NDArray[np.float64], of: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Squared distances [n, len(of)] of the vectors from some of them; exactly 0 where they are equal."""
    distances = lengths[:, None] + lengths[of] - 2.0 * (x @ x[of].T)
    distances[distances < _EQUAL] = 0.0
    return np.asarray(distances, np.float64)
