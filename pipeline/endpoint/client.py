"""The client of an OpenAI-compatible server: every answer is bounded in time and bytes, every fault has a class.

The only module that imports `openai`, which is an optional extra.
"""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

import openai

from pipeline.answerer import Refused
from pipeline.safetext import HIDDEN

MAX_BYTES = 8 << 20
"""Longest body that is read, decompressed: some thirty thousand tokens with their log-probabilities."""

FAILED = "the endpoint failed"
GARBAGE = "garbage from the endpoint"
REFUSED = "refused by the endpoint"

_NOT_THE_REQUEST = {401, 403, 404, 405, 407, 408, 409, 425, 429}  # about the server, the key or the moment
_MESSAGE = 300  # characters kept of what a server says

# The HTTP library that the SDK brings along: httpx2, or httpx before its third version.
_http: Any = import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """Reads whole answers, of at most MAX_BYTES and within `timeout_s`.

    An answer of success that `check` finds fault with (ValueError) counts as one that never came, like one that is too
    long: the SDK asks again. Redirects are not followed: the key is for the address that the user gave.
    """

    def __init__(self, timeout_s: float, check: Callable[[bytes], object]) -> None:
        super().__init__(timeout=timeout_s, follow_redirects=False)
        self._timeout_s = timeout_s
        self._check_body = check

    async def send(self, request: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):  # the library's own timeouts are between two bytes
                response = await super().send(request, **{**options, "stream": True})
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
            if response.is_success:
                self._check_body(body)
        except TimeoutError as error:
            raise _http.ReadTimeout(f"no whole answer within {self._timeout_s:g} s", request=request) from error
        except ValueError as error:
            raise _http.DecodingError(str(error), request=request) from error
        told = ("content-encoding", "content-length", "transfer-encoding")  # of the bytes as they were sent
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in told]
        return _http.Response(response.status_code, headers=headers, content=body, request=request)


async def _read(response: Any) -> bytes:
    parts, length = [], 0
    async for part in response.aiter_bytes():
        length += len(part)
        if length > MAX_BYTES:
            raise ValueError(f"the body is longer than {MAX_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def connect(
    url: str, key: str | None, *, timeout_s: float, retries: int, check: Callable[[bytes], object]
) -> openai.AsyncOpenAI:
    """A client, to be closed by `async with`.

    Args:
        url: see wire.base_url.
        key: None for a server that asks for none.
        timeout_s: for one try. retries: further tries after a passing fault, with the SDK's growing and random waits;
            a server's Retry-After of up to two minutes is kept to.
        check: raises ValueError for a body that is not what was asked for.
    """
    return openai.AsyncOpenAI(
        base_url=url,
        api_key=key or "none",
        timeout=timeout_s,
        max_retries=retries,
        http_client=BoundedClient(timeout_s, check),
    )


def fault_of(error: openai.APIError, secrets: tuple[str, ...]) -> Refused:
    """What an error of the SDK, after all its retries, means for the draw that met it. Secrets are never repeated."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        named = 400 <= status < 500 and status not in _NOT_THE_REQUEST
        message = f"HTTP {status}: {_told(error.body)}"
        return Refused(REFUSED if named else FAILED, _clean(message, secrets), passing=not named)
    cause = error.__cause__ or error
    reason = GARBAGE if isinstance(cause, _http.DecodingError) else FAILED
    return Refused(reason, _clean(f"{type(cause).__name__}: {cause}", secrets), passing=True)


def _told(body: Any) -> str:
    """What a refusal says, wherever servers put it."""
    if not isinstance(body, dict):
        return str(body)
    inner = body.get("error")
    inner = inner if isinstance(inner, dict) else body
    return str(inner.get("message") or inner.get("detail") or inner)


def _clean(text: str, secrets: tuple[str, ...]) -> str:
    """One line of at most _MESSAGE characters, without secrets and without what no column can hold."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return " ".join(text.encode(errors="replace").decode().split())[:_MESSAGE]
