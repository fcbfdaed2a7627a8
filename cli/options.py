"""Options that several commands of strive-data share."""

from typing import Annotated

import typer

STORE = "strive-store"

StorePath = Annotated[
    str, typer.Option("--store", help="The store: a folder, or a prefix of an object store such as s3://bucket/prefix.")
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0 works in this one.")]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU when there is one), cpu or cuda.")]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try again what failed before.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
