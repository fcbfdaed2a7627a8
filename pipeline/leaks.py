"""Leaks: videos and questions of evaluation sets that also stand in training data."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pipeline.duplicates import (
    QUESTION_THRESHOLD,
    SAMPLE_COLUMNS,
    VIDEO_THRESHOLD,
    alike_questions,
    check_thresholds,
    compare,
)
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.overlaps import Found, Overlap, Recipe
from pipeline.runner import Progress
from pipeline.sources import is_evaluation
from pipeline.store import Store


def leaks(
    store: Store,
    against: Sequence[str],
    scorer: str,
    video_threshold: float = VIDEO_THRESHOLD,
    question_threshold: float = QUESTION_THRESHOLD,
    progress: Progress | None = None,
) -> Found:
    """What training data share with evaluation sets.

    Evaluation is every sample whose split or dataset is named in `against`. Training is every other sample whose split
    is not one for evaluation by its name. A video leaks by content when both have samples on the same file (or wait for
    the same one), by embedding when both have samples on near-duplicate videos. A question leaks when it is asked in
    both, in the same or nearly the same words and options, about such a video. Questions about other videos are not
    compared: benchmarks ask the same of many videos.

    Args:
        against: names of splits and datasets.
        scorer: label of the embeddings; "" compares videos by content only.

    Raises:
        UserError: a name that no sample has, nothing left to train on, a bad threshold, or the scorer has embedded
            nothing.
    """
    check_thresholds(video_threshold, question_threshold)
    samples = store.table("samples", SAMPLE_COLUMNS).to_pylist()
    evaluation, training = sides(samples, against)
    left_out: dict[str, int] = {}

    def wanted(a: str, b: str) -> bool:
        return (a in evaluation and b in training) or (a in training and b in evaluation)

    shared = sorted(evaluation.keys() & training.keys())
    overlaps = [Overlap("video", video, video, "content", 1.0) for video in shared]
    reader = FrameReader(store)
    videos = {*evaluation, *training}
    alike = compare(store, reader, scorer, videos, wanted, video_threshold, left_out, progress)
    for (a, b), found in sorted(alike.items()):
        for first, second, shift in ((a, b, found.shift_s), (b, a, -found.shift_s)):
            if first in training and second in evaluation:
                overlaps.append(Overlap("video", first, second, "embedding", found.similarity, shift))
    for video in list(overlaps):
        pairs = ((t, e) for t in training[video.a] for e in evaluation[video.b])
        overlaps += alike_questions(pairs, question_threshold)
    recipe = Recipe("leaks", scorer, video_threshold, question_threshold, tuple(against))
    return Found(recipe, overlaps, len(videos), len(samples), left_out)


def sides(
    samples: Sequence[dict[str, Any]], against: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]:
    """The samples of evaluation and of training by their videos. Samples of other evaluation splits are in neither.

    Raises:
        UserError: a name that no sample has, or no sample on one of the sides.
    """
    names = {row["split"] for row in samples} | {row["dataset"] for row in samples}
    known = ", ".join(sorted(name for name in names if name)) or "nothing yet"
    for name in against:
        if name not in names:
            raise UserError(
                f"--against {name}", f"no sample has such a split or dataset; there are {known}", "strive-data status"
            )
    evaluation: dict[str, list[dict[str, Any]]] = defaultdict(list)
    training: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in samples:
        if {row["split"], row["dataset"]} & set(against):
            evaluation[row["video_id"]].append(row)
        elif not is_evaluation(row["split"]):
            training[row["video_id"]].append(row)
    if not evaluation or not training:
        side = "training" if evaluation else "evaluation"
        raise UserError(
            f"--against {','.join(against)}", f"no sample is left for {side}; there are {known}", "strive-data ingest"
        )
    return evaluation, training
