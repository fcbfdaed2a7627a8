"""Draws from OpenAI-compatible servers: real ones on loopback, that work, fail, hang, and answer garbage."""

import asyncio
import gzip
import logging
import sys
import time
from typing import Any

import pytest
from fastapi import Response as Reply
from fastapi.responses import StreamingResponse

from pipeline.answerer import Refused, Response
from pipeline.endpoint import endpoint_fingerprint, open_endpoint
from pipeline.endpoint.client import FAILED, GARBAGE, MAX_BYTES, REFUSED
from pipeline.endpoint.draws import STREAK, EndpointPolicy
from pipeline.errors import UserError
from tests.endpoint_server import Asked, Plan, Server, completion, echo, fault, saying, serving
from tests.test_endpoint_wire import a_request


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STRIVE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def opened(server: Server, **how: Any) -> EndpointPolicy:
    return open_endpoint(server.url, None, **{"concurrency": 8, "timeout_s": 5.0, "retries": 0} | how)


def draw(policy: EndpointPolicy, seeds: int = 1, requests: int = 1, frames: int = 1) -> list[Any]:
    """All results, one after the other."""
    asked = [a_request(frames, f"question {r}", tuple(range(seeds))) for r in range(requests)]
    answers = policy.answer(policy.prepare(asked), temperature=0.7, max_tokens=32)
    assert [len(group) for group in answers] == [seeds] * requests
    return [result for group in answers for result in group]


def test_every_draw_comes_back_in_its_place() -> None:
    with serving() as server:
        results = draw(opened(server), seeds=5, requests=4, frames=2)
    texts = [f"question {r}\nA. red\nB. blue#{seed}" for r in range(4) for seed in range(5)]
    assert results == [Response(text, 3, -0.75) for text in texts]
    assert server.listings == 1
    assert len(server.asked) == 20
    for asked in server.asked:
        assert (asked.body["model"], asked.body["temperature"], asked.body["max_tokens"]) == ("toy", 0.7, 32)
        assert (asked.body["top_p"], asked.body["top_k"], asked.body["logprobs"]) == (1.0, -1, True)
        assert asked.headers["authorization"] == "Bearer none"
    views = {str(asked.body["messages"]) for asked in server.asked}
    assert len(views) == 4  # what a policy sees is the same for all draws of a view


@pytest.mark.parametrize("concurrency", [1, 3, 7])
def test_no_more_requests_at_once_than_allowed(concurrency: int) -> None:
    async def slow(asked: Asked) -> Any:
        await asyncio.sleep(0.02)
        return completion("x")

    with serving(slow) as server:
        draw(opened(server, concurrency=concurrency), seeds=10, requests=3)
        assert len(server.asked) == 30
        assert server.peak == concurrency


def first(n: int, reply: Any, then: Plan = echo) -> Plan:
    """The first n requests get the same reply; those that follow are answered."""

    async def plan(asked: Asked) -> Any:
        return reply if asked.number < n else await then(asked)

    return plan


def test_passing_faults_are_tried_again() -> None:
    with serving(first(2, fault(500, "out of luck"))) as server:
        assert isinstance(draw(opened(server, retries=2))[0], Response)
        assert len(server.asked) == 3


def test_retry_after_is_kept_to() -> None:
    with serving(first(1, fault(429, "slowly", retry_after="2"))) as server:
        policy, begun = opened(server, retries=1), time.monotonic()
        assert isinstance(draw(policy)[0], Response)
        assert time.monotonic() - begun >= 2  # by itself the second try comes within half a second


