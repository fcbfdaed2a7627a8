"""Draws from `transformers serve`, a stock server with a real model: the toy world's policy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.answerer import Request, Response
from pipeline.endpoint import open_endpoint
from pipeline.errors import UserError
from tests.endpoint_server import transformers_serve
from toyworld import POLICY
from toyworld.questions import ask
from toyworld.scenes import render, scene_of
from trainer.policy import load_policy


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with transformers_serve(POLICY, tmp_path_factory.mktemp("serve")) as address_and_copy:
        yield address_and_copy


def toy_requests(clips: int, seeds: tuple[int, ...], blind: bool = False) -> list[Request]:
    """All questions about some held-out scenes, each with frames of the scene."""
    requests = []
    for clip in range(clips):
        scene, indices = scene_of(0, "tests", clip), list(range(2, 96, 8))
        frames = np.stack(list(render(scene, indices)))[: 0 if blind else None]
        times = np.array(indices[: len(frames)]) / 8
        questions = ask(scene, np.random.default_rng(clip))
        requests += [Request(frames, times, q.task, q.question, list(q.options), list(seeds)) for q in questions]
    return requests


def texts_of(answers: Any) -> list[list[str]]:
    """Without white space, which the server changes where it cuts thoughts out."""
    assert all(isinstance(response, Response) for group in answers for response in group)
    return [["".join(response.text.split()) for response in group] for group in answers]


def test_transformers_serve_answers_like_the_policy_itself(stock: tuple[str, Path]) -> None:
    url, copy = stock
    policy = open_endpoint(url, str(copy), concurrency=2, timeout_s=60.0, retries=1)
    requests = toy_requests(2, (0,))
    served = policy.answer(policy.prepare(requests), temperature=0.0, max_tokens=64)
    itself = load_policy(POLICY)
    here = itself.answer(itself.prepare(requests), temperature=0.0, max_tokens=64)
    pairs = list(zip(texts_of(served), texts_of(here), strict=True))
    # Behind thoughts that never end the server writes marks of its own; a JPEG may tip a draw of two equal tokens.
    same = [text[0].startswith(expected[0]) for text, expected in pairs]
    assert np.mean(same) >= 0.9
    assert sum(text == expected for text, expected in pairs) >= 4
    assert all(response.tokens > 3 and response.logprob is None for group in served for response in group)
    assert policy.left_out == {"repetition_penalty", "top_k"}


def test_transformers_serve_draws_by_the_seed_when_asked_one_at_a_time(stock: tuple[str, Path]) -> None:
    url, copy = stock
    policy = open_endpoint(url, str(copy), concurrency=1, timeout_s=60.0, retries=1)
    for blind in (False, True):
        requests = toy_requests(1, (1, 2, 1), blind)
        texts = texts_of(policy.answer(policy.prepare(requests), temperature=1.0, max_tokens=64))
        assert all(group[0] == group[2] for group in texts)
        assert any(group[0] != group[1] for group in texts)


def test_transformers_serve_refuses_another_model(stock: tuple[str, Path]) -> None:
    with pytest.raises(UserError, match="pinned"):
        open_endpoint(stock[0], "another/model")
