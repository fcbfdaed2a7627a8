"""Video-MMMU: accuracy by track, and the knowledge gained from a lecture: adaptation with and without the video."""

import re

import numpy as np

from trainer.grading.benchmark import Benchmark, Rows, accuracy, column
from trainer.grading.figures import Figure, Floats, joined
from trainer.grading.graded import Graded

TRACKS = ("perception", "comprehension", "adaptation")

_said = column("track", "question_type")
_id = column("id")
_SUBJECT = re.compile(r"[a-z]+_(\w+)_[0-9]+")


def track(row: Graded) -> str | None:
    """The track, told by the row or by the name of its source: one file is one track."""
    told = f"{_said(row) or ''} {row.source}".lower()
    return next((name for name in TRACKS if name in told), None)


def subject(row: Graded) -> str | None:
    """The subject inside the row's id: Art of "test_Art_12"."""
    found = _SUBJECT.fullmatch(_id(row) or "")
    return found[1] if found else None


def gain(means: Floats) -> Floats:
    """Knowledge gain (after - before) / (1 - before) * 100, from accuracies [..., (before, after)] in 0..1.

    Infinite or NaN where nothing was left to gain.
    """
    before, after = means[..., 0], means[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Floats = (after - before) / (1.0 - before) * 100.0
    return out


def figures(rows: Rows, blind: Rows) -> dict[str, Figure]:
    """accuracy; and knowledge_gain where the questions of adaptation were also asked without the video."""
    out = accuracy(rows)
    after = {row.sample_id: row for row in rows if track(row) == "adaptation"}
    before = {row.sample_id: row for row in blind if row.sample_id in after}
    if before:
        parts = [[side[name] for name in before] for side in (before, after)]
        found = joined(
            [([row.reward.accuracy or 0.0 for row in part], [row.video_id for row in part]) for part in parts], gain
        )
        if np.isfinite(found.value):
            out["knowledge_gain"] = found
    return out


BENCHMARK = Benchmark(
    "Video-MMMU",
    figures,
    {"track": track, "subject": subject},
    grouped=accuracy,
    note="Open answers count when they equal the truth; the benchmark's own script also takes a truth that is part of "
    "a longer answer. Knowledge gain compares with answers without any frame (--view anchor,blind).",
)
