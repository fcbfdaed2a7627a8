"""What a stage is: a name, the tables it reads and writes, a fingerprint, and how one batch becomes rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Item:
    """One piece of work: its key (the values of the table's key columns), the fingerprint of everything that
    determines its rows, and what `process` needs to know (picklable)."""

    key: Key
    fingerprint: str
    payload: Any = None


@dataclass(frozen=True)
class Failure:
    """An item that failed: it becomes a quarantine row. `reason` is a short class, `message` names value and cause."""

    key: Key
    fingerprint: str
    reason: str
    message: str


@dataclass
class Outcome:
    """What a batch came to. Every item of the batch is in `rows` (by key and fingerprint) or in `failures`."""

    rows: pa.Table | None
    failures: list[Failure] = field(default_factory=list)


class Stage(Protocol):
    """One step of the pipeline. It is pickled to workers, so it holds parameters, not models or open files."""

    @property
    def name(self) -> str:
        """As the user types it, e.g. "cache-frames"."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables that `plan` and `process` read."""
        ...

    @property
    def writes(self) -> str:
        """The table that the rows go to."""
        ...

    @property
    def scope(self) -> str | None:
        """SQL filter of the rows of `writes` that this stage owns; None: all of them."""
        ...

    @property
    def batch_size(self) -> int:
        """Items that `process` is given at once."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """Seconds that one item may take in a worker; None: no limit."""
        ...

    def plan(self, store: Any) -> list[Item]:
        """Everything that should exist in `writes`, given what stands in the tables it reads."""
        ...

    def setup(self, store_path: str, device: str) -> None:
        """Load models and open tables, once a worker."""
        ...

    def process(self, items: Sequence[Item]) -> Outcome:
        """Compute the rows of a batch. Failures that belong to an item are returned, not raised."""
        ...
