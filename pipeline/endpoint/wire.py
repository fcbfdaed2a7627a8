"""What goes over the wire to an OpenAI-compatible server, and what comes back, as pure functions."""

import base64
import json
import math
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
import simplejpeg

from pipeline.answerer import Request, Response
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.prompts import SYSTEM, question_text

VERSION = 1
"""Of how prompts and pictures are written: part of an endpoint's fingerprint."""

JPEG_QUALITY = 95  # without chroma subsampling, so that thin coloured things keep their colour

OPTIONS: dict[str, Any] = {"logprobs": True, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
"""Asked for beside temperature, length and seed, so that a server samples from the model's own distribution and not by
the defaults that the model was published with. Each is left out once a server has refused it by name; so is `seed`."""

OPEN, CLOSE = "<think>", "</think>"
_THOUGHTS = ("reasoning_content", "reasoning")  # where servers put what stood between the two
_TOKENS_MAX = 2**31 - 1  # the ledger's column is an int32
_LOGPROB_MAX = 1e9  # servers write -9999 for minus infinity; what is far beyond is no log-probability


def base_url(url: str) -> str:
    """The address that paths like /chat/completions follow: with /v1 where the address has no path.

    Raises:
        UserError: not an http or https address.
    """
    try:
        parts = urlsplit(url.strip())
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:  # a port or an IPv6 address that is none
        wrong = True
    if wrong or parts.query or parts.fragment:
        raise UserError(
            f"--endpoint {shown(url)}", "expected an address like http://127.0.0.1:8000/v1", "correct the address"
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


def shown(url: str) -> str:
    """An address as messages show it: without user, password and query."""
    head, mark, rest = url.strip().rpartition("@")
    scheme = head.partition("://")[0] + "://" if "://" in head else ""
    return (scheme + rest if mark else rest).split("?")[0].split("#")[0]


def secrets_of(url: str, key: str | None) -> tuple[str, ...]:
    """What no message may repeat: the key, the address's password, and its login as a header has it."""
    parts = urlsplit(url)
    found = [key or ""]
    if parts.password:
        login = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        found += [parts.password, unquote(parts.password), base64.b64encode(login.encode()).decode()]
    return tuple(sorted(filter(None, set(found)), key=len, reverse=True))


def identity(model: str) -> str:
    """Fingerprint of a served model: its name, and how prompts and pictures are written. Not the server's address."""
    return fingerprint("endpoint", VERSION, model)


def wire_seed(seed: int) -> int:
    """A 63-bit seed as servers take it: its lower 31 bits, which every JSON reader and generator holds exactly."""
    return seed & 0x7FFFFFFF


def messages_of(request: Request) -> list[dict[str, Any]]:
    """System text, then the view's frames, each behind its true time, then the question. Without frames: text alone."""
    question = question_text(request.question, request.options)
    parts: list[dict[str, Any]] = []
    for frame, time_s in zip(request.frames, request.times, strict=True):
        parts.append({"type": "text", "text": f"<{time_s:.1f} seconds>"})
        parts.append({"type": "image_url", "image_url": {"url": picture(frame)}})
    content = [*parts, {"type": "text", "text": question}] if parts else question
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def picture(frame: npt.NDArray[np.uint8]) -> str:
    """A frame, uint8 [H, W, 3], as a JPEG in a data URL."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), JPEG_QUALITY, "RGB", "444")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def response_of(body: bytes) -> Response:
    """Read a chat completion.

    Thoughts that the server has cut out of the text are put back in front of it. The log-probability is the sum over
    the tokens that the server tells of; None when it tells of none.

    Raises:
        ValueError: the bytes are not a chat completion; the message says in what.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:  # nested too deeply
        raise ValueError("the body is not JSON") from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("no choices[0].message")
    text = _text(message)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("choices[0].message.content has half a surrogate pair") from error
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens <= _TOKENS_MAX:
        raise ValueError("no usage.completion_tokens")
    return Response(text, tokens, _logprob(choice.get("logprobs")))


def _text(message: dict[str, Any]) -> str:
    """The whole response. Between its tags stands what the server kept of the thoughts; it may have cut white space."""
    content = message.get("content")
    thoughts = next((message[name] for name in _THOUGHTS if isinstance(message.get(name), str) and message[name]), None)
    if thoughts and not content:  # cut off while it thought
        return f"{OPEN}{thoughts}"
    if not isinstance(content, str):
        raise ValueError(f"choices[0].message.content is no text ({type(content).__name__})")
    return f"{OPEN}{thoughts}{CLOSE}{content}" if thoughts else content


def _logprob(told: Any) -> float | None:
    """Sum of the tokens' log-probabilities; None when the server tells of none."""
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list) or not content:
        return None
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in content]
    known = [float(v) for v in values if isinstance(v, float | int) and abs(v) < _LOGPROB_MAX]
    if len(known) < len(values):
        raise ValueError("choices[0].logprobs.content holds no log-probabilities")
    return math.fsum(known)


def refused_option(body: Any, asked: set[str]) -> str | None:
    """The option among those asked for that a refusal names, if any.

    Args:
        body: the decoded body of the refusal, or its `error` part: `param` counts first, then names in the message, or
            the places that a list of faults gives.
    """
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("error"), dict):
        body = body["error"]
    param = body.get("param")
    if isinstance(param, str) and param in asked:
        return param
    detail = body.get("detail")
    if isinstance(detail, list):  # each fault with its place; what was sent, which it may repeat, is not looked at
        places = [fault.get("loc") for fault in detail if isinstance(fault, dict)]
        words = {str(name) for place in places if isinstance(place, list) for name in place}
    else:
        words = _words(f"{body.get('message')} {detail}")
    return min(words & asked, default=None)


def _words(text: str) -> set[str]:
    """Identifiers in the first characters of a text."""
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text[:500]).split())
