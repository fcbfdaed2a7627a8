"""Draws from any OpenAI-compatible server: a policy that is served elsewhere, behind the ledger's Answerer."""

import os
from typing import TYPE_CHECKING

from pipeline.endpoint.wire import base_url, identity
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.endpoint.draws import EndpointPolicy

__all__ = ["endpoint_fingerprint", "identity", "key_of_environment", "open_endpoint", "served_name"]

KEY_VARIABLES = ("STRIVE_API_KEY", "OPENAI_API_KEY")


def open_endpoint(
    url: str,
    model: str | None = None,
    *,
    concurrency: int = 16,
    timeout_s: float = 120.0,
    retries: int = 4,
    api_key: str | None = None,
) -> "EndpointPolicy":
    """A policy that a server answers for; the server is asked which models it serves.

    Args:
        url: like http://127.0.0.1:8000/v1; without a path, /v1 is added.
        model: name as the server knows it; None for the only one that it serves.
        concurrency: requests under way at once.
        timeout_s: for one try at one draw. retries: further tries after a fault that may pass.
        api_key: None for the environment's (`key_of_environment`), so that none stands on a command line.

    Raises:
        UserError: `openai` is not installed, an option is out of range, the address is none, the server cannot be
            reached, refuses the key, or does not serve the model.
    """
    if concurrency < 1 or retries < 0 or not 0 < timeout_s < float("inf"):
        raise UserError(
            f"--concurrency {concurrency} --timeout {timeout_s:g} --retries {retries}",
            "expected at least one request at a time, a timeout above 0 seconds, and no negative number of retries",
            "correct the option",
        )
    address, key = base_url(url), api_key or key_of_environment()
    name = _served(address, model, key)
    from pipeline.endpoint.draws import EndpointPolicy

    return EndpointPolicy(address, name, key, concurrency=concurrency, timeout_s=timeout_s, retries=retries)


def endpoint_fingerprint(url: str, model: str | None = None) -> str:
    """Identity of a served policy: the model's name as the server knows it, and how prompts and pictures are written.

    The address is no part of it: the same model served elsewhere is the same policy. Nothing is known of the weights
    but their name, so another checkpoint has to be served under another name. Where the name is known, `identity` of
    it says the same without asking the server.

    Raises:
        UserError: as `open_endpoint`.
    """
    return identity(served_name(url, model))


def served_name(url: str, model: str | None = None) -> str:
    """The model's name as the server knows it.

    Raises:
        UserError: as `open_endpoint`.
    """
    return _served(base_url(url), model, key_of_environment())


def key_of_environment() -> str | None:
    """The key from STRIVE_API_KEY, else OPENAI_API_KEY; None without either."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def _served(address: str, model: str | None, key: str | None) -> str:
    try:
        from pipeline.endpoint.served import served_model
    except ImportError as error:
        raise UserError(
            "--endpoint", f"needs the extra `endpoint` ({error})", "pip install 'strive-video[endpoint]'"
        ) from error
    return served_model(address, model, key)
