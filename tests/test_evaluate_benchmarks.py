"""Each benchmark's own figures, on cases that were worked out by hand, at the thresholds too."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.rewards import score
from tests.answer_rows import NEXTGQA, by, graded, row, values
from trainer.grading import BENCHMARKS, benchmarks, compared, is_withheld
from trainer.grading.registry import benchmark_of

DIRECTIONS = [f"object_rel_direction_{level}" for level in ("easy", "medium", "hard")]
NUMBERS = ["object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"]
VSI = [
    # Numbers: 100 against 100, 105, 110 and 150: errors of 0, exactly .05, .10 and .50: MRA 1, 1, .9 and .1.
    *(
        row("vsi-bench", "number", said, "100", question_type=kind)
        for kind, said in zip(NUMBERS, ("100", "105", "110", "150"), strict=True)
    ),
    row("vsi-bench", "choice", "A", "A", question_type="object_rel_distance"),
    row("vsi-bench", "choice", "B", "A", question_type="object_rel_distance"),
    row("vsi-bench", "choice", "B", "A", question_type="route_planning"),
    row("vsi-bench", "choice", "C", "C", question_type="obj_appearance_order"),
    # Direction: easy 1 of 1, medium 0 of 1, hard 1 of 4: the mean of the levels is 5/12, of the answers 1/3.
    row("vsi-bench", "choice", "A", "A", question_type=DIRECTIONS[0]),
    row("vsi-bench", "choice", "A", "B", question_type=DIRECTIONS[1]),
    row("vsi-bench", "choice", "A", "A", question_type=DIRECTIONS[2]),
    *(row("vsi-bench", "choice", "A", "B", question_type=DIRECTIONS[2]) for _ in range(3)),
]


def test_vsi_bench_is_the_mean_of_eight_tasks() -> None:
    found = values(VSI)
    expected = [1.0, 1.0, 0.9, 0.1, 0.5, (1 + 0 + 0.25) / 3, 0.0, 1.0]
    assert found["overall"] == pytest.approx(sum(expected) / 8)
    assert next(iter(found)) == "overall"
    assert [value for name, value in found.items() if name != "overall"] == pytest.approx(expected)
    assert found["object_rel_direction"] == pytest.approx(5 / 12)
    assert by(VSI, "question type", "score")["object_rel_direction_hard"] == 0.25


def test_vsi_bench_with_a_task_missing_has_no_overall() -> None:
    found = values([r for r in VSI if "route_planning" not in r["origin"] and DIRECTIONS[1] not in r["origin"]])
    assert "overall" not in found
    assert "route_planning" not in found
    assert "object_rel_direction" not in found, "the mean of two levels is not the benchmark's score"
    assert found["object_counting"] == 1.0
    assert "score" in found


@pytest.mark.parametrize(
    ("said", "mra"),
    [("100", 1.0), ("105", 1.0), ("95", 1.0), ("105.1", 0.9), ("110", 0.9), ("150", 0.1), ("150.5", 0.0), ("0", 0.0),
     ("many", 0.0), ("", 0.0)],
)  # fmt: skip
def test_mean_relative_accuracy_at_the_thresholds(said: str, mra: float) -> None:
    """A relative error of exactly .05 still has the highest level (<=); one a little above has not."""
    found = values([row("vsi-bench", "number", said, "100", question_type="object_counting")])
    assert found["object_counting"] == pytest.approx(mra)


def test_nextqa_by_type() -> None:
    kinds = ["CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO"]
    lines = [row("nextqa", "choice", "A" if i % 2 else "B", "A", type=kind) for i, kind in enumerate(kinds)]
    assert values(lines) == {"accuracy": 0.5}
    assert by(lines, "question group", "accuracy") == pytest.approx(
        {"causal": 0.5, "descriptive": 2 / 3, "temporal": 1 / 3}
    )
    assert by(lines, "question type", "accuracy")["TN"] == 0.5, "TN wrong, TP right: TP counts as TN"


def test_video_mme_by_its_columns() -> None:
    lines = [
        row("video-mme", "choice", said, "A", duration=duration, domain="Art", sub_category="x", task_type="OCR")
        for said, duration in (("A", "short"), ("(A)", "short"), ("A. red", "medium"), ("red", "long"), ("B", "long"))
    ]
    assert values(lines) == {"accuracy": 0.8}
    assert by(lines, "duration", "accuracy") == {"short": 1.0, "medium": 1.0, "long": 0.5}
    assert by(lines, "domain", "accuracy") == {"Art": 0.8}


def test_tempcompass_by_aspect_and_task() -> None:
    asked = [
        ("choice", "A", "A", {"aspect": "speed", "question": "How?\nA. fast\nB. slow", "answer": "A. fast"}),
        ("choice", "B", "A", {"dim": "speed", "question": "Is it slow?", "answer": "yes"}),
        (
            "choice",
            "B",
            "B",
            {"aspect": "order", "question": "Which?\nOption 1: a\nOption 2: b", "answer": "Option 2: b"},
        ),
        ("choice", "A", "B", {"aspect": "order", "question": "Write", "mc_question": "Which?\nA. a\nB. b"}),
        ("open", "a slow car", "a slow car", {"aspect": "speed", "question": "Write"}),
        ("open", "a slow", "a slow car", {"aspect": "speed", "question": "Write"}),
    ]
    lines = [row("tempcompass", *head) | {"origin": json.dumps(origin)} for *head, origin in asked]
    found = values(lines)
    assert found["accuracy"] == 0.5
    assert found["open_equal"] == 0.5
    assert found["open_rouge_l"] == pytest.approx((1 + 0.8) / 2)
    assert by(lines[:4], "task", "accuracy") == {
        "multi-choice": 1.0,
        "yes_no": 0.0,
        "caption_matching": 1.0,
        "captioning": 0.0,
    }
    assert by(lines, "aspect", "accuracy") == {"speed": 0.5, "order": 0.5}


def test_video_mmmu_gains_knowledge_from_the_video() -> None:
    def asked(track: str, said: Sequence[str], view: str) -> list[dict[str, Any]]:
        return [
            row("video-mmmu", "choice", letter, "A", view=view, source=f"video-mmmu-{track}", id=f"test_Art_{i}",
                question_type="multiple-choice", sample_id=f"{track}{i}", video_id=f"v{i}")
            for i, letter in enumerate(said)
        ]  # fmt: skip

    with_video = asked("Perception", "AAAB", "anchor") + asked("Adaptation", "AAAB", "anchor")
    blind = asked("Adaptation", "ABBB", "blind")
    found = values(with_video + blind)
    assert found["accuracy"] == 0.75
    assert found["knowledge_gain"] == pytest.approx((0.75 - 0.25) / (1 - 0.25) * 100)
    assert "knowledge_gain" not in values(with_video)
    assert "knowledge_gain" not in values(with_video + asked("Adaptation", "AAAA", "blind")), "nothing left to gain"
    assert by(with_video, "track", "accuracy") == {"perception": 0.75, "adaptation": 0.75}
    assert by(with_video, "subject", "accuracy") == {"Art": 0.75}


def test_mmvu_keeps_open_answers_apart() -> None:
    lines = [
        row("mmvu", "choice", "A", "A", metadata={"subject": "Art"}),
        row("mmvu", "choice", "A", "B", metadata={"subject": "Law"}),
        row("mmvu", "open", "Ash glaze", "ash glaze", metadata={"subject": "Art"}),
    ]
    found = values(lines)
    assert (found["accuracy"], found["open_equal"]) == (0.5, 1.0)
    assert by(lines, "subject", "accuracy") == {"Art": 1.0, "Law": 0.0}
    (part,) = benchmarks(graded(lines), {})
    assert set(part["by"]["kind"]) == {"multiple-choice", "open-ended"}


def test_mvbench_is_the_mean_of_its_tasks_whatever_their_sizes() -> None:
    lines = [row("mvbench", "choice", "A", "A", source="mvbench-action_antonym")]
    lines += [row("mvbench", "choice", "B", "A", source="mvbench-state-change") for _ in range(3)]
    found = values(lines)
    assert (found["mean_of_tasks"], found["accuracy"]) == (0.5, 0.25)
    assert by(lines, "task", "accuracy") == {"action_antonym": 1.0, "state_change": 0.0}
    (part,) = benchmarks(graded(lines), {})
    assert part["counts"]["tasks of 20"] == 2
    assert "mean_of_tasks" not in values([*lines, row("mvbench", "choice", "A", "A", source="mvbench")])


def test_perception_test_by_area_and_reasoning() -> None:
    lines = [
        row("perception-test", "choice", "A", "A", area="memory", reasoning="descriptive"),
        row("perception-test", "choice", "A", "B", area="physics", reasoning="predictive"),
    ]
    assert by(lines, "area", "accuracy") == {"memory": 1.0, "physics": 0.0}
    assert by(lines, "reasoning", "accuracy") == {"descriptive": 1.0, "predictive": 0.0}


def test_withheld_answers_are_counted_and_not_graded() -> None:
    lines = [row("egoschema", "choice", "A", "A"), row("egoschema", "choice", "A", "")]
    assert [is_withheld(line) for line in lines] == [False, True]
    (part,) = benchmarks(graded(lines[:1]), {("egoschema", "anchor"): 1})
    assert part["figures"]["accuracy"] == {
        "value": 1.0,
        "low": pytest.approx(0.2065, abs=1e-4),
        "high": 1.0,
        "n": 1,
        "interval": "wilson",
    }
    assert part["counts"]["withheld"] == 1
    (none,) = benchmarks([], {("egoschema", "anchor"): 5})
    assert (none["figures"], none["counts"]["withheld"]) == ({}, 5)


def test_other_datasets_have_the_general_figures_by_task() -> None:
    lines = [
        row("mine", "choice", "A", "A"),
        row("mine", "number", "110", "100"),
        row("mine", "grounding", "0 - 5", spans=[(0, 10)]),
    ]
    found = values(lines)
    assert found["accuracy"] == 0.5
    assert found["credit"] == 0.9
    assert found["miou"] == 0.5
    (part,) = benchmarks(graded(lines), {})
    assert {task: list(figures) for task, figures in part["by"]["task"].items()} == {
        "choice": ["accuracy"],
        "grounding": ["miou", "r1@0.3", "r1@0.5", "r1@0.7"],
        "number": ["accuracy", "credit"],
    }


@pytest.mark.parametrize("name", ["VSI-Bench", "vsibench", "vsi_bench", "videomme", "tempcompass", "Video-MMMU"])
def test_a_benchmark_is_found_whatever_its_name_looks_like(name: str) -> None:
    """The evaluation files of Video-R1 name benchmarks without hyphens."""
    assert benchmark_of(name).title
    assert benchmark_of("toyworld").title == ""


def test_metrics_are_the_rewards() -> None:
    """What is measured is what is trained: accuracy, IoU and credit are the parts of the reward, to the bit."""
    lines = [*VSI, *NEXTGQA]
    for line, one in zip(lines, graded(lines), strict=True):
        truth = line["task"], line["options"], line["answer"], line["spans"]
        assert one.reward == score(line["response"] or "", *truth)


def test_checkpoints_side_by_side() -> None:
    first = graded([row("nextqa", "choice", said, "A", type="CW") for said in "AABB"])
    second = graded([row("nextqa", "choice", said, "A", type="CW") for said in "AAAB"])
    (one,) = compared({"base": first, "trained": second})
    assert (one["dataset"], one["view"], one["figure"], one["n"]) == ("nextqa", "anchor", "accuracy", 4)
    assert one["values"] == [0.5, 0.75]
    (gap,) = one["differences"]
    assert gap["difference"] == 0.25
    assert 0.0 <= gap["low"] <= 0.25 <= gap["high"] <= 0.75
    with pytest.raises(ValueError, match="same questions"):
        compared({"base": first, "trained": second[:-1]})
    assert all(benchmark.title for benchmark in BENCHMARKS.values())
