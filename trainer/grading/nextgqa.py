"""NExT-QA and NExT-GQA: accuracy by type of question, and how well answers are grounded in the video."""

from trainer.grading.benchmark import Benchmark, Rows, accuracy, alone, column, figure_of, iou, reaches
from trainer.grading.figures import Figure
from trainer.grading.graded import Graded

GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}
GROUNDED = 0.5
"""IoP from which an answer counts as grounded in Acc@GQA."""

_type = column("type")


def question_type(row: Graded) -> str | None:
    """CW, CH, TN, TC, DC, DL or DO. TP (what came before) counts as TN (before and after), as NExT-QA reports it."""
    found = _type(row)
    return "TN" if found == "TP" else found


def question_group(row: Graded) -> str | None:
    """causal, temporal or descriptive: the first letter of the type."""
    found = _type(row)
    return GROUPS.get(found[0]) if found else None


def intersection_over_prediction(span: tuple[float, float], truth: tuple[float, float]) -> float:
    """IoP of two spans in seconds: the share of the predicted one that lies in the true one, 0..1.

    A prediction without length has 1 inside the true span, its ends included, and 0 elsewhere, as the benchmark's own
    script has it: nothing to train on.

    Args:
        span: predicted, start <= end. truth: start < end.
    """
    if span[0] == span[1]:
        return float(truth[0] <= span[0] <= truth[1])
    inside = min(span[1], truth[1]) - max(span[0], truth[0])
    return max(inside, 0.0) / (span[1] - span[0])


def iop(row: Graded) -> float | None:
    """The best IoP over the true spans; 0 where the response names no span, None where the sample has none."""
    if not row.truth:
        return None
    return max(intersection_over_prediction(row.span, true) for true in row.truth) if row.span else 0.0


def grounded_accuracy(row: Graded) -> float | None:
    """Acc@GQA of one response: 1 when the answer is right and its best IoP at least 0.5."""
    found = iop(row)
    return None if found is None else float(row.reward.accuracy == 1.0 and found >= GROUNDED)


def grounded(rows: Rows) -> dict[str, Figure]:
    """acc@gqa, acc@qa, miop, iop@0.3, iop@0.5, miou, iou@0.3, iou@0.5; a response without a span has IoP and IoU 0."""
    out = figure_of("acc@gqa", rows, grounded_accuracy) | figure_of("acc@qa", rows, lambda row: row.reward.accuracy)
    for name, value in (("iop", iop), ("iou", iou)):
        out |= figure_of(f"m{name}", rows, value)
        for threshold in (0.3, 0.5):
            out |= figure_of(f"{name}@{threshold}", rows, reaches(value, threshold))
    return out


def counts(rows: Rows) -> dict[str, int]:
    """Responses without a span, and spans without length, whose IoP is 0 or 1 by where they lie."""
    return {
        "no span": sum(row.span is None for row in rows),
        "span without length": sum(row.span is not None and row.span[0] == row.span[1] for row in rows),
    }


def named(row: Graded) -> str:
    """Whether a response names a span. The benchmark's own script leaves out questions without a prediction."""
    return "none" if row.span is None else "named"


NEXTQA = Benchmark("NExT-QA", alone(accuracy), {"question group": question_group, "question type": question_type})
NEXTGQA = Benchmark(
    "NExT-GQA",
    alone(grounded),
    {"span": named, "question group": question_group, "question type": question_type},
    counts=counts,
    note="The group `named` of `span` has the figures of the official script, which skips questions without a span.",
)
