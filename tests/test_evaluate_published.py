"""Predictions that others published, graded against the annotations they answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import sources
from pipeline.errors import UserError
from pipeline.sources import Draft
from tests.real_data import real_folder
from tests.source_files import write
from trainer.comparison import regrade
from trainer.grading.published import plain, published, response_of

OPTIONS = {"a0": "red", "a1": "blue", "a2": "red", "a3": "green", "a4": "white"}


def question(video: str, qid: str, answer: Any, **columns: Any) -> dict[str, Any]:
    return {"question": "which?", "qid": qid, "answer": answer, "type": "CW", **OPTIONS, **columns} | columns | {
        "video": video, "video_id": video, "frame_count": 9, "width": 8, "height": 8
    }  # fmt: skip


def nextqa(folder: Path) -> Path:
    """Five questions; the answer of the last stands twice among its options."""
    rows = [question(f"v{i}", "1", answer) for i, answer in enumerate([1, 1, 3, 4, 2])]
    return write(folder / "val.csv", [{k: v for k, v in row.items() if k != "video_id"} for row in rows])


def summary(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = found["checkpoints"].values()
    return dict(one)


def test_nextqa_as_published(tmp_path: Path) -> None:
    """A place is looked up in the row's own options, also where equal ones were joined; what is missing is wrong."""
    preds = {
        "v0_1": {"prediction": 1, "answer": 1},
        "v1_1": {"prediction": 2, "answer": 1},
        "v2_1": {"prediction": 3, "answer": 3},
        "v4_1": {"prediction": 0, "answer": 2},
        "v9_1": {"prediction": 0, "answer": 0},
    }
    file = write(tmp_path / "val.preds.json", preds)
    found = summary(regrade([file], annotations=nextqa(tmp_path), format="nextqa"))
    assert found["accuracy"] == 3 / 5, "v4 names the first of two equal options: as right as the second"
    assert found["failed"] == {"no prediction": 1}
    assert found["left_out"] == {"predictions for no question": 1}


def test_nextgqa_with_spans(tmp_path: Path) -> None:
    rows = [question(f"v{i}", "1", "blue") for i in range(3)]
    moments = {f"v{i}": {"duration": 30, "location": {"1": [[2, 6]]}, "fps": 3} for i in range(3)}
    write(tmp_path / "gsub_test.json", moments)
    annotations = write(tmp_path / "test.csv", [{k: v for k, v in row.items() if k != "video"} for row in rows])
    preds = [
        {"id": "v0/1", "prediction": 1, "span": [4.0, 8.0]},
        {"id": "v1_1", "response": "<answer>B 0 - 10</answer>"},
    ]
    found = summary(regrade([write(tmp_path / "p.jsonl", preds)], annotations=annotations))
    (part,) = found["benchmarks"]
    assert part["figures"]["acc@gqa"]["value"] == pytest.approx(1 / 3)
    assert part["figures"]["miop"]["value"] == pytest.approx((0.5 + 0.4) / 3)
    assert part["by"]["span"]["named"]["acc@gqa"]["value"] == 0.5


@pytest.mark.parametrize("moment", [0.0, 1e-7, 0.1 + 0.2, 12345.678901234567, 5])
def test_moments_keep_all_their_digits(moment: float) -> None:
    text = plain(moment)
    assert "e" not in text
    assert float(text) == moment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": 1}, "none of its 1 keys"),
        ([{"prediction": 1}], "an object with an id"),
        ({"v0_1": {"answer": 1}}, "expected a response, a prediction or a span"),
        ({"v0_1": {"prediction": 1, "span": [1, "nan"]}}, "expected moments in seconds"),
        ({"v0_1": {"prediction": 1, "span": [1]}}, "v0/1"),
        ("text", "expected a JSON object"),
    ],
)
def test_bad_predictions_say_what_is_expected(tmp_path: Path, content: Any, message: str) -> None:
    """An entry with an answer alone is not taken for a prediction: in NExT-QA's files that is the truth."""
    with pytest.raises(UserError, match=message):
        published(write(tmp_path / "p.json", content), nextqa(tmp_path))


def test_without_annotations_a_line_needs_its_truth(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    line = {"task": "choice", "view": "anchor", "options": ["red", "blue"], "answer": "A", "spans": [], "response": "A"}
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"response": None, "failure": "gone"}) + "\n")
    assert summary(regrade([file]))["accuracy"] == 0.5
    file.write_text(json.dumps(line) + "\n{}\n")
    with pytest.raises(UserError, match="line 2: has no task"):
        regrade([file])
    file.write_text(json.dumps(line | {"answer": "Z"}) + "\n")
    with pytest.raises(UserError, match=r"line 1: the true answer 'Z'"):
        regrade([file])


def test_the_published_predictions_of_nextqa_score_what_their_authors_report() -> None:
    """HGA on the validation questions: 49.74 in all; 46.26, 50.74 and 59.33 by group."""
    folder = real_folder("annotations") / "nextqa"
    found = summary(regrade([folder / "HGA-bert-ft-h256-val.preds.json"], annotations=folder / "val.csv"))
    assert found["samples"] == 4996
    assert found["failed"] == {}
    assert round(found["accuracy"], 4) == 0.4974
    (part,) = found["benchmarks"]
    groups = {
        name: round(100 * figures["accuracy"]["value"], 2) for name, figures in part["by"]["question group"].items()
    }
    assert groups == {"causal": 46.26, "temporal": 50.74, "descriptive": 59.33}


def test_perfect_predictions_of_nextgqa_score_one(tmp_path: Path) -> None:
    """The true answers and last true moments of the real test questions."""
    folder = real_folder("annotations") / "nextgqa"
    source, rows = sources.read(folder / "test.csv")
    drafts = [draft for draft in source.drafts(rows) if isinstance(draft, Draft)]
    preds = {draft.row_id: {"prediction": draft.answer, "span": list(draft.spans[-1])} for draft in drafts}
    assert response_of(preds[drafts[0].row_id], drafts[0]).startswith("<answer> ")
    file = write(tmp_path / "perfect.json", preds)
    found = summary(regrade([file], annotations=folder / "test.csv"))
    (part,) = found["benchmarks"]
    assert part["counts"]["n"] == 5553
    found = {name: figure["value"] for name, figure in part["figures"].items()}
    assert found.pop("miou") == pytest.approx(1.0, abs=1e-4), "some true moments begin at -0.1 s: no answer can"
    assert found.pop("miop") == 1.0
    assert set(found.values()) == {1.0}
