"""Who answers for the ledger: a policy, here or behind a server, asked for responses to views."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Request:
    """One view of one sample, to be answered once for each seed.

    frames: uint8 [n, H, W, 3], n = 0 when the policy is asked blind; times: float64 [n], true seconds; options: texts
    without letters; state: what the policy keeps of the view once it is prepared.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    task: str
    question: str
    options: list[str]
    seeds: list[int]
    state: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Response:
    """A sampled response: its text, its length in tokens, the sum of its tokens' log-probabilities (None: not told)."""

    text: str
    tokens: int
    logprob: float | None


@dataclass(frozen=True)
class Refused:
    """Stands for a response that could not be had. `reason` is a short class; `passing`: worth another try later."""

    reason: str
    message: str
    passing: bool


class Answerer(Protocol):
    """A policy that answers questions about views.

    A response depends on its request and its seed alone; the last digits of its log-probability also depend on the
    requests that it was batched with, as floating-point sums do.
    """

    fingerprint: str

    def prepare(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Do once what all draws on a view share; requests with their `state`, which `answer` takes again and again."""
        ...

    def answer(
        self, requests: Sequence[Request], *, temperature: float, max_tokens: int
    ) -> Sequence[Sequence[Response | Refused]]:
        """Responses by request, then by seed."""
        ...
