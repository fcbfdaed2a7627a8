"""A stage that takes its time and notes where each item is worked on, and commands that run it on Ray."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.stage import Item, Outcome
from tests.test_runner import Asks

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 90.0


@dataclass
class Slow(Asks):
    """Notes process, its parent and item before it works."""

    log: str = ""
    pause_s: float = 0.2

    def process(self, items: Sequence[Item]) -> Outcome:
        for item in items:
            with open(self.log, "a") as log:
                log.write(f"{os.getpid()} {os.getppid()} {item.key[0]}\n")
            time.sleep(self.pause_s)
        return super().process(items)


def begun(log: Path) -> list[tuple[int, int, str]]:
    """Process, its parent and item of all work that was begun."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(int(process), int(parent), key) for process, parent, key in lines]


def wait_until(true: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


def processes_of(folder: Path | str) -> list[psutil.Process]:
    """Ray's processes whose files lie in this folder, and what they started."""
    found = {}
    for process in psutil.process_iter():
        try:
            if f"{folder}/" in " ".join(process.cmdline()):
                found |= {p.pid: p for p in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    return [p for p in found.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


COMMAND = """
import json, sys
import typer
from cli import output
from cli.options import chosen_engine
from pipeline.runner import run
from pipeline.store import Store
from tests.ray_world import Slow

app = typer.Typer()

@app.command()
def slow(store: str, log: str, count: int, address: str = "", workers: int = 2, pause: float = 0.2) -> None:
    with chosen_engine("ray", address or None) as crew:
        stage = Slow({f"k{i:02}": "ok" for i in range(count)}, log=log, pause_s=pause, deadline_s=None, batch_size=1)
        print("a line among the work", file=sys.stderr)
        report = run(stage, Store(store), workers=workers, engine=crew)
    output.print_json(report.as_dict())

output.run(app, "strive-data")
"""
