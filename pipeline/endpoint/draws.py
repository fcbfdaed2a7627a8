"""A policy behind an OpenAI-compatible server: one chat completion a draw, so many at a time, none lost to another."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import openai

from pipeline.answerer import Refused, Request, Response
from pipeline.endpoint import wire
from pipeline.endpoint.client import FAILED, connect, fault_of
from pipeline.errors import UserError

STREAK = 32
"""Failures in a row after which a server counts as broken."""

_RETRY_WAIT_S = 120.0  # the longest Retry-After that the SDK keeps to
_log = logging.getLogger(__name__)


@dataclass
class Health:
    """How a server has done so far. Draws end in any order; they are counted as they end."""

    answered: int = 0
    refused: int = 0  # draws that it found fault with
    failing: int = 0  # draws in a row that it left without an answer
    last: str = ""  # what the last of the failures was

    def note(self, result: Response | Refused) -> None:
        if isinstance(result, Response):
            self.answered += 1
            self.failing = 0
            return
        self.last = f"{result.reason}: {result.message}"
        if result.passing:
            self.failing += 1
        else:
            self.refused += 1
            self.failing = 0  # a server that finds fault with a request works

    @property
    def broken(self) -> bool:
        """Whether asking on is no use: STREAK failures in a row, or as many refusals and never an answer."""
        return self.failing >= STREAK or (not self.answered and self.refused >= STREAK)

    @property
    def dead(self) -> bool:
        """Whether to stop between two batches: broken, or not one answer and failing."""
        return self.broken or (not self.answered and self.failing > 0)


class EndpointPolicy:
    """A served model that answers (the ledger's Answerer).

    A draw that fails is Refused and harms no other. Once the server counts as broken, what is left of the batch is
    Refused unasked, and the next call raises: so every finished draw is kept before the run stops.

    Attributes:
        fingerprint: of the model's name and of how prompts and pictures are written.
        left_out: options that the server refused by name; they are not asked for again.
    """

    def __init__(
        self, url: str, model: str, key: str | None, *, concurrency: int, timeout_s: float, retries: int
    ) -> None:
        self.fingerprint = wire.identity(model)
        self.left_out: set[str] = set()
        self._url, self._model, self._key = url, model, key
        self._concurrency, self._timeout_s, self._retries = concurrency, timeout_s, retries
        self._limit_s = (retries + 1) * (timeout_s + _RETRY_WAIT_S)
        self._health = Health()

    def prepare(self, requests: Sequence[Request]) -> list[Request]:
        """Encode each view once: what is sent for it is kept as the request's state."""
        return [replace(request, state=wire.messages_of(request)) for request in requests]

    def answer(
        self, requests: Sequence[Request], *, temperature: float, max_tokens: int
    ) -> list[list[Response | Refused]]:
        """Draw responses, by request, then by seed.

        Args:
            requests: as `prepare` gave them.

        Raises:
            UserError: the server counted as broken when the last call ended. The call after that tries anew.
        """
        if self._health.dead:
            health, self._health = self._health, Health()
            raise UserError(
                f"--endpoint {wire.shown(self._url)}",
                f"expected answers, but {health.failing or health.refused} draws in a row failed ({health.last})",
                "see that the server works and run the command again: finished draws are kept",
            )
        return asyncio.run(self._answer(requests, {"temperature": temperature, "max_tokens": max_tokens}))

    async def _answer(self, requests: Sequence[Request], how: dict[str, Any]) -> list[list[Response | Refused]]:
        gate = asyncio.Semaphore(self._concurrency)

        def view(request: Request) -> Awaitable[list[Response | Refused]]:
            seeds = map(wire.wire_seed, request.seeds)
            return asyncio.gather(*(self._draw(client, gate, request.state, how | {"seed": seed}) for seed in seeds))

        async with connect(
            self._url, self._key, timeout_s=self._timeout_s, retries=self._retries, check=wire.response_of
        ) as client:
            return await asyncio.gather(*map(view, requests))

    async def _draw(
        self, client: openai.AsyncOpenAI, gate: asyncio.Semaphore, messages: Any, how: dict[str, Any]
    ) -> Response | Refused:
        async with gate:
            if self._health.broken:
                return Refused(FAILED, "not asked: the draws before it failed", passing=True)
            result: Response | Refused
            try:
                async with asyncio.timeout(self._limit_s):
                    result = await self._ask(client, messages, how | wire.OPTIONS)
            except openai.APIError as error:
                result = fault_of(error, wire.secrets_of(self._url, self._key))
            except TimeoutError:
                result = Refused(FAILED, f"no answer within {self._limit_s:g} s and all retries", passing=True)
            self._health.note(result)
            return result

    async def _ask(self, client: openai.AsyncOpenAI, messages: Any, options: dict[str, Any]) -> Response:
        """One chat completion, asked again without an option as often as the server refuses one."""
        may_go = {"seed", *wire.OPTIONS}
        while True:
            asked = {name: value for name, value in options.items() if name not in self.left_out}
            try:
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._model, messages=messages, extra_body=asked
                )
                return wire.response_of(raw.content)
            except openai.APIStatusError as error:
                named = error.status_code in (400, 422) and wire.refused_option(error.body, may_go & asked.keys())
                if not named:
                    raise
                if named not in self.left_out:
                    self.left_out.add(named)
                    _log.warning("the endpoint refuses the option %s: left out from now on", named)
