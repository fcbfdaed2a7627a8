"""Joining a Ray cluster, or starting one on this machine that ends with the command and is heard by nobody else."""

import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from pipeline.errors import UserError

_ADDRESS = re.compile(r"([^:/\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
_CHECK = "ray status --address HOST:PORT, or leave --address out to use this machine alone"
_KNOCK_S = 5.0  # in which a cluster must answer; Ray itself would try for minutes
_LAST_LINES_S = 5.0  # in which Ray's processes stop writing to their logs
_LONGEST_PLACE = 40  # characters; Ray's sockets lie 60 below, and the path of a socket has 107 at most
_LONGEST_LINE = 200  # characters of an error of Ray's

# Of a cluster of our own: it listens on this machine only, its token stays in memory, nobody is told of its use.
_PRIVATE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


def check_address(address: str | None) -> None:
    """Raises UserError: Ray is not installed, or the address is neither None, auto nor host:port."""
    if find_spec("ray") is None:
        raise UserError("--engine ray", "Ray is not installed", "pip install 'strive-video[ray]'")
    if address is not None and address != "auto" and not _ADDRESS.fullmatch(address):
        raise UserError(f"--address {address}", "auto or host:port", "--address auto, on a node of the cluster")


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[Any]:
    """The module `ray`, connected. Meanwhile what it prints goes to stderr: stdout carries results.

    Args:
        address: of a running cluster; None: one of our own, with so many `cpus`.

    Raises:
        UserError: nobody answers at the address, or not as this Ray and this Python can understand.
    """
    with ExitStack() as ends:
        ends.enter_context(redirect_stdout(sys.stderr))
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            ends.enter_context(_environment(_PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}))
            folder = ends.enter_context(_folder())
            options |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": folder}
        elif address != "auto":
            _knock(address)
        import ray

        ends.callback(ray.shutdown)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "lance is not fork-safe")  # whatever is forked here execs at once
                ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if address is None:
                raise
            raise UserError(f"--address {address}", one_line(error), _CHECK) from error
        ray._private.worker._worker_logs_enabled = False  # who died, the run's own report tells
        yield ray


def one_line(error: Exception) -> str:
    """What matters of an error of Ray's."""
    text = str(error).rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return " ".join(text.split())[:_LONGEST_LINE]


def _knock(address: str) -> None:
    """Raises UserError: nobody listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}", f"nobody answers there ({error})", _CHECK) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables set, for Ray's own processes."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for Ray's logs and sockets, gone at the end."""
    place = tempfile.gettempdir()
    if len(place) > _LONGEST_PLACE:
        raise UserError(f"TMPDIR {place}", f"at most {_LONGEST_PLACE} characters for Ray's sockets", "TMPDIR=/tmp")
    folder = tempfile.mkdtemp(prefix="strive-ray-", dir=place)
    try:
        yield folder
    finally:
        # A process of Ray's that is just ending may still write its last lines.
        limit = time.monotonic() + _LAST_LINES_S
        while os.path.exists(folder) and time.monotonic() < limit:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)  # and looked at once more: it may come back
