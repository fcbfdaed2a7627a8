"""Answers to benchmarks as lines of a predictions file, and the figures that they come to."""

import json
from collections.abc import Sequence
from typing import Any

from trainer.grading import Graded, benchmarks, grade
from trainer.grading.registry import figures_of


def row(
    dataset: str, task: str, response: str | None, answer: str = "", spans: Sequence[Any] = (), **columns: Any
) -> dict[str, Any]:
    """A line of a predictions file; further columns are those of the original row."""
    line = {"view": "anchor", "sample_id": "", "video_id": "", "source": dataset, "failure": ""} | {
        name: columns.pop(name) for name in ("view", "sample_id", "video_id", "source", "failure") if name in columns
    }
    line |= {"dataset": dataset, "task": task, "answer": answer, "duration_s": None, "origin": json.dumps(columns)}
    line |= {"options": ["red", "blue", "green"] if "choice" in task else [], "spans": [list(s) for s in spans]}
    line["response"] = None if response is None else f"<think></think><answer>{response}</answer>"
    return line


def graded(rows: Sequence[dict[str, Any]]) -> list[Graded]:
    """Rows with ids of their own, each about a video of its own."""
    return [
        grade(r | {"sample_id": r["sample_id"] or f"s{i}", "video_id": r["video_id"] or f"v{i}"})
        for i, r in enumerate(rows)
    ]


def values(rows: Sequence[dict[str, Any]], view: str = "anchor") -> dict[str, float]:
    """The figures of one dataset on one view."""
    found = figures_of(graded(rows))
    return {name: figure.value for name, figure in found[rows[0]["dataset"], view].items()}


def by(rows: Sequence[dict[str, Any]], axis: str, figure: str) -> dict[str, float]:
    """One figure by the groups of an axis."""
    (part,) = benchmarks(graded(rows), {})
    return {group: figures[figure]["value"] for group, figures in part["by"][axis].items()}


NEXTGQA = [
    # (answer, span) against B and 2 - 6 (and 20 - 30): IoP, IoU
    row("nextgqa", "grounded_choice", "B 4 - 8", "B", [(2, 6), (20, 30)], type="CW"),  # .5, 1/3: grounded
    row("nextgqa", "grounded_choice", "B 0 - 10", "B", [(2, 6), (20, 30)], type="CH"),  # .4, .4
    row("nextgqa", "grounded_choice", "A 20 - 30", "B", [(2, 6), (20, 30)], type="TP"),  # 1, 1, but wrong
    row("nextgqa", "grounded_choice", "B 3 - 3", "B", [(2, 6)], type="TN"),  # no length: 1, 0: grounded
    row("nextgqa", "grounded_choice", "B", "B", [(2, 6)], type="TC"),  # right without a span
    row("nextgqa", "grounded_choice", None, "B", [(2, 6)], type="DL", failure="frames cannot be read"),
]
