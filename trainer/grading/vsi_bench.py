"""VSI-Bench: choices by accuracy, numbers by mean relative accuracy, and the mean of its eight tasks."""

import numpy as np

from trainer.grading.benchmark import Benchmark, Rows, column, figure_of, groups
from trainer.grading.figures import Figure, Floats, Join, joined
from trainer.grading.graded import Graded

DIRECTION = "object_rel_direction"
TASKS = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
)
LEVELS = tuple(f"{DIRECTION}_{level}" for level in ("easy", "medium", "hard"))

question_type = column("question_type", "original_question_type")


def points(row: Graded) -> float | None:
    """What an answer earns: a number its mean relative accuracy, a choice 1 or 0."""
    return row.reward.credit if row.task == "number" else row.reward.accuracy


def score(rows: Rows) -> dict[str, Figure]:
    """{"score": mean of the points of one question type}."""
    return figure_of("score", rows, points)


def figures(rows: Rows, blind: Rows) -> dict[str, Figure]:
    """overall, when all eight tasks are there, and the score of each task.

    overall is the mean of the eight task scores, where the score of object_rel_direction is the mean of easy, medium
    and hard. A task that is not complete is left out of the figures by task too, so that no figure has the name of
    another one.
    """
    by_type = groups(rows, question_type)
    had = {name: values(by_type[name]) for name in by_type}
    out: dict[str, Figure] = {}
    for task in TASKS:
        types = LEVELS if task == DIRECTION else (task,)
        if all(name in had for name in types):
            out[task] = joined([had[name] for name in types])
    if set(out) == set(TASKS):
        names = [name for task in TASKS for name in (LEVELS if task == DIRECTION else (task,))]
        overall = joined([had[name] for name in names], weighted([1 / (len(TASKS) * share(name)) for name in names]))
        return {"overall": overall, **out}
    return {**score(rows), **out}


def share(name: str) -> int:
    """How many question types share one task with this one."""
    return len(LEVELS) if name in LEVELS else 1


def weighted(weights: list[float]) -> Join:
    """The weighted sum of the means of parts."""
    fixed = np.array(weights)

    def join(means: Floats) -> Floats:
        out: Floats = means @ fixed
        return out

    return join


def values(rows: Rows) -> tuple[list[float], list[str]]:
    """Points and videos of the responses."""
    had = [(number, row.video_id) for row in rows if (number := points(row)) is not None]
    return [number for number, _ in had], [video for _, video in had]


BENCHMARK = Benchmark("VSI-Bench", figures, {"question type": question_type, "rooms": column("dataset")}, grouped=score)
