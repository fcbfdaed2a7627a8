"""Options that several commands of strive-data share."""

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

from cli import output
from pipeline.errors import UserError
from pipeline.workers import Engine as Workforce

STORE = "strive-store"

StorePath = Annotated[
    str, typer.Option("--store", help="The store: a folder, or a prefix of an object store such as s3://bucket/prefix.")
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0 works in this one.")]
Engine = Annotated[
    str,
    typer.Option("--engine", help="Where --workers run: local, or ray, as actors of a Ray cluster (0: all it has)."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="With ray: auto or host:port of a running cluster. Default: one for this command."),
]
Gpus = Annotated[
    float | None, typer.Option("--gpus-per-worker", help="With ray: GPUs of an actor, or a share of one. Default: 1.")
]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU when there is one), cpu or cuda.")]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try again what failed before.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def chosen_engine(
    name: str, address: str | None, gpus: float | None = None, device: str = "auto"
) -> AbstractContextManager[Workforce | None]:
    """For a `with` statement: what `pipeline.runner.run` takes as `engine`.

    Raises:
        UserError: there is no such engine, it is not installed, or the options do not go together.
    """
    if name not in ("local", "ray"):
        raise UserError(f"--engine {name}", "local or ray", "try --engine ray")
    if name == "local":
        for option, value in (("--address", address), ("--gpus-per-worker", gpus)):
            if value is not None:
                raise UserError(f"{option} {value}", "only a Ray cluster has it", f"--engine ray {option} {value}")
        return nullcontext()
    if device == "cpu" and gpus is not None:
        raise UserError(f"--gpus-per-worker {gpus:g}", "--device cpu uses none", "leave one of them out")
    from pipeline.cluster import RayEngine

    return RayEngine(address, gpus, output.note)