@pytest.mark.parametrize("status", [307, 401, 404, 408, 429, 500, 503])
def test_a_fault_of_the_server_is_worth_another_try_later(status: int) -> None:
    with serving(first(1, fault(status, "not now"))) as server:
        assert draw(opened(server)) == [Refused(FAILED, f"HTTP {status}: not now", passing=True)]
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_tried_again_and_harms_no_other(status: int) -> None:
    async def plan(asked: Asked) -> Any:
        return fault(status, "the prompt is too long") if asked.seed == 1 else await echo(asked)

    with serving(plan) as server:
        results = draw(opened(server, retries=2), seeds=3)
        assert results[1] == Refused(REFUSED, f"HTTP {status}: the prompt is too long", passing=False)
        assert [type(r) for r in results] == [Response, Refused, Response]
        assert len(server.asked) == 3


def test_an_option_that_is_refused_by_name_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def picky(asked: Asked) -> Any:
        for name in ("top_k", "logprobs"):
            if name in asked.body:
                return fault(400, f"unknown option '{name}'")
        return completion("x")

    with serving(picky) as server, caplog.at_level(logging.WARNING):
        policy = opened(server)
        assert draw(policy, seeds=8) == [Response("x", 3, None)] * 8
        before = len(server.asked)
        draw(policy, seeds=8)
        assert len(server.asked) - before == 8
    assert policy.left_out == {"top_k", "logprobs"}
    assert len(caplog.records) == 2  # each is told of once


async def drip() -> Any:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


async def hang(asked: Asked) -> Any:
    await asyncio.sleep(60)


async def dripping(asked: Asked) -> Any:
    return StreamingResponse(drip())


@pytest.mark.parametrize("plan", [hang, dripping])
def test_a_server_that_hangs_costs_its_time_and_no_more(plan: Plan) -> None:
    with serving(plan) as server:
        policy, begun = opened(server, timeout_s=0.3), time.monotonic()
        result = draw(policy)[0]
        assert (result.reason, result.passing) == (FAILED, True)
        assert time.monotonic() - begun < 3


