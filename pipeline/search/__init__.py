"""Search over the embeddings of cached frames, and clusters of them. The only package that imports faiss."""

from pipeline.search.clusters import cluster
from pipeline.search.embeddings import Embedded, embedded, pick_scorer, scorers
from pipeline.search.index import (
    EXACT_LIMIT,
    RECALL_AT,
    TARGET_RECALL,
    Blocks,
    FrameIndex,
    Recall,
    build,
    exact,
    open_index,
    recall_of,
    tune,
)

__all__ = [
    "EXACT_LIMIT",
    "RECALL_AT",
    "TARGET_RECALL",
    "Blocks",
    "Embedded",
    "FrameIndex",
    "Recall",
    "build",
    "cluster",
    "embedded",
    "exact",
    "open_index",
    "pick_scorer",
    "recall_of",
    "scorers",
    "tune",
]
