"""Search in a million embeddings: time and recall. Planted copies of toy clips: how many are found, and wrongly."""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

import toyworld
from benchmarks.copies import make_world, precision_recall
from pipeline import duplicates, leaks, search
from pipeline.scorer import resolve

VECTORS, QUICK_VECTORS, DIM = 1_000_000, 100_000, 512
A_CLUSTER, QUERIES = 50, 200
CLIPS, QUICK_CLIPS = 90, 30
_BLOCK = 50_000


def synthetic(count: int, seed: int = 0) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """Clustered unit vectors as frames have them, float16 [count, DIM], and queries, float32 [QUERIES, DIM].

    A vector is the centre of its cluster with as much noise again, A_CLUSTER to each as a video has frames; centres lie
    around a tenth as many themes. Half of the queries are further draws of a cluster, half lie between two clusters,
    with noise, as texts lie off the frames.
    """
    clusters = count // A_CLUSTER
    rng = np.random.default_rng(seed)

    def noise(n: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal((n, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))

    themes = _unit(noise(clusters // 10))
    centres = _unit(themes[rng.integers(0, len(themes), clusters)] + noise(clusters))
    vectors = np.empty((count, DIM), np.float16)
    for start in range(0, count, _BLOCK):
        n = min(_BLOCK, count - start)
        vectors[start : start + n] = _unit(centres[rng.integers(0, clusters, n)] + noise(n))
    half = QUERIES // 2
    near = centres[rng.integers(0, clusters, half)] + noise(half)
    between = centres[rng.integers(0, clusters, (QUERIES - half, 2))].sum(1) + noise(QUERIES - half)
    return vectors, _unit(np.concatenate([near, between]))


def measure_search(count: int) -> dict[str, Any]:
    """Build the approximate and the exact index over the same vectors; ask both, one query at a time, in turns.

    The cells are chosen on one half of the queries, every second one; recall is measured on the other.
    """
    vectors, queries = synthetic(count)

    def blocks() -> Iterator[npt.NDArray[np.floating]]:
        for start in range(0, count, _BLOCK):
            yield vectors[start : start + _BLOCK]

    begun = time.perf_counter()
    index = search.build(blocks, count, DIM, exact_limit=0)
    build_s = time.perf_counter() - begun
    begun = time.perf_counter()
    chosen = search.tune(index, blocks, queries[0::2], "queries")
    tune_s = time.perf_counter() - begun
    asked = queries[1::2]
    truth = search.exact(blocks, asked, search.RECALL_AT)
    exact = search.build(blocks, count, DIM, exact_limit=count)
    seconds: dict[str, list[float]] = {"approximate": [], "exact": []}
    found = []
    for i in range(len(asked)):
        for name, one in (("approximate", index), ("exact", exact)):
            begun = time.perf_counter()
            cosines, _ = one.search(asked[i : i + 1], search.RECALL_AT)
            seconds[name].append(time.perf_counter() - begun)
            if name == "approximate":
                found.append(cosines)
    return {
        "recall_at_10": round(search.recall_of(np.concatenate(found), truth), 4),
        "ms_per_query": round(1000 * median(seconds["approximate"]), 3),
        "ms_slowest": round(1000 * max(seconds["approximate"]), 3),
        "approximate_vs_exact": round(median(seconds["exact"]) / median(seconds["approximate"]), 2),
        "vectors": count,
        "cells": index.nlist,
        "cells_visited": chosen.cells,
        "build_s": round(build_s, 1),
        "tune_s": round(tune_s, 1),
        "milliseconds": {name: round(1000 * median(values), 3) for name, values in seconds.items()},
    }


def measure_copies(clips: int, fps: float) -> dict[str, Any]:
    """Precision and recall of `duplicates` and `leaks` on planted copies of toy clips cached at `fps`."""
    label = resolve(str(toyworld.CLIP)).label
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), clips, fps)
        begun = time.perf_counter()
        twice = duplicates.duplicates(world.store, label)
        seconds = time.perf_counter() - begun
        leaked = leaks.leaks(world.store, ["val"], label)
    pairs = [{frozenset((o.a, o.b)) for o in found.overlaps if o.by == "embedding"} for found in (twice, leaked)]
    figures: dict[str, Any] = {}
    for name, found, truth in zip(("duplicates", "leaks"), pairs, (world.duplicates, world.leaks), strict=True):
        precision, recall = precision_recall(found, truth)
        figures |= {f"{name}_precision": round(precision, 4), f"{name}_recall": round(recall, 4)}
        figures[f"{name}_planted"] = len(truth)
    by_content = {o.a for o in leaked.overlaps if o.by == "content" and o.of == "video"}
    return figures | {
        "leaks_by_content": by_content == {world.shared},
        "videos": len(world.names),
        "duplicates_s": round(seconds, 2),
    }


def _unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__, allow_abbrev=False)
    parser.add_argument("--vectors", type=int, default=0, help=f"embeddings (default: {VECTORS})")
    parser.add_argument("--clips", type=int, default=0, help=f"distinct toy clips (default: {CLIPS})")
    parser.add_argument("--fps", type=float, default=2.0, help="cached frames a second of the clips (default: 2)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VECTORS} embeddings, {QUICK_CLIPS} clips")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure_copies(arguments.clips or (QUICK_CLIPS if arguments.quick else CLIPS), arguments.fps)
    figures |= measure_search(arguments.vectors or (QUICK_VECTORS if arguments.quick else VECTORS))
    print(
        f"{figures['vectors']} embeddings of {DIM} numbers: {figures['ms_per_query']} ms a query (slowest "
        f"{figures['ms_slowest']}), recall@10 {figures['recall_at_10']}, {figures['cells_visited']} of "
        f"{figures['cells']} cells; exact {figures['milliseconds']['exact']} ms; built in {figures['build_s']} s"
    )
    for name in ("duplicates", "leaks"):
        print(
            f"{name}: {figures[f'{name}_planted']} planted among {figures['videos']} videos, precision "
            f"{figures[f'{name}_precision']}, recall {figures[f'{name}_recall']}"
        )
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
