"""Moments for a text: the frames nearest to it, those of one moment counted once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.framereader import FrameReader
from pipeline.scorer import Encoder
from pipeline.search import FrameIndex
from pipeline.windows import split_text


def encode_query(encoder: Encoder, text: str) -> npt.NDArray[np.float32]:
    """Embeddings of a text's windows, float32 [windows, dim]: as questions are encoded for scoring, nothing is cut."""
    return encoder.encode_windows(split_text(text, encoder.count_tokens, encoder.context))


def encode_samples(encoder: Encoder, texts: list[str]) -> npt.NDArray[np.float32]:
    """One embedding a text, of its first window, float32 [n, dim]: queries to measure an index with."""
    return encoder.encode_windows([split_text(text, encoder.count_tokens, encoder.context)[0] for text in texts])


@dataclass(frozen=True)
class Hit:
    """A moment that was found: the frame's cosine with the query, and where it is."""

    video_id: str
    path: str
    time_s: float
    score: float
    index: int


def find(
    index: FrameIndex,
    reader: FrameReader,
    paths: dict[str, str],
    queries: npt.NDArray[np.floating],
    top: int = 12,
    gap_s: float = 2.0,
) -> list[Hit]:
    """The best moments for a query, best first.

    A frame's score is its best cosine over the query's windows. A frame closer than `gap_s` to a better one of the
    same video is the same moment and left out. Frames whose video is no longer cached as it was embedded are left out.

    Args:
        queries: [windows, dim], unit length.
        paths: {video_id: where it lies}.
    """
    hits: list[Hit] = []
    depth = 8 * top
    while True:
        depth = min(depth, len(index))
        cosines, positions = index.search(queries, depth)
        best: dict[int, float] = {}
        for cosine, position in zip(cosines.ravel().tolist(), positions.ravel().tolist(), strict=True):
            if position >= 0:
                best[position] = max(cosine, best.get(position, -1.0))
        hits = []
        for position, score in sorted(best.items(), key=lambda item: (-item[1], item[0])):
            video, frame = index.place(position)
            if not is_current(index, reader, video):
                continue
            time_s = float(reader.times(video)[frame])
            if any(hit.video_id == video and abs(hit.time_s - time_s) < gap_s for hit in hits):
                continue
            hits.append(Hit(video, paths.get(video, ""), time_s, score, frame))
            if len(hits) == top:
                return hits
        if depth == len(index):
            return hits
        depth *= 4


def is_current(index: FrameIndex, reader: FrameReader, video: str) -> bool:
    """Whether a video is cached as it was embedded: as many frames."""
    return video in reader and reader.count(video) == index.counts[video]
