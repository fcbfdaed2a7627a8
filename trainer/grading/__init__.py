"""Grading: the benchmarks' own figures of responses, computed by the functions that reward training.

`grade` scores one response; `report` has the general figures, `benchmarks` those of each dataset with its breakdowns,
`compared` the differences between checkpoints. A benchmark is a small record of figures and breakdowns; `registry`
names them all.
"""

from trainer.grading.general import THRESHOLDS, metrics, recall_at, report
from trainer.grading.graded import Graded, grade, is_withheld
from trainer.grading.registry import BENCHMARKS, benchmarks, compared

__all__ = [
    "BENCHMARKS",
    "THRESHOLDS",
    "Graded",
    "benchmarks",
    "compared",
    "grade",
    "is_withheld",
    "metrics",
    "recall_at",
    "report",
]
