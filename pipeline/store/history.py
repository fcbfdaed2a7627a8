"""What was typed to make a store: one entry for each command that wrote to it."""

import json
import os
import uuid
from datetime import UTC, datetime

from pipeline.store import objects
from pipeline.store.location import Location

_FILE = "commands.jsonl"  # a line each, in a folder
_FOLDER = "commands"  # an object each, on an object store, where nothing can be appended to


def remember(store: Location, command: str) -> None:
    """Add a command, unless it is the last one again."""
    if commands(store)[-1:] == [command]:
        return
    now = datetime.now(UTC)
    line = json.dumps({"time": now.isoformat(timespec="microseconds"), "command": command}).encode() + b"\n"
    if not store.local:
        objects.write(store / _FOLDER / f"{now:%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}.json", line)
        return
    descriptor = os.open(store.path / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def commands(store: Location) -> list[str]:
    """All commands, oldest first, also of a store that was moved here. A line that a kill cut short is left out."""
    folder = store / _FOLDER
    found = [objects.read(store / _FILE), *(objects.read(folder / name) for name in objects.files(folder))]
    out: list[tuple[str, str]] = []
    for line in b"\n".join(content for content in found if content).decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            out.append((str(entry["time"]), entry["command"]))
        except (ValueError, KeyError, TypeError):
            continue
    return [command for _, command in sorted(out, key=lambda entry: entry[0])]
