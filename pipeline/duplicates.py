"""Near-duplicates inside a set: videos by the embeddings of their frames, questions on one video by their words."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.likeness import Alike, question_likeness, video_likeness
from pipeline.moments import is_current
from pipeline.overlaps import Found, Overlap, Recipe
from pipeline.runner import Progress
from pipeline.search import Embedded, FrameIndex, embedded, open_index
from pipeline.store import Store

VIDEO_THRESHOLD = 0.955
"""Measured on 150 toy clips at 2 and 4 frames a second: copies reach 0.961 and more, different clips 0.944 at most; at
one frame a second they overlap. Other scorers may need another threshold."""

QUESTION_THRESHOLD = 0.85
"""One word in another form in a sentence of ten stays above it, another word in a short question falls below."""

PROBES = 16
"""Frames of a video whose neighbours are looked up, to find the videos that are worth comparing."""

_NEIGHBOURS = 64  # frames that are looked up for each of them
_VOTES = 0.2  # share of a video's probes that must have a neighbour in the other
_CANDIDATES = 32  # videos at most that one is compared with: those with the most votes
_VIDEOS_A_SEARCH = 64
_CACHED = 512  # videos whose embeddings are held at once

SAMPLE_COLUMNS = ["sample_id", "dataset", "split", "video_id", "question", "options"]

Likeness = dict[tuple[str, str], Alike]
"""{(a, b): how alike}; the shift is where the start of `b` lies on the time of `a`."""


def check_thresholds(video: float, question: float) -> None:
    """Refuse thresholds that mean nothing.

    Raises:
        UserError: outside 0..1.
    """
    for option, value in (("--video-threshold", video), ("--question-threshold", question)):
        if not 0.0 < value <= 1.0:
            raise UserError(f"{option} {value}", "a likeness lies above 0 and at most at 1", "leave it out")


def duplicates(
    store: Store,
    scorer: str,
    video_threshold: float = VIDEO_THRESHOLD,
    question_threshold: float = QUESTION_THRESHOLD,
    progress: Progress | None = None,
) -> Found:
    """Near-duplicate videos and questions inside each set of samples, a set being a split.

    Of two videos the longer is preferred, by whole seconds of its cached frames, then the one of larger frames, then
    that of more bytes; of two questions the one with the smaller id. Questions are compared on one video and on videos
    that are near-duplicates of each other.

    Args:
        scorer: label of the embeddings; "" compares no videos.

    Raises:
        UserError: a bad threshold, or the scorer has embedded nothing.
    """
    check_thresholds(video_threshold, question_threshold)
    samples = store.table("samples", SAMPLE_COLUMNS).to_pylist()
    sets: dict[str, set[str]] = defaultdict(set)
    for row in samples:
        sets[row["video_id"]].add(row["split"])

    def wanted(a: str, b: str) -> bool:
        return bool(sets.get(a, set()) & sets.get(b, set()))

    reader = FrameReader(store)
    size_of = {row["video_id"]: row["bytes"] for row in store.table("videos", ["video_id", "bytes"]).to_pylist()}

    def rank(video: str) -> tuple[int, int, int, str]:
        times, (height, width) = reader.times(video), reader.size(video)
        return round(float(times[0] - times[-1])), -height * width, -size_of.get(video, 0), video

    left_out: dict[str, int] = {}
    alike = compare(store, reader, scorer, sets, wanted, video_threshold, left_out, progress)
    overlaps = []
    for (a, b), found in sorted(alike.items()):
        turned = rank(b) < rank(a)
        pair, shift = ((b, a), -found.shift_s) if turned else ((a, b), found.shift_s)
        overlaps.append(Overlap("video", *pair, "embedding", found.similarity, shift))
    group_of = joined(sets, alike)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in samples:
        groups[row["split"], group_of[row["video_id"]]].append(row)
    for group in groups.values():
        pairs = combinations(sorted(group, key=lambda row: str(row["sample_id"])), 2)
        overlaps += alike_questions(pairs, question_threshold)
    recipe = Recipe("duplicates", scorer, video_threshold, question_threshold)
    return Found(recipe, overlaps, len(sets), len(samples), left_out)


def compare(
    store: Store,
    reader: FrameReader,
    scorer: str,
    videos: Iterable[str],
    wanted: Callable[[str, str], bool],
    threshold: float,
    left_out: dict[str, int],
    progress: Progress | None = None,
) -> Likeness:
    """The pairs of videos that are alike, among those that are embedded; the others are counted in `left_out`."""
    asked = sorted(set(videos))
    if not scorer:
        left_out["not embedded"] = len(asked)
        return {}
    of = embedded(store, scorer)
    index = open_index(store, of)
    usable = [video for video in asked if video in of.rows and is_current(index, reader, video)]
    if len(usable) < len(asked):
        left_out["not embedded"] = len(asked) - len(usable)
    return alike_videos(of, index, reader, usable, wanted, threshold, progress)


def alike_videos(
    of: Embedded,
    index: FrameIndex,
    reader: FrameReader,
    videos: Sequence[str],
    wanted: Callable[[str, str], bool],
    threshold: float,
    progress: Progress | None = None,
) -> Likeness:
    """The wanted pairs of videos whose likeness (likeness.video_likeness) reaches the threshold.

    Not every pair is compared: PROBES frames of each video are looked up in the index, and it is compared with the
    videos that own neighbours at least as near as the threshold of a fifth of them. A copy's frames are nearest to
    those of its original, and all of a trimmed copy's frames have one there, so that one side always finds the other.
    """
    read = lru_cache(maxsize=_CACHED)(lambda video: of.read([video])[video])
    candidates: set[tuple[str, str]] = set()
    usable = set(videos)
    if progress:
        progress.start("looking up videos", len(videos))
    for start in range(0, len(videos), _VIDEOS_A_SEARCH):
        some = videos[start : start + _VIDEOS_A_SEARCH]
        for video, others in _neighbours(some, {v: read(v) for v in some}, index, threshold).items():
            found = [other for other in others if other in usable and wanted(video, other)]
            candidates |= {(min(video, other), max(video, other)) for other in found[:_CANDIDATES]}
        if progress:
            progress.advance(len(some))
    alike: Likeness = {}
    if progress:
        progress.start("comparing videos", len(candidates))
    for a, b in sorted(candidates):
        likeness = video_likeness(read(a), reader.times(a), read(b), reader.times(b))
        if likeness.similarity >= threshold:
            alike[a, b] = likeness
        if progress:
            progress.advance(1)
    if progress:
        progress.stop()
    return alike


def _neighbours(
    videos: Sequence[str],
    vectors: Mapping[str, npt.NDArray[np.floating]],
    index: FrameIndex,
    threshold: float,
) -> dict[str, list[str]]:
    """For each video the others with enough votes, most first. A probe has one vote for each other video."""
    probes = [
        v[np.unique(np.linspace(0, len(v) - 1, PROBES).round().astype(int))]
        for v in (vectors[video] for video in videos)
    ]
    cosines, positions = index.search(np.concatenate(probes), _NEIGHBOURS)
    owners = index.owners(positions)
    found, first = {}, 0
    for video, probe in zip(videos, probes, strict=True):
        rows = range(first, first + len(probe))
        first += len(probe)
        votes = Counter(
            owner for row in rows for owner in set(owners[row][cosines[row] >= threshold].tolist()) if owner >= 0
        )
        ranked = [(index.videos[owner], count) for owner, count in votes.most_common()]
        found[video] = [other for other, count in ranked if other != video and count >= _VOTES * len(probe)]
    return found


def joined(videos: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One name for all videos that pairs connect: {video: the least id of its group}."""
    group = {video: video for video in videos}

    def top(video: str) -> str:
        while group[video] != video:
            group[video] = group[group[video]]
            video = group[video]
        return video

    for a, b in pairs:
        low, high = sorted((top(a), top(b)))
        group[high] = low
    return {video: top(video) for video in group}


def alike_questions(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], threshold: float) -> list[Overlap]:
    """The pairs of samples whose questions are alike. By content: nothing but form differs; by text: a few words."""
    overlaps = []
    for a, b in pairs:
        likeness = question_likeness(a["question"], a["options"], b["question"], b["options"])
        if likeness >= threshold:
            by = "content" if likeness == 1.0 else "text"
            overlaps.append(Overlap("question", a["sample_id"], b["sample_id"], by, likeness))
    return overlaps
