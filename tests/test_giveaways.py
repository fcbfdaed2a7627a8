"""Giveaways: questions of the toy world whose text says the answer, planted on wish, and how filters are judged."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.selection import giveaways_found
from cli.ingest import ingest
from pipeline.answerer import Request, Response
from pipeline.errors import UserError
from pipeline.prompts import question_text
from pipeline.rewards import score
from toyworld import POLICY, dataset
from toyworld.questions import GIVEAWAY, MAX_GIVEAWAYS, giveaways, response
from toyworld.scenes import SECONDS, SIZE, Scene, make_scene
from toyworld.tokenizer import build_tokenizer
from trainer.policy import load_policy

CACHED = (np.arange(4 * SECONDS) / 4).tolist()
TOKENIZER = build_tokenizer()
seeds = st.integers(0, 2**32 - 1)


def scene(seed: int) -> Scene:
    return make_scene(np.random.default_rng(seed))


def test_the_default_world_keeps_its_bytes(tmp_path: Path) -> None:
    dataset.write(tmp_path, 8, seed=0, split="train")
    written = {name: sha256((tmp_path / name).read_bytes()).hexdigest()[:16] for name in DEFAULT_WORLD}
    assert written == DEFAULT_WORLD


DEFAULT_WORLD = {
    "train.json": "281d9c91bd510c20",
    "train_grounding.jsonl": "12b945b95c96a902",
    "train.manifest.json": "006de245e701b5db",
}


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, MAX_GIVEAWAYS))
def test_giveaways_are_different_questions_on_real_events_that_say_their_answer(seed: int, count: int) -> None:
    planted = giveaways(scene(seed), np.random.default_rng(seed), count)
    assert len({q.question for q in planted}) == count
    events = {e.span: e for e in scene(seed).events}
    for q in planted:
        assert (q.kind, q.task, q.spans) == (GIVEAWAY, "choice", ())
        event = events[q.evidence[0]]
        assert event.name in q.question and q.question.split().count(event.color) == 2
        assert q.options["ABCD".index(q.answer)] == q.answer_text == event.color
        assert TOKENIZER.unk_token_id not in TOKENIZER(question_text(q.question, q.options))["input_ids"]
        assert score(response(q, CACHED), q.task, q.options, q.answer, q.spans).reward == 1.0
    with pytest.raises(ValueError, match="give 0 to 6"):
        giveaways(scene(seed), np.random.default_rng(seed), MAX_GIVEAWAYS + 1)


@given(st.floats(0, 0.5), st.integers(1, 6), st.integers(1, 400))
def test_giveaways_have_their_share_and_more_clips_change_no_count(share: float, per_clip: int, clips: int) -> None:
    counts = dataset.giveaway_counts(share, per_clip, clips)
    wanted = clips * per_clip * share / (1 - share)
    assert abs(sum(counts) - wanted) <= 1 + 1e-3 * wanted, "shares are taken to a ten-thousandth"
    assert max(counts) - min(counts) <= 1
    assert dataset.giveaway_counts(share, per_clip, clips + 7)[:clips] == counts


def test_giveaways_come_behind_the_questions_of_the_default_world(tmp_path: Path) -> None:
    plain = [p.read_text() for p in dataset.write(tmp_path / "plain", 8, seed=0, split="train")]
    planted = [p.read_text() for p in dataset.write(tmp_path / "planted", 8, seed=0, split="train", giveaway_share=0.2)]
    before, rows = json.loads(plain[0]), json.loads(planted[0])
    assert rows[: len(before)] == before and planted[1] == plain[1]
    extra = rows[len(before) :]
    assert {row["kind"] for row in extra} == {GIVEAWAY} and len(extra) == 10, "a fifth of 50 questions"
    assert all(row["evidence"] for row in extra)
    grown = json.loads(
        dataset.write(tmp_path / "planted", 12, seed=0, split="train", giveaway_share=0.2)[0].read_text()
    )
    assert [row for row in grown if row in extra] == extra, "ids and texts stay when the world grows"
    again = dataset.write(tmp_path / "planted", 8, seed=0, split="train")
    assert [p.read_text() for p in again] == plain, "written anew without them"
    with pytest.raises(ValueError, match=r"0 to 0\.5"):
        dataset.write(tmp_path, 1, seed=0, split="train", giveaway_share=0.6)
    with pytest.raises(ValueError, match="a clip has room for 6"):
        dataset.write(tmp_path, 1, seed=0, split="train", per_clip=8, giveaway_share=0.5)


@pytest.mark.skipif(not POLICY.exists(), reason="the weights are not built")
def test_the_shipped_policy_answers_giveaways_without_a_frame_and_hardly_anything_else() -> None:
    policy = load_policy(POLICY)
    ordinary = [q for clip in range(8) for q in dataset.clip_questions(0, "blind", clip, 5)]
    planted = [q for clip in range(8) for q in dataset.clip_giveaways(0, "blind", clip, 3)]
    nothing = np.zeros((0, SIZE, SIZE, 3), np.uint8), np.zeros(0)
    asked = [
        Request(*nothing, q.task, q.question, list(q.options), [8 * place + draw for draw in range(8)])
        for place, q in enumerate(ordinary + planted)
    ]
    answers = policy.answer(asked, temperature=1.0, max_tokens=24)
    right = [
        np.mean([score(r.text, q.task, q.options, q.answer, q.spans).reward for r in drawn if isinstance(r, Response)])
        for q, drawn in zip(ordinary + planted, answers, strict=True)
    ]
    assert np.mean(right[: len(ordinary)]) <= 0.1 and np.mean(right[len(ordinary) :]) >= 0.75
    assert np.mean(np.array(right[len(ordinary) :]) > 0.5) >= 0.75


def test_only_the_toy_world_takes_giveaways(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a share from 0 to 0\.5"):
        ingest(store=tmp_path / "store", giveaways=0.6)
    with pytest.raises(UserError, match="only the toy world"):
        ingest(tmp_path / "mine.json", store=tmp_path / "store", giveaways=0.2)
    assert not (tmp_path / "store").exists()


def test_precision_and_recall_count_what_was_left_out_as_answered_blind() -> None:
    kinds = {"a": GIVEAWAY, "b": GIVEAWAY, "c": "color", "d": "color", "e": GIVEAWAY, "beyond the pool": GIVEAWAY}
    reasons = {"a": "answered blind", "b": "all right", "c": "answered blind", "d": "", "e": "answered blind"}
    found = giveaways_found(kinds, reasons)
    assert found == {"giveaways": 3, "answered_blind": 3, "precision": 0.6667, "recall": 0.6667}
    nothing = giveaways_found(kinds, {"d": ""})
    assert nothing == {"giveaways": 0, "answered_blind": 0, "precision": None, "recall": None}
