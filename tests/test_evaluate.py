"""Evaluation over a store: what is asked and shown, what fails, what is kept, and checkpoints side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.answerer import Refused, Request, Response
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.rewards import DEFAULT_RULE
from pipeline.store import Store
from tests.curation_world import FRAMES, RulePolicy, a_sample, add_samples, add_videos, statistics
from tests.toy_store import curate
from trainer.comparison import labels
from trainer.evaluate import Answered, answer, views_of
from trainer.exams import Asked, Exam, exams, thinned
from trainer.predictions import read
from trainer.runreport.answers import compare

SAMPLES = [
    ("a", "v0", "choice"),
    ("b", "v0", "grounding"),
    ("c", "v1", "grounded_choice"),
    ("d", "v1", "number"),
    ("e", "v2", "choice"),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five samples of split test on three videos: v2 is not cached, and d has no importance view."""
    store = Store(tmp_path / "store", create=True)
    add_videos(store, ["v0", "v1"])
    rows = [a_sample(key, video, task, split="test") for key, video, task in SAMPLES]
    rows.append(a_sample("f", "v0", split="train", source="other"))
    add_samples(store, rows)
    views = []
    for key, video, _ in SAMPLES:
        views += [view(key, video, 0, [0, 6, 12, 18])] + [view(key, video, 1, [2, 3, 5, 7])] * (key != "d")
    store.append("variants", pa.Table.from_pylist(views, schema=schemas.VARIANTS))
    return store


def view(sample: str, video: str, number: int, indices: list[int]) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "video_id": video,
        "variant": number,
        "kind": "importance" if number else "anchor",
        "indices": indices,
        "times": [i / 2 for i in indices],
        "crop": [0.0, 0.0, 1.0, 1.0] if number == 0 else [0.1, 0.1, 0.9, 0.9],
        "scale": 1.0,
        "seed": number,
        "coverage": 0.3,
        "overlap": 0.0,
        "fingerprint": f"{sample}{number}",
    }


