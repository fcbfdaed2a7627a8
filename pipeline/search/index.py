"""Search over the embeddings of all cached frames.

Few frames are searched exactly. Many are put into an inverted file: vectors lie in cells, and a query looks only into
the cells next to it. How many cells is measured: as few as find nearly all that an exact search finds.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from pipeline.fingerprint import fingerprint
from pipeline.search.embeddings import Embedded
from pipeline.store import Location, Store, objects

VERSION = 1
EXACT_LIMIT = 200_000
"""Frames up to which every vector is compared: about 20 ms a query at 512 numbers a vector on one core."""

TARGET_RECALL = 0.97
"""What the sample has to reach; above the 0.95 that is promised, because a sample is a sample."""

RECALL_AT = 10
_SAMPLE = 64  # queries that recall is measured with
_FEW = 16  # fewer questions than this say little: frames are the queries then
_TRAINING = 64  # vectors a cell that k-means sees
_ROUNDS = 8  # of k-means
_VIDEOS_A_READ = 64
_VECTORS_A_STEP = 65_536

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Blocks = Callable[[], Iterator[npt.NDArray[np.floating]]]
"""Gives the same vectors, in the same order, each time it is called: blocks of [n, dim], unit length."""


@dataclass(frozen=True)
class Recall:
    """How much an index finds of what an exact search finds: the share of the RECALL_AT nearest, 0..1, with so many
    cells looked into, tried with so many queries of one sort (questions or frames)."""

    value: float
    cells: int
    queries: int
    of: str


class FrameIndex:
    """The frames of all embedded videos, one behind the other by video_id, to be searched by vectors.

    recall is None for an exact index, which finds all.
    """

    def __init__(self, index: Any, videos: Sequence[str], counts: Sequence[int], recall: Recall | None) -> None:
        self._index, self.videos, self.recall = index, list(videos), recall
        self.counts = dict(zip(videos, counts, strict=True))
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
        if recall is not None:
            index.nprobe = recall.cells

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: npt.NDArray[np.floating], k: int) -> tuple[Floats, Ints]:
        """The nearest frames of each query.

        Args:
            queries: [q, dim], unit length.

        Returns:
            cosines float32 [q, k], descending, and positions int64 [q, k]; position -1: there was no more to be found.
        """
        cosines, positions = self._index.search(np.ascontiguousarray(queries, np.float32), min(k, len(self)))
        return cosines, positions

    def place(self, position: int) -> tuple[str, int]:
        """(video_id, index of the frame) of a position."""
        video = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self.videos[video], int(position - self._starts[video])

    def owners(self, positions: Ints) -> Ints:
        """The place in `videos` of each position; -1 for position -1."""
        found: Ints = np.searchsorted(self._starts, positions, side="right") - 1
        return found


def open_index(
    store: Store,
    of: Embedded,
    encode: Callable[[list[str]], npt.NDArray[np.floating]] | None = None,
    exact_limit: int = EXACT_LIMIT,
    fresh: Callable[[int], None] = lambda frames: None,
) -> FrameIndex:
    """The index over a scorer's frames: read from the store when it is there and still right, else built and kept.

    It is keyed by the fingerprints of all embeddings in it and by how it is made; the number of cells also by the
    queries that it was measured with.

    Args:
        encode: texts -> float32 [n, dim]. The store's own questions then measure the recall: queries that are texts lie
            further from the frames than frames do. Without it, or with few questions, frames are the queries.
        exact_limit: more frames than this make an approximate index.
        fresh: called with the number of frames before an index is built.
    """
    videos = list(of.rows)

    batches = [videos[start : start + _VIDEOS_A_READ] for start in range(0, len(videos), _VIDEOS_A_READ)]

    def blocks() -> Iterator[npt.NDArray[np.floating]]:
        for some in batches:
            read = of.read(some)
            yield np.concatenate([read[video] for video in some])

    folder = store.location / "indexes"
    name = f"frames-{fingerprint(VERSION, of.key, exact_limit, _TRAINING, _ROUNDS)}"
    data, about = folder / f"{name}.faiss", folder / f"{name}.json"
    with tempfile.TemporaryDirectory() as aside:  # faiss reads a file: an object store's is copied here
        file = data.path if data.local else Path(aside) / data.name
        there = file.is_file() if data.local else objects.fetch(data, file)
        facts = json.loads(objects.read(about) or b"null") if there else None
        if facts is None:
            counts = [len(read[video]) for some in batches for read in [of.read(some)] for video in some]
            fresh(sum(counts))
            _keep(build(blocks, sum(counts), of.dim, exact_limit), data, file)
            facts = {"scorer": of.scorer, "counts": counts, "exact": sum(counts) <= exact_limit, "measured": {}}
            objects.write(about, json.dumps(facts).encode())
            _drop_older(folder, of.scorer, name)
        index = faiss.read_index(str(file), 0 if facts["exact"] else faiss.IO_FLAG_MMAP)
    if facts["exact"]:
        return FrameIndex(index, videos, facts["counts"], None)

    questions = _questions(store) if encode else []
    of_texts = len(questions) >= _FEW
    measured_by = fingerprint(TARGET_RECALL, RECALL_AT, questions if of_texts else _SAMPLE)
    if measured_by not in facts["measured"]:
        queries = encode(questions) if encode and of_texts else _some(blocks, sum(facts["counts"]), _SAMPLE)
        recall = tune(index, blocks, queries, "questions" if of_texts else "frames")
        facts["measured"][measured_by] = asdict(recall)
        objects.write(about, json.dumps(facts).encode())
    return FrameIndex(index, videos, facts["counts"], Recall(**facts["measured"][measured_by]))


def build(blocks: Blocks, total: int, dim: int, exact_limit: int = EXACT_LIMIT) -> Any:
    """A faiss index of inner products over `total` vectors: all of them compared up to `exact_limit`, cells above it.

    Cells: about the square root of the number of vectors, a power of two, found by k-means on evenly picked vectors;
    the vectors in them are stored as fp16, as in the table.
    """
    index: Any = faiss.IndexFlatIP(dim)
    if total > exact_limit:
        cells = 2 ** round(np.log2(total) / 2)
        quantizer = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dim, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.niter, index.cp.spherical = _ROUNDS, True
        index.cp.max_points_per_centroid = _TRAINING
        index.cp.min_points_per_centroid = 1  # small sets in tests; faiss would only warn
        index.train(_some(blocks, total, _TRAINING * cells))
    for block in blocks():
        for start in range(0, len(block), _VECTORS_A_STEP):
            index.add(np.ascontiguousarray(block[start : start + _VECTORS_A_STEP], np.float32))
    return index


def tune(index: Any, blocks: Blocks, queries: npt.NDArray[np.floating], of: str) -> Recall:
    """The fewest cells, doubled from 1, with which the sample of queries reaches TARGET_RECALL against exact search."""
    queries = np.ascontiguousarray(queries, np.float32)
    truth = exact(blocks, queries, min(RECALL_AT, index.ntotal))
    cells = 1
    while True:
        index.nprobe = cells
        value = recall_of(index.search(queries, truth.shape[1])[0], truth)
        if value >= TARGET_RECALL or cells == index.nlist:
            return Recall(value, cells, len(queries), of)
        cells = min(2 * cells, index.nlist)


def exact(blocks: Blocks, queries: Floats, k: int) -> Floats:
    """Cosines of the k nearest of all vectors, float32 [q, k], descending, whatever the number of vectors."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for block in blocks():
        for start in range(0, len(block), _VECTORS_A_STEP):
            part = np.asarray(block[start : start + _VECTORS_A_STEP], np.float32)
            found, _ = faiss.knn(queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
            best = -np.sort(-np.concatenate([best, found], axis=1), axis=1)[:, :k]
    return best


def recall_of(found: Floats, truth: Floats) -> float:
    """Share of the k nearest that were found. Equal cosines count alike: many frames of a still scene are one vector.

    Args:
        found, truth: cosines float32 [q, k] of what was found and of the k nearest.
    """
    return float((found >= truth[:, -1:] - 1e-5).mean())


def _questions(store: Store) -> list[str]:
    """A sample of the store's distinct questions that does not depend on their order and changes little with them."""
    texts = set(store.table("samples", ["question"])["question"].to_pylist())
    return sorted((text for text in texts if text), key=fingerprint)[:_SAMPLE]


def _some(blocks: Blocks, total: int, count: int) -> Floats:
    """Evenly picked vectors, float32 [about count, dim]."""
    step = max(1, total // count)
    picked, seen = [], 0
    for block in blocks():
        picked.append(np.asarray(block[-seen % step :: step], np.float32))
        seen += len(block)
    return np.concatenate(picked)


def _keep(index: Any, data: Location, file: Path) -> None:
    """Write an index to a local file, and from there to an object store if that is where it belongs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    faiss.write_index(index, str(part))
    part.replace(file)
    if not data.local:
        objects.send(file, data)


def _drop_older(folder: Location, scorer: str, name: str) -> None:
    """Remove the indexes of this scorer that the present one replaces."""
    for about in objects.files(folder):
        stem, _, ending = about.rpartition(".")
        if stem == name or ending != "json" or not stem.startswith("frames-"):
            continue
        if json.loads(objects.read(folder / about) or b"{}").get("scorer") == scorer:
            objects.remove(folder / about)
            objects.remove(folder / f"{stem}.faiss")
