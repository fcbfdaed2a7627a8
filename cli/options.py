"""Options that several commands of strive-data share."""

from pathlib import Path
from typing import Annotated

import typer

STORE = Path("strive-store")

StorePath = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0 works in this one.")]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU when there is one), cpu or cuda.")]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try again what failed before.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
