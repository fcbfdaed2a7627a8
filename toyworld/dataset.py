"""Clips as H.264 files with their annotations, in the two layouts that `strive-data ingest` reads."""

import json
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.fingerprint import fingerprint, seed_of
from pipeline.prompts import LETTERS
from toyworld.questions import GIVEAWAYS, KINDS, MAX_GIVEAWAYS, Question, ask, giveaways
from toyworld.scenes import FPS, SIZE, WORLD_VERSION, Pixels, render, scene_of

# No B-frames: every frame is shown in the order it is stored, so the file needs no edit list.
# No look-ahead: with it, x264 now and then encodes the same pixels to other bytes.
ENCODER = {
    "preset": "veryfast",
    "crf": "20",
    "bf": "0",
    "g": "24",
    "threads": "1",
    "x264-params": "mbtree=0:rc-lookahead=0",
}
PROBLEM_TYPES = {"choice": "multiple choice", "number": "numerical"}


MAX_SHARE = 0.5
"""Of giveaways among all questions."""

FIRST_GIVEAWAY = 1_000_000
"""Their problem ids count from here, so that those of the other questions are the same with and without them."""


def write(
    folder: Path, clips: int, seed: int, split: str, per_clip: int = 5, giveaway_share: float = 0.0
) -> list[Path]:
    """Write the clips and annotations of one split.

    Files: folder/videos/*.mp4, folder/<split>.json (choice and number questions, Video-R1 layout) and
    folder/<split>_grounding.jsonl (spans, generic layout). Everything is a function of (seed, split, clip number). A
    clip's file name holds a hash of what determines it and appears only when complete; the manifest comes last. So a
    second call with the same arguments writes nothing, and a call for more clips writes only those.

    Args:
        per_clip: questions a clip, 1 to 8; over the split all kinds are equally frequent.
        giveaway_share: share of all questions, 0 to 0.5, that say their answer; they come on top of `per_clip`, behind
            the choice and number questions.

    Returns:
        The two annotation files.

    Raises:
        ValueError: per_clip or giveaway_share is out of range.
    """
    if not 1 <= per_clip <= len(KINDS):
        raise ValueError(f"per_clip is {per_clip}: there are {len(KINDS)} kinds of questions, give 1 to {len(KINDS)}")
    giveaway_counts(giveaway_share, per_clip, 1)
    folder = Path(folder)
    questions_file, grounding_file = folder / f"{split}.json", folder / f"{split}_grounding.jsonl"
    manifest = folder / f"{split}.manifest.json"
    videos = [clip_path(folder, seed, split, clip) for clip in range(clips)]
    state: dict[str, Any] = {"clips": clips, "world": _identity(seed, split), "per_clip": per_clip}
    if giveaway_share:
        state["giveaways"] = [giveaway_share, *GIVEAWAYS]
    complete = all(p.exists() for p in [*videos, questions_file, grounding_file])
    if complete and manifest.exists() and json.loads(manifest.read_text()) == state:
        return [questions_file, grounding_file]

    manifest.unlink(missing_ok=True)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    grounding: list[dict[str, Any]] = []
    for clip, video in enumerate(videos):
        if not video.exists():
            encode(render(scene_of(seed, split, clip)), video)
        path = video.relative_to(folder).as_posix()
        for question in clip_questions(seed, split, clip, per_clip):
            if question.task in PROBLEM_TYPES:
                rows.append(_video_r1_row(len(rows), path, question))
            else:
                grounding.append(_generic_row(path, split, question))
    for clip, count in enumerate(giveaway_counts(giveaway_share, per_clip, clips)):
        path = videos[clip].relative_to(folder).as_posix()
        for k, question in enumerate(clip_giveaways(seed, split, clip, count)):
            rows.append(_video_r1_row(FIRST_GIVEAWAY + clip * MAX_GIVEAWAYS + k, path, question))
    _replace(questions_file, json.dumps(rows, indent=1))
    _replace(grounding_file, "".join(json.dumps(row) + "\n" for row in grounding))
    _replace(manifest, json.dumps(state))
    return [questions_file, grounding_file]


def clip_path(folder: Path, seed: int, split: str, clip: int) -> Path:
    """Where a clip lies."""
    return Path(folder) / "videos" / f"{split}-{_identity(seed, split)[:8]}-{clip:05d}.mp4"


def clip_questions(seed: int, split: str, clip: int, per_clip: int) -> list[Question]:
    """The questions of one clip: kinds take turns from clip to clip, so that all are equally frequent."""
    rng = np.random.default_rng(seed_of("toyworld questions", WORLD_VERSION, seed, split, clip))
    turn = {KINDS[(clip * per_clip + k) % len(KINDS)] for k in range(per_clip)}
    return [q for q in ask(scene_of(seed, split, clip), rng) if q.kind in turn]


def clip_giveaways(seed: int, split: str, clip: int, count: int) -> list[Question]:
    """The giveaways of one clip, drawn apart from its other questions, which stay what they are."""
    rng = np.random.default_rng(seed_of("toyworld giveaways", WORLD_VERSION, seed, split, clip))
    return giveaways(scene_of(seed, split, clip), rng, count)


def giveaway_counts(share: float, per_clip: int, clips: int) -> list[int]:
    """Giveaways on each clip, so that they are `share` of all questions (rounded down); more clips change no count.

    Raises:
        ValueError: the share is out of range, or asks for more than a clip has room for.
    """
    if not 0 <= share <= MAX_SHARE:
        raise ValueError(f"giveaways {share}: give a share of all questions, 0 to {MAX_SHARE}")
    exact = Fraction(share).limit_denominator(10_000)
    rate = per_clip * exact / (1 - exact)
    if rate > MAX_GIVEAWAYS:
        raise ValueError(f"giveaways {share} at {per_clip} questions a clip: a clip has room for {MAX_GIVEAWAYS}")
    return [int((clip + 1) * rate) - int(clip * rate) for clip in range(clips)]


def _identity(seed: int, split: str) -> str:
    return fingerprint("toyworld clip", WORLD_VERSION, seed, split, ENCODER)


def encode(frames: Pixels, path: Path) -> None:
    """Write frames [n, 96, 96, 3] as an H.264 mp4 at 8 frames a second; the file appears only when it is complete."""
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.replace(part, path)


def _video_r1_row(problem_id: int, path: str, question: Question) -> dict[str, Any]:
    options = [f"{LETTERS[i]}. {text}" for i, text in enumerate(question.options)]
    return {
        "problem_id": problem_id,
        "problem": question.question,
        "data_type": "video",
        "problem_type": PROBLEM_TYPES[question.task],
        "options": options or None,
        "solution": f"<answer>{question.answer}</answer>",
        "path": path,
        "data_source": "toyworld",
        "kind": question.kind,
        "evidence": _lists(question.evidence),
    }


def _generic_row(path: str, split: str, question: Question) -> dict[str, Any]:
    return {
        "video": path,
        "question": question.question,
        "options": list(question.options) or None,
        "answer": question.answer or None,
        "spans": _lists(question.spans),
        "task": question.task,
        "split": split,
        "kind": question.kind,
        "evidence": _lists(question.evidence),
    }


def _lists(spans: Iterable[tuple[float, float]]) -> list[list[float]]:
    return [list(span) for span in spans]


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
