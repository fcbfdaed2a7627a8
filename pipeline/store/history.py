"""What was typed to make a store: one entry for each command that wrote to it."""

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store import objects
from pipeline.store.location import Location

_FILE = "commands.jsonl"  # a line each, in a folder
_FOLDER = "commands"  # an object each, on an object store, where nothing can be appended to


def remember(store: Location, command: str) -> None:
    """Add a command, unless it is the last one again."""
    if commands(store)[-1:] == [command]:
        return
    now = datetime.now(UTC)
    line = json.dumps({"time": now.isoformat(timespec="seconds"), "command": command}).encode() + b"\n"
    if not store.local:
        objects.write(store / _FOLDER / f"{now:%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}.json", line)
        return
    descriptor = os.open(store.path / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def commands(store: Location) -> list[str]:
    """All commands, oldest first. A line that a kill cut short is left out."""
    out: list[str] = []
    for line in _lines(store):
        try:
            out.append(json.loads(line)["command"])
        except (ValueError, KeyError, TypeError):
            continue
    return out


def _lines(store: Location) -> list[str]:
    if not store.local:
        folder = store / _FOLDER
        return [(objects.read(folder / name) or b"").decode() for name in objects.files(folder)]
    file: Path = store.path / _FILE
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
