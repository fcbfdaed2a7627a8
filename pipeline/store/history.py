"""What was typed to make a store: a line of JSON for each command that wrote to it."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

_FILE = "commands.jsonl"


def remember(folder: Path, command: str) -> None:
    """Add a command, unless it is the last one again."""
    if commands(folder)[-1:] == [command]:
        return
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": command})
    descriptor = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def commands(folder: Path) -> list[str]:
    """All commands, oldest first. A line that a kill cut short is left out."""
    file = folder / _FILE
    if not file.exists():
        return []
    out: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            out.append(json.loads(line)["command"])
        except (ValueError, KeyError, TypeError):
            continue
    return out