GARBAGE_BODIES = {
    "text": b"<html>busy</html>",
    "empty": b"",
    "half": b'{"choices": [',
    "null content": completion(None),  # type: ignore[arg-type]
    "parts": completion([{"text": "x"}]),  # type: ignore[arg-type]
    "too long": b" " * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("body", GARBAGE_BODIES.values(), ids=GARBAGE_BODIES.keys())
def test_garbage_is_tried_again_and_then_named(body: Any) -> None:
    reply = Reply(body) if isinstance(body, bytes) else body
    with serving(first(2, reply)) as server:
        result = draw(opened(server, retries=1))[0]
        assert (result.reason, result.passing, len(server.asked)) == (GARBAGE, True, 2)


def test_garbage_that_passes_is_forgotten() -> None:
    with serving(first(1, Reply(b"busy"))) as server:
        assert isinstance(draw(opened(server, retries=1))[0], Response)


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_swells_when_unpacked_is_not_read_to_its_end(status: int) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    with serving(first(1, Reply(bomb, status, {"content-encoding": "gzip"}))) as server:
        result = draw(opened(server))[0]
        assert (result.reason, result.passing) == (GARBAGE, True)
        assert "longer than" in result.message


def test_what_is_not_even_http_is_a_failure() -> None:
    with serving() as server, saying(b"\x00\x01nonsense\r\n\r\n") as url:
        policy = opened(server)
        policy._url = url
        result = draw(policy)[0]
        assert (result.reason, result.passing) == (FAILED, True)


def test_a_broken_server_stops_the_run_and_no_finished_draw_is_lost() -> None:
    async def dies(asked: Asked) -> Any:
        return await echo(asked) if asked.number < 20 else fault(500, "dead")

    with serving(dies) as server:
        policy = opened(server, concurrency=4)
        results = draw(policy, seeds=80)
        assert sum(isinstance(r, Response) for r in results) == 20
        assert all(r.passing for r in results if isinstance(r, Refused))
        assert len(server.asked) <= 20 + STREAK + 4  # the rest is not even asked
        before = len(server.asked)
        with pytest.raises(UserError, match=r"in a row failed.*HTTP 500: dead"):
            draw(policy)
        assert len(server.asked) == before


def test_a_first_batch_without_an_answer_stops_the_run_and_the_next_try_starts_anew() -> None:
    with serving(first(3, fault(503, "loading"))) as server:
        policy = opened(server)
        assert all(isinstance(r, Refused) for r in draw(policy, seeds=3))
        with pytest.raises(UserError, match="loading"):
            draw(policy)
        assert isinstance(draw(policy)[0], Response)


def test_refusals_alone_stop_a_run_only_when_nothing_was_ever_answered() -> None:
    async def never(asked: Asked) -> Any:
        return fault(400, "no pictures here")

    with serving(never) as server:
        policy = opened(server)
        results = draw(policy, seeds=STREAK + 30)
        assert sum(not r.passing for r in results) <= STREAK + 8
        with pytest.raises(UserError, match="no pictures here"):
            draw(policy)
    with serving(first(1, completion("x"), never)) as server:
        policy = opened(server)
        draw(policy, seeds=STREAK + 30)
        assert all(not r.passing for r in draw(policy, seeds=3))


def test_the_key_is_sent_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def telltale(asked: Asked) -> Any:
        return fault(400, f"got {asked.headers['authorization']}")

    with serving(telltale) as server:
        plain = endpoint_fingerprint(server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "second-best")
        monkeypatch.setenv("STRIVE_API_KEY", "sesame-open")
        policy = opened(server)
        result = draw(policy)[0]
        assert server.asked[0].headers["authorization"] == "Bearer sesame-open"
        assert result.message == "HTTP 400: got Bearer ***"
        assert policy.fingerprint == endpoint_fingerprint(server.url) == plain


def test_a_key_that_is_not_taken_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIVE_API_KEY", "sesame")
    with (
        serving(listing=lambda _: fault(401, "sesame is no key")) as server,
        pytest.raises(UserError, match=r"\*\*\* is no key.*STRIVE_API_KEY"),
    ):
        opened(server)


def test_where_nobody_listens_is_a_user_error() -> None:
    with saying() as url:
        pass
    with pytest.raises(UserError, match="start the server") as caught:
        endpoint_fingerprint(url.replace("//", "//me:secret@"))
    assert "secret" not in str(caught.value)


def test_the_model_is_the_only_one_or_has_to_be_named() -> None:
    with serving() as server:
        assert endpoint_fingerprint(server.url) == endpoint_fingerprint(server.url, "toy")
        server.models = ["one", "two"]
        with pytest.raises(UserError, match=r"one, two.*--policy"):
            endpoint_fingerprint(server.url)
        assert endpoint_fingerprint(server.url, "two") != endpoint_fingerprint(server.url, "one")
        assert not server.asked


def test_the_same_model_at_another_address_is_the_same_policy() -> None:
    with serving() as one, serving() as two:
        assert one.url != two.url
        assert endpoint_fingerprint(one.url) == endpoint_fingerprint(two.url)


def test_a_model_that_is_not_listed_is_asked_for_one_token() -> None:
    async def knows_hidden(asked: Asked) -> Any:
        return completion("h") if asked.body["model"] == "hidden" else fault(404, "no such model")

    for listing in (None, lambda _: fault(500, "no cache"), lambda _: Reply(b"garbage")):
        with serving(knows_hidden, listing) as server:
            assert endpoint_fingerprint(server.url, "hidden")
            with pytest.raises(UserError, match=r"--policy other.*(lists toy|lists no model).*no such model"):
                endpoint_fingerprint(server.url, "other")


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}, {"retries": -1}])
def test_bad_options_are_user_errors(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        open_endpoint("http://127.0.0.1:9", **bad)


def test_without_the_extra_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("pipeline.endpoint.") and not n.endswith(".wire")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)  # what an import of it meets where it is not installed
    with pytest.raises(UserError, match=r"pip install 'strive-video\[endpoint\]'"):
        open_endpoint("http://127.0.0.1:9")