class Counting(RulePolicy):
    """Keeps what it was shown; may stop after so many batches, as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.requests: list[Request] = []
        self.batches = 0
        self.stop_after = stop_after

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        if self.batches == self.stop_after:
            raise KeyboardInterrupt
        self.batches += 1
        self.requests += requests
        assert temperature == 0
        return super().answer(requests, temperature=temperature, max_tokens=max_tokens)


def run(store: Store, file: Path, policy: RulePolicy, asked: Asked, batch: int = 2) -> list[dict[str, Any]]:
    reader = FrameReader(store)
    todo = exams(store, reader, asked).todo
    answer(policy, reader, todo, file, max_tokens=9, rule=DEFAULT_RULE, batch=batch)
    return list(read(file))


ALL = Asked(split="test")


def test_every_sample_is_asked_once_a_view_and_what_is_left_out_is_counted(store: Store, tmp_path: Path) -> None:
    found = exams(store, FrameReader(store), ALL)
    asked = [(exam.sample["sample_id"], exam.view) for exam in found.todo]
    assert asked == [
        *(("a", "anchor"), ("a", "importance"), ("b", "anchor"), ("b", "importance")),
        *(("c", "anchor"), ("c", "importance"), ("d", "anchor")),
    ]
    assert found.left_out == {"no importance view": 1, "no cached frames": 2}
    rows = run(store, tmp_path / "p.jsonl", Counting(), ALL)
    assert [(row["sample_id"], row["view"]) for row in rows] == asked
    assert [row["frames"] for row in rows] == [4] * 7
    assert all(row["failure"] == "" and row["response"] for row in rows)


def test_views_are_shown_as_they_were_built(store: Store, tmp_path: Path) -> None:
    policy = Counting()
    run(store, tmp_path / "p.jsonl", policy, Asked(split="test", limit=1))
    reader = FrameReader(store)
    anchor, importance = policy.requests
    assert (anchor.frames == reader.read("v0", [0, 6, 12, 18])).all()
    assert anchor.times.tolist() == [0.0, 3.0, 6.0, 9.0]
    assert importance.times.tolist() == [1.0, 1.5, 2.5, 3.5]
    assert not (importance.frames == reader.read("v0", [2, 3, 5, 7])).all(), "the crop is applied"


def test_a_line_says_what_was_seen_so_that_the_page_of_two_checkpoints_shows_it(store: Store, tmp_path: Path) -> None:
    asked = Asked(split="test", view="all,blind", limit=1)
    files = [tmp_path / "p.jsonl", tmp_path / "q.jsonl"]
    rows, _ = (run(store, file, Counting(), asked) for file in files)
    assert [row["indices"] for row in rows] == [[0, 6, 12, 18], [2, 3, 5, 7], []]
    reader = FrameReader(store)
    assert {row["frames_fingerprint"] for row in rows} == {reader.fingerprint("v0")}
    compared = compare((files[0], files[1]), 9, 9, reader)
    films = {pair["sides"][0]["view"]: pair.get("film") for pair in compared.shown}
    for name, times in (("anchor", [0.0, 3.0, 6.0, 9.0]), ("importance", [1.0, 1.5, 2.5, 3.5])):
        (strip,) = films[name]["strips"]
        assert [frame[1] for frame in strip["frames"]] == times
    assert films["blind"] is None, "it saw nothing"


def test_a_frame_budget_samples_the_anchor_anew_and_thins_other_views(store: Store, tmp_path: Path) -> None:
    policy = Counting()
    run(store, tmp_path / "p.jsonl", policy, Asked(split="test", limit=1, frames=2))
    anchor, importance = policy.requests
    assert anchor.times.tolist() == [FRAMES / 4 / 2, 3 * FRAMES / 4 / 2], "the centres of two halves of 24 frames"
    assert importance.times.tolist() == [1.5, 3.5]
    policy = Counting()
    rows = run(store, tmp_path / "q.jsonl", policy, Asked(split="test", view="anchor", frames=100))
    assert {len(request.frames) for request in policy.requests} == {FRAMES}, "no more than there are"
    assert [row["sample_id"] for row in rows] == list("abcd")
    assert thinned([3, 5, 8, 9], None) == thinned([3, 5, 8, 9], 9) == (3, 5, 8, 9)
    with pytest.raises(UserError, match="at least one frame"):
        exams(store, FrameReader(store), Asked(split="test", frames=0))


def test_a_budget_stays_inside_the_clip_that_a_question_is_about(store: Store) -> None:
    add_samples(store, [a_sample("g", "v0", split="clips", clip=[4.0, 6.0])])
    add_samples(store, [a_sample("h", "v0", split="clips", clip=[4.1, 4.2])])
    found = exams(store, FrameReader(store), Asked(split="clips", view="anchor", frames=3))
    (exam,) = found.todo
    assert exam.shown.indices == (8, 10, 12)
    assert exam.duration_s == 2.0
    assert found.left_out == {"no cached frame in the clip": 1}


def test_blind_needs_no_frames(store: Store, tmp_path: Path) -> None:
    policy = Counting()
    rows = run(store, tmp_path / "p.jsonl", policy, Asked(split="test", view="anchor,blind"))
    assert [row["sample_id"] for row in rows if row["view"] == "blind"] == list("abcde")
    assert {len(r.frames) for r in policy.requests} == {0, 4}


def test_damaged_frames_are_wrong_with_the_reason(store: Store, tmp_path: Path) -> None:
    """Frames that do not match their checksum: their samples stay in the figures, as wrong."""
    store.delete("frames", "video_id = 'v1'")
    pixels = np.zeros((64, 64, 3), np.uint8).tobytes()
    frame = {"video_id": "v1", "height": 64, "width": 64, "codec": "raw", "backend": "test", "pixels": pixels}
    rows = [frame | {"index": i, "time_s": i / 2, "checksum": 1, "fingerprint": "broken"} for i in range(FRAMES)]
    store.append("frames", pa.Table.from_pylist(rows, schema=schemas.FRAMES))
    policy = Counting()
    file = tmp_path / "p.jsonl"
    lines = run(store, file, policy, ALL, batch=3)
    failed = [line for line in lines if line["failure"]]
    assert [line["sample_id"] for line in failed] == ["c", "c", "d"]
    assert all("damaged" in line["failure"] and line["response"] is None for line in failed)
    found = Answered.of_rows(read(file), file).summary("rules")
    assert found["n"] == 7
    assert found["failed"] == {"frames cannot be read": 3}
    assert found["by_task"]["number"]["accuracy"] == 0.0
    assert found["by_task"]["grounded_choice"]["miou"] == 0.0
    again = Counting()
    assert run(store, file, again, ALL, batch=3) == lines
    assert len(again.requests) == 1, "failures are tried again, with those that were answered beside them"


def test_a_view_of_more_frames_than_are_cached_is_a_failure(store: Store) -> None:
    (exam,) = exams(store, FrameReader(store), Asked(split="test", view="anchor", limit=1)).todo
    broken = Exam(exam.sample, exam.view, type(exam.shown)((0, 99)), None, exam.frames)
    good, bad = views_of(FrameReader(store), [exam, broken])
    assert not isinstance(good, str)
    assert isinstance(bad, str)
    assert "99" in bad


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_an_interrupted_evaluation_goes_on_and_ends_as_an_uninterrupted_one(
    store: Store, tmp_path: Path, stop_after: int
) -> None:
    straight = tmp_path / "straight.jsonl"
    run(store, straight, Counting(), ALL)
    file = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(store, file, Counting(stop_after), ALL)
    with file.open("ab") as stream:
        stream.write(b'{"sample_id": "c", "tor')  # what a kill leaves of a line
    policy = Counting()
    run(store, file, policy, ALL)
    assert policy.batches == 4 - stop_after
    assert file.read_bytes() == straight.read_bytes()
    policy = Counting()
    run(store, file, policy, ALL)
    assert policy.batches == 0, "a finished one asks nothing"


def test_answers_of_other_settings_are_not_taken_over(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    run(store, file, Counting(), Asked(split="test", frames=2))
    policy = Counting()
    rows = run(store, file, policy, ALL)
    assert policy.batches == 4
    assert len(rows) == 7
    straight = tmp_path / "straight.jsonl"
    run(store, straight, Counting(), ALL)
    assert file.read_bytes() == straight.read_bytes()
    policy = Counting()
    policy.fingerprint = "another"
    run(store, file, policy, ALL)
    assert policy.batches == 4
    more = Counting()
    more.fingerprint = "another"
    run(store, file, more, Asked(split="test", view="anchor"))
    assert more.batches == 0, "what was answered among others is answered"


def test_a_response_that_was_refused_is_a_failure(store: Store, tmp_path: Path) -> None:
    class Refusing(Counting):
        def answer(self, requests: Sequence[Request], **_: Any) -> Any:
            return [[Refused("too long", "4096 tokens at most", False)] for _ in requests]

    (line,) = run(store, tmp_path / "p.jsonl", Refusing(), Asked(split="test", view="anchor", limit=1))
    assert line["failure"] == "too long: 4096 tokens at most"


def test_figures_are_those_of_the_lines(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    rows = run(store, file, Counting(), ALL)
    found = Answered.of_rows(read(file), file).summary("rules")
    right = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    assert found["accuracy"] == sum(right) / len(right)
    ious = [row["iou"] for row in rows if row["iou"] is not None]
    assert found["miou"] == pytest.approx(sum(ious) / len(ious))
    assert found["format_rate"] == 1.0
    assert found["samples"] == 4
    assert {(part["dataset"], part["view"]) for part in found["benchmarks"]} == {
        ("test", "anchor"),
        ("test", "importance"),
    }
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(), "either --dataset or --split"),
        (Asked(dataset="x", split="test"), "either --dataset or --split"),
        (Asked(split="none"), "no sample"),
        (Asked(split="test", view="middle"), "expected one of anchor, importance, all"),
        (Asked(split="test", source="x"), "no sample of that source; there is test"),
        (Asked(split="test", tag="v1"), "a tag is of a curated dataset"),
    ],
)
def test_bad_questions_say_what_is_expected(store: Store, asked: Asked, message: str) -> None:
    with pytest.raises(UserError, match=message):
        exams(store, FrameReader(store), asked)


def test_views_built_on_other_frames_are_refused(store: Store) -> None:
    row = a_sample("a", "v0", split="train") | statistics()
    row |= {"variants": [view("a", "v0", 0, [0, 3])], "frames_fingerprint": fingerprint("v0", "2 fps")}
    curate(store, "kept", [row])
    assert len(exams(store, FrameReader(store), Asked(dataset="kept")).todo) == 1
    curate(store, "stale", [row | {"frames_fingerprint": "older"}])
    with pytest.raises(UserError, match="no longer those in the cache"):
        exams(store, FrameReader(store), Asked(dataset="stale"))


def test_checkpoints_have_short_names() -> None:
    assert labels(["runs/a/checkpoint-10"]) == ["checkpoint-10"]
    assert labels(["runs/a/checkpoint-10", "runs/b/checkpoint-10"]) == ["a-checkpoint-10", "b-checkpoint-10"]
    assert labels(["Qwen/small", "/models/small"]) == ["Qwen-small", "models-small"]
    assert labels(["./a"]) == ["a"]
    with pytest.raises(UserError, match="each checkpoint once"):
        labels(["a", "./a"])
