"""How alike two videos are by their frames' embeddings, and two questions by their words."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]
Times = npt.NDArray[np.float64]

SAMPLED = 64
"""Frames of the shorter video that are compared."""

MIN_SHARED = 0.8
"""Share of the shorter video that must lie within the longer one: with less, two empty halves look like a copy."""

_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Alike:
    """How alike two videos are, -1..1, and where on the time of `a` the start of `b` lies, seconds."""

    similarity: float
    shift_s: float


def video_likeness(a: Vectors, times_a: Times, b: Vectors, times_b: Times) -> Alike:
    """How alike two videos are, where one may be a trimmed, re-encoded or resized copy of the other.

    The mean of two cosines over at most SAMPLED evenly spread frames of the shorter video. In any order: of each with
    its best match in the longer one (or of the longer one's frames with theirs, if that is more). In order: of each
    with the best frame within a step of its place, when the shorter video is laid on the longer one at the best of all
    shifts, whole steps at which MIN_SHARED of it fall inside; a step is the usual gap between the longer one's frames.
    The first is hardly touched by where the copy's frames fall between the original's, the second tells clips of one
    scene apart. Copies at another speed or backwards, mirrored ones and small parts of the picture are not found.

    Args:
        a, b: [n, dim] and [m, dim], unit length.
        times_a, times_b: [n] and [m], seconds, ascending.

    Raises:
        ValueError: a video has no frames.
    """
    if not len(a) or not len(b):
        raise ValueError("a video without frames is like no other")
    swapped = times_b[-1] - times_b[0] > times_a[-1] - times_a[0]
    if swapped:
        a, times_a, b, times_b = b, times_b, a, times_a
    some = np.linspace(0, len(b) - 1, min(SAMPLED, len(b))).round().astype(np.int64)
    step = float(np.median(np.diff(times_a))) if len(a) > 1 else 1.0
    cosines = a.astype(np.float32) @ b[some].astype(np.float32).T  # [n, s]
    shifts, placed, exactly = _placed(cosines, (times_a[:, None] - times_b[some][None, :]) / step)
    if not len(shifts):  # frames too far apart to meet: nothing says that these are one video
        return Alike(-1.0, 0.0)
    winner = int(np.lexsort((exactly, placed.round(5)))[-1])
    anyhow = max(float(cosines.max(axis=0).mean()), float(cosines.max(axis=1).mean()))
    shift_s = float(shifts[winner]) * step
    return Alike((anyhow + float(placed[winner])) / 2, -shift_s if swapped else shift_s)


def _placed(cosines: Vectors, lag: Times) -> tuple[npt.NDArray[np.int64], Vectors, Vectors]:
    """The shifts at which enough of the shorter video falls inside, in steps, and the mean cosine at each: with the
    best frame within a step, and with those right at the place.

    Args:
        cosines: [n, s] of frames of the longer and the shorter video.
        lag: [n, s], how many steps the one comes after the other.
    """
    below = np.floor(lag + 1e-6).astype(np.int64)
    low, high = int(below.min()), int(below.max()) + 1
    best = np.full((high - low + 3, lag.shape[1]), -np.inf, np.float32)  # [shifts and one on each side, s]
    columns = np.broadcast_to(np.arange(lag.shape[1]), lag.shape)
    np.maximum.at(best, (below - low + 1, columns), cosines)
    between = lag - below > 1e-3  # a frame between two shifts counts for both
    np.maximum.at(best, (below[between] - low + 2, columns[between]), cosines[between])

    inside = np.isfinite(best[1:-1])
    near = np.maximum(np.maximum(best[:-2], best[1:-1]), best[2:])
    count = inside.sum(axis=1)
    enough = np.flatnonzero(count >= max(1.0, MIN_SHARED * lag.shape[1]))
    totals = (np.where(inside, values, 0.0).sum(axis=1, dtype=np.float64) for values in (near, best[1:-1]))
    placed, exactly = (total[enough] / count[enough] for total in totals)
    return enough + low, placed, exactly


def normalised(text: str) -> str:
    """A text's words: one case and form, without punctuation, articles and spare blanks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(
        c if unicodedata.category(c)[0] in "LNMS" else " " for c in plain
    )  # letters, numbers, marks, symbols
    return " ".join(word for word in kept.split() if word not in _ARTICLES)


def question_likeness(a: str, options_a: Sequence[str], b: str, options_b: Sequence[str]) -> float:
    """How alike two questions are, 0..1; 1 when they differ in case, punctuation, articles or option order only.

    The lesser of two Jaccard indices: of the words and the pairs of neighbouring words ("dog bites man" is not "man
    bites dog"), and of the sets of options. Questions with the same stem but other options are different questions.
    """
    return min(_jaccard(_shingles(a), _shingles(b)), _jaccard(_set(options_a), _set(options_b)))


def _shingles(text: str) -> frozenset[str]:
    words = normalised(text).split()
    return frozenset(words) | {f"{first} {second}" for first, second in pairwise(words)}


def _set(options: Sequence[str]) -> frozenset[str]:
    # Signs count in options: "-3" is not "3".
    return frozenset(" ".join(unicodedata.normalize("NFKC", o).casefold().split()).rstrip(".") for o in options)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0
