"""A stage whose items say what happens to them, and a progress bar that counts."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.schemas import SAMPLES
from pipeline.stage import Failure, Item, Outcome, Written
from pipeline.store import Store, write_fragments


@dataclass
class Asks:
    """Writes one sample an item; an item's text says what happens to it."""

    items: dict[str, str]
    version: int = 1
    source: str = "s"
    scope: str | None = None
    batch_size: int = 2
    deadline_s: float | None = 2.0
    broken_setup: bool = False
    name: str = "asks"
    reads: tuple[str, ...] = ()
    writes: str = "samples"
    seen: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    store_path: str = ""

    def plan(self, store: Store) -> list[Item]:
        return [
            Item((key,), fingerprint(self.version, key, text), text, self.weights.get(key, 1.0))
            for key, text in self.items.items()
        ]

    def setup(self, store_path: str, device: str) -> None:
        self.store_path = store_path
        if self.broken_setup:
            raise UserError("model nowhere", "a folder is expected", "name one")

    def process(self, items: Sequence[Item]) -> Outcome:
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        notes: list[Failure] = []
        written: list[Written] = []
        for item in items:
            self.seen.append(item.key[0])
            match item.payload:
                case "fail":
                    failures.append(Failure(item.key, item.fingerprint, "unlucky", f"{item.key[0]} always fails"))
                    continue
                case "hang":
                    time.sleep(60)
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raise":
                    raise ZeroDivisionError("a fault of the program")
                case "forget":
                    continue
                case "partly":
                    notes.append(Failure(item.key, item.fingerprint, "a part", f"of {item.key[0]} only"))
                case "partly, twice":
                    notes += [Failure(item.key, item.fingerprint, "a part", "of it")] * 2
                case "both":
                    failures.append(Failure(item.key, item.fingerprint, "unlucky", "and has rows"))
                case "long":
                    table = pa.Table.from_pylist([self.row(item)], schema=SAMPLES)
                    fragments = write_fragments(self.store_path, self.writes, [table])
                    written.append(Written(item.key, item.fingerprint, 1, fragments))
                    continue
            rows.append(self.row(item))
        return Outcome(pa.Table.from_pylist(rows, schema=SAMPLES) if rows else None, failures, notes, written)

    def row(self, item: Item) -> dict[str, Any]:
        return {
            "sample_id": item.key[0],
            "source": self.source,
            "split": "train",
            "video_id": "v",
            "task": "open",
            "question": f"{item.payload} {self.version}",
            "options": [],
            "answer": "a",
            "spans": [],
            "origin": "{}",
            "fingerprint": item.fingerprint,
        }


class Bar:
    def __init__(self) -> None:
        self.total = self.steps = self.stopped = 0

    def start(self, label: str, total: int) -> None:
        self.total = total

    def advance(self, n: int) -> None:
        self.steps += n

    def stop(self) -> None:
        self.stopped += 1
