"""Real servers on loopback for the tests of the endpoint: one that answers by a plan, and `transformers serve`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

PATIENCE_S = 60.0

Plan = Callable[["Asked"], Awaitable[Any]]


@dataclass
class Asked:
    """One request for a chat completion: the how-manieth it is, its body, its headers."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def seed(self) -> int:
        return int(self.body["seed"])

    @property
    def question(self) -> str:
        """The user's last text."""
        content = self.body["messages"][-1]["content"]
        return str(content if isinstance(content, str) else content[-1]["text"])


@dataclass
class Server:
    """A running server: its address, what it was asked for, and the most requests that it had at once."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["toy"])
    asked: list[Asked] = field(default_factory=list)
    listings: int = 0
    now: int = 0
    peak: int = 0


def completion(text: str, tokens: int = 3, logprobs: list[float] | None = None) -> dict[str, Any]:
    """The body of a chat completion, as servers write it."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": None if logprobs is None else {"content": [{"token": "x", "logprob": v} for v in logprobs]},
    }
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "toy", "choices": [choice], "usage": usage}


def fault(status: int, message: str, **headers: str) -> Response:
    """A refusal, as servers write it."""
    body = json.dumps({"error": {"message": message, "type": "error", "param": None, "code": status}})
    return Response(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


async def echo(asked: Asked) -> dict[str, Any]:
    """A server that works: its answer tells the question and the seed."""
    return completion(f"{asked.question}#{asked.seed}", logprobs=[-0.5, -0.25])


@contextmanager
def serving(plan: Plan = echo, listing: Callable[[Server], Any] | None = None) -> Iterator[Server]:
    """A server that answers chat completions by a plan (a body to be written as JSON, or a Response)."""
    server = Server()
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> Any:
        server.listings += 1
        if listing is not None:
            return listing(server)
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        asked = Asked(len(server.asked), body, dict(request.headers))
        server.asked.append(asked)
        server.now += 1
        server.peak = max(server.peak, server.now)
        try:
            return await plan(asked)
        finally:
            server.now -= 1

    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sets no delay
    door.bind(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{door.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        _wait(lambda: running.started, "the server does not start")
        yield server
    finally:
        running.should_exit = running.force_exit = True
        thread.join(PATIENCE_S)
        door.close()


@contextmanager
def saying(*parts: bytes) -> Iterator[str]:
    """The address of a server that says the same bytes to whoever connects and then closes, whatever was asked."""
    door = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        while True:
            try:
                line, _ = door.accept()
            except OSError:  # the door was closed
                return
            with line:
                line.recv(1 << 16)
                for part in parts:
                    line.sendall(part)

    threading.Thread(target=talk, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()


@contextmanager
def transformers_serve(policy: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """`transformers serve` with a copy of a policy that samples from the model's own distribution.

    The copy prepares pictures as it prepares frames of a video, so that the model sees the same either way.

    Yields:
        its address, and the copy, whose path is the model's name.
    """
    copy = folder / "policy"
    shutil.copytree(policy, copy)
    file = copy / "generation_config.json"
    settings = json.loads(file.read_text()) | {"do_sample": True, "top_k": 0, "top_p": 1.0}
    file.write_text(json.dumps({k: v for k, v in settings.items() if k != "_from_model_config"}))
    file = copy / "processor_config.json"
    settings = json.loads(file.read_text())
    for name in ("image_mean", "image_std"):
        settings["image_processor"][name] = settings["video_processor"][name]
    file.write_text(json.dumps(settings))
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    words = [str(Path(sys.executable).parent / "transformers"), "serve", str(copy), "--device", "cpu"]
    words += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | variables)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: process.poll() is not None or _answers(f"{url}/health"), "transformers serve does not start")
        assert process.poll() is None, (folder / "log").read_text()
        yield url, copy
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < limit, otherwise
        time.sleep(0.02)
