"""What goes over the wire to an OpenAI-compatible server, and what is made of what comes back."""

import base64
import contextlib
import json
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answerer import Request, Response
from pipeline.endpoint.served import names_of
from pipeline.endpoint.wire import base_url, identity, messages_of, refused_option, response_of, shown, wire_seed
from pipeline.errors import UserError
from pipeline.prompts import SYSTEM
from tests.endpoint_server import completion


def a_request(frames: int = 3, question: str = "what?", seeds: tuple[int, ...] = (1, 2), seed: int = 0) -> Request:
    """Smooth pictures of odd sizes at times that are not uniform."""
    ramp = np.linspace(0, 255, 50)[:, None, None] * np.linspace(0, 1, 30)[None, :, None]
    pixels = np.stack([ramp * [1, 0.5, 0.1 * k] for k in range(frames)]) if frames else np.empty((0, 50, 30, 3))
    times = np.sort(np.random.default_rng(seed).uniform(0, 99, frames))
    return Request(pixels.astype(np.uint8), times, "choice", question, ["red", "blue"], list(seeds))


def test_frames_stand_behind_their_times_and_before_the_question() -> None:
    request = a_request()
    system, user = messages_of(request)
    assert system == {"role": "system", "content": SYSTEM}
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    assert texts == [*(f"<{t:.1f} seconds>" for t in request.times), "what?\nA. red\nB. blue"]
    assert [part["type"] for part in user["content"]] == ["text", "image_url"] * 3 + ["text"]
    for part, frame in zip(user["content"][1::2], request.frames, strict=True):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/jpeg;base64"
        seen = simplejpeg.decode_jpeg(base64.b64decode(data), "RGB")
        assert np.abs(seen.astype(int) - frame).mean() < 1.5


def test_blind_is_text_alone() -> None:
    assert messages_of(a_request(0))[1] == {"role": "user", "content": "what?\nA. red\nB. blue"}


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_seeds_fit_any_server(one: int, two: int) -> None:
    assert 0 <= wire_seed(one) < 2**31
    assert (wire_seed(one) == wire_seed(two)) == (one % 2**31 == two % 2**31)


def test_the_fingerprint_is_of_the_model() -> None:
    assert identity("a") != identity("b")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/openai/v1", "https://host/openai/v1"),
        ("http://[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_addresses(given: str, used: str) -> None:
    assert base_url(given) == used


@pytest.mark.parametrize(
    "bad", ["", "host:8000", "ftp://host", "http://", "http://h:99999", "http://[::", "http://h/v1?key=secret", "/v1"]
)
def test_what_is_no_address_is_a_user_error(bad: str) -> None:
    with pytest.raises(UserError) as caught:
        base_url(bad)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://secret@host/v1", "http://host/v1?key=secret"])
def test_shown_addresses_hold_no_credentials(url: str) -> None:
    assert shown(url) == "http://host/v1"


def test_a_completion_is_read() -> None:
    body = json.dumps(completion("ä", 7, [-1.0, -0.25])).encode()
    assert response_of(body) == Response("ä", 7, -1.25)
    assert response_of(json.dumps(completion("")).encode()) == Response("", 3, None)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "<answer> B </answer>", "reasoning_content": "hm"}, "<think>hm</think><answer> B </answer>"),
        ({"content": "<answer> B </answer>", "reasoning": "hm"}, "<think>hm</think><answer> B </answer>"),
        ({"content": None, "reasoning_content": "hm, and then"}, "<think>hm, and then"),
        ({"content": "", "reasoning": "hm, and then"}, "<think>hm, and then"),
        ({"content": "B", "reasoning_content": None, "reasoning": ""}, "B"),
        ({"content": "B", "reasoning_content": ["hm"]}, "B"),
    ],
)
def test_thoughts_that_the_server_cut_out_are_put_back(message: dict[str, Any], text: str) -> None:
    """`transformers serve` gave answers without their thoughts: every response failed the format."""
    assert response_of(json.dumps(without("choices", 0, "message", put=message)).encode()).text == text


def without(*path: Any, put: Any = None) -> dict[str, Any]:
    """A completion in which one value is another."""
    body = completion("text", logprobs=[-1.0])
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = put
    return body


CONTENT, LOGPROBS = ("choices", 0, "message", "content"), ("choices", 0, "logprobs")
GARBAGE = {
    "no choices": without("choices"),
    "empty choices": without("choices", put=[]),
    "no message": without("choices", 0, "message"),
    "null content": without(*CONTENT),
    "parts as content": without(*CONTENT, put=[{"type": "text", "text": "x"}]),
    "half a surrogate pair": without(*CONTENT, put="\ud800"),
    "no usage": without("usage"),
    "no count": without("usage", "completion_tokens"),
    "negative count": without("usage", "completion_tokens", put=-1),
    "huge count": without("usage", "completion_tokens", put=10**12),
    "nan as log-probability": without(*LOGPROBS, put={"content": [{"logprob": float("nan")}]}),
    "text as log-probability": without(*LOGPROBS, put={"content": [{"logprob": "-1"}]}),
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_completion_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choices|usage"):
        response_of(json.dumps(body).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES: list[tuple[Any, ...]] = [
    ("choices",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "reasoning"),
    CONTENT,
    LOGPROBS,
    (*LOGPROBS, "content"),
    (*LOGPROBS, "content", 0),
    ("usage",),
    ("usage", "completion_tokens"),
]


@given(st.sampled_from(PLACES), JSON)
def test_any_value_anywhere_is_read_or_refused(path: tuple[Any, ...], put: Any) -> None:
    try:
        response = response_of(json.dumps(without(*path, put=put)).encode())
    except ValueError:
        return
    response.text.encode()
    assert 0 <= response.tokens < 2**31
    assert response.logprob is None or abs(response.logprob) < 1e12


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for read in (response_of, names_of):
        with contextlib.suppress(ValueError):
            read(body)


ASKED = {"seed", "logprobs", "top_k"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"message": "unknown", "param": "logprobs"}, "logprobs"),
        ({"error": {"message": "Unrecognized request argument supplied: top_k", "param": None}}, "top_k"),
        ({"detail": "Unexpected fields in the request: {'top_k'}"}, "top_k"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "no", "input": {"top_k": -1, "logprobs": True}}]}, "seed"),
        ({"detail": [{"loc": ["body", "messages"], "input": {"top_k": -1}}]}, None),
        ({"message": "the prompt is too long", "param": "messages"}, None),
        ({"message": "top_k" * 3}, None),
        ({"message": "temperature must be below 2", "param": "temperature"}, None),
        ({"message": 5, "detail": 7, "param": ["seed"]}, None),
        ("top_k", None),
        (None, None),
    ],
)
def test_the_option_that_a_refusal_names(body: Any, named: str | None) -> None:
    assert refused_option(body, ASKED) == named
