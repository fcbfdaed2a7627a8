"""Benchmarks of choices that report accuracy by columns of their own: one entry each."""

import re
from collections.abc import Callable
from typing import Any

from trainer.grading.benchmark import Benchmark, Rows, accuracy, alone, column, figure_of, groups
from trainer.grading.figures import Figure, joined
from trainer.grading.graded import Graded

MVBENCH_TASKS = 20
_CAPTIONS = re.compile(r"^\s*(?:caption|sentence|option|description)\s+\(?[A-Z0-9][.):]", re.IGNORECASE | re.MULTILINE)
_MVBENCH = re.compile(r"mvbench[-_ ]+(\w[\w-]*)", re.IGNORECASE)


def tempcompass_task(row: Graded) -> str:
    """multi-choice, yes_no, caption_matching or captioning, told by what the question looks like."""
    if row.task == "open" or "mc_question" in row.origin:
        return "captioning"
    if _CAPTIONS.search(str(row.origin.get("question", ""))):
        return "caption_matching"
    answer = str(row.origin.get("answer", "")).strip().strip(".").lower()
    return "yes_no" if answer in ("yes", "no") else "multi-choice"


def of_choices(rows: Rows) -> Rows:
    """The responses to choices."""
    return [row for row in rows if row.task == "choice"]


def with_open(rows: Rows) -> dict[str, Figure]:
    """accuracy of the choices; of open questions, apart, the share that equals the truth and ROUGE-L."""
    opened = [row for row in rows if row.task == "open"]
    out = accuracy(of_choices(rows))
    out |= figure_of("open_equal", opened, lambda row: row.reward.accuracy)
    return out | figure_of("open_rouge_l", opened, lambda row: row.reward.credit)


def mvbench_task(row: Graded) -> str | None:
    """The task: a column of the row, or what the name of its source says after "mvbench" (one file is one task)."""
    told = column("task_type", "task")(row)
    if told:
        return told
    found = _MVBENCH.search(row.source)
    return found[1].replace("-", "_") if found else None


def mvbench(rows: Rows) -> dict[str, Figure]:
    """mean_of_tasks, the unweighted mean of the tasks' accuracies, where all responses tell their task; accuracy."""
    tasks = groups(rows, mvbench_task)
    out = accuracy(rows)
    if not tasks or "unknown" in tasks:
        return out
    parts = [([row.reward.accuracy or 0.0 for row in part], [row.video_id for row in part]) for part in tasks.values()]
    return {"mean_of_tasks": joined(parts), **out}


def mvbench_counts(rows: Rows) -> dict[str, int]:
    """How many of the twenty tasks are there."""
    tasks = groups(rows, mvbench_task)
    return {f"tasks of {MVBENCH_TASKS}": len(tasks) - ("unknown" in tasks)}


def inside(name: str, *columns: str) -> Callable[[Graded], str | None]:
    """The axis of a column of an object inside the row; or, where there is none, of the row itself."""

    def group(row: Graded) -> str | None:
        held: Any = row.origin.get(name)
        for about in (held, row.origin):
            value = next((about[c] for c in columns if about.get(c)), None) if isinstance(about, dict) else None
            if isinstance(value, str):
                return value
        return None

    return group


def kind(row: Graded) -> str:
    """multiple-choice or open-ended."""
    return "open-ended" if row.task == "open" else "multiple-choice"


VIDEO_MME = Benchmark(
    "Video-MME",
    alone(accuracy),
    {name: column(name) for name in ("duration", "domain", "sub_category", "task_type")},
    note="Without subtitles.",
)
TEMPCOMPASS = Benchmark(
    "TempCompass",
    alone(with_open),
    {"aspect": column("aspect", "dim"), "task": tempcompass_task},
    note="Officially a language model judges captions, and choices that no rule can read; here captions are compared "
    "by words, and what cannot be read is wrong.",
)
MMVU = Benchmark(
    "MMVU",
    alone(with_open),
    {"kind": kind, "subject": inside("metadata", "subject", "discipline")},
    note="Officially a language model judges open answers; here they are compared by words, apart from the choices.",
)
PERCEPTION_TEST = Benchmark("Perception Test", alone(accuracy), {name: column(name) for name in ("area", "reasoning")})
MVBENCH = Benchmark("MVBench", alone(mvbench), {"task": mvbench_task}, grouped=accuracy, counts=mvbench_counts)
EGOSCHEMA = Benchmark("EgoSchema", alone(accuracy))
