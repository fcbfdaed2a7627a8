"""Which model a server serves: asked before anything is drawn."""

import asyncio
import json
from typing import Any

import openai

from pipeline.endpoint.client import FAILED, connect, fault_of
from pipeline.endpoint.wire import response_of, secrets_of, shown
from pipeline.errors import UserError

LISTING_S = 10.0
PROBE_S = 120.0  # a server may load the model first

_SHOWN = 10  # names in a message


def served_model(url: str, model: str | None, key: str | None) -> str:
    """The model's name as the server knows it.

    A server that does not list the model, or lists none, is asked for one token of it: `transformers serve` lists what
    lies in its cache, not the folder that it serves.

    Args:
        url: see wire.base_url. model: None for the only one that is served.

    Raises:
        UserError: the server cannot be reached, refuses the key, or does not serve the model.
    """
    names = asyncio.run(_listed(url, key))
    if model is None:
        if len(names) == 1:
            return names[0]
        found = f"it serves {_join(names)}" if names else "it does not say what it serves"
        raise UserError(f"--endpoint {shown(url)}", f"expected one model, but {found}", "name one as --policy")
    if model not in names:
        asyncio.run(_probe(url, model, key, names))
    return model


async def _listed(url: str, key: str | None) -> list[str]:
    """Names that GET /models gives; empty when the server answers but does not list."""
    async with connect(url, key, timeout_s=LISTING_S, retries=0, check=names_of) as client:
        try:
            return names_of((await client.models.with_raw_response.list()).content)
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise _no_entry(url, error, key) from None
            return []  # it answers: whether it serves the model is seen by asking it
        except openai.APIError as error:
            fault = fault_of(error, secrets_of(url, key))
            if fault.reason != FAILED:
                return []
            raise UserError(
                f"--endpoint {shown(url)}",
                f"expected a server that answers GET /models ({fault.message})",
                "start the server, or wait until it is ready, and run the command again",
            ) from None


async def _probe(url: str, model: str, key: str | None, names: list[str]) -> None:
    async with connect(url, key, timeout_s=PROBE_S, retries=0, check=response_of) as client:
        try:
            messages: Any = [{"role": "user", "content": "hello"}]
            await client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=1)
        except openai.APIError as error:
            if isinstance(error, openai.APIStatusError) and error.status_code in (401, 403):
                raise _no_entry(url, error, key) from None
            listed = f"it lists {_join(names)}" if names else "it lists no model"
            told = fault_of(error, secrets_of(url, key)).message
            raise UserError(
                f"--policy {model}",
                f"expected a model that {shown(url)} serves; {listed} ({told})",
                "name one that is served, or correct the address",
            ) from None


def _no_entry(url: str, error: openai.APIError, key: str | None) -> UserError:
    return UserError(
        f"--endpoint {shown(url)}",
        f"expected a key that the server takes ({fault_of(error, secrets_of(url, key)).message})",
        "set the environment variable STRIVE_API_KEY",
    )


def names_of(body: bytes) -> list[str]:
    """The names in the answer to GET /models, in its order.

    Raises:
        ValueError: it is not a list of models.
    """
    try:
        rows = json.loads(body)["data"]
        names = [row["id"] for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("the body is no list of models") from error
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the body is no list of models")
    return names


def _join(names: list[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
