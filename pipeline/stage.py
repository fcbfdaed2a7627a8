"""What a stage is: a name, the tables it reads and writes, a fingerprint, and how one batch becomes rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:  # the store itself needs this module
    from pipeline.store.location import Location

Key = tuple[Any, ...]

_KEYS_A_FILTER = 500  # bounds the length of a filter


@dataclass(frozen=True)
class Item:
    """One piece of work: its key (the values of the table's key columns), the fingerprint of everything that
    determines its rows, what `process` needs to know (picklable), and how much work it is next to the others, for an
    honest time left."""

    key: Key
    fingerprint: str
    payload: Any = None
    weight: float = 1.0


@dataclass(frozen=True)
class Failure:
    """An item that failed: it becomes a quarantine row. `reason` is a short class, `message` names value and cause.
    `passing`: the cause lies outside the item (a server that hung), so the next run tries it again unasked."""

    key: Key
    fingerprint: str
    reason: str
    message: str
    passing: bool = False


@dataclass(frozen=True)
class Written:
    """All rows of one item, already in data files of their own that no version of the table names yet: too many to
    hold in memory. `fragments` is what `pipeline.store.write_fragments` returned; nobody but the runner commits it."""

    key: Key
    fingerprint: str
    rows: int
    fragments: tuple[str, ...]


@dataclass
class Outcome:
    """What a batch came to. Every item is in `rows` (by key and fingerprint), `written`, `failures` or `spared`.

    `spared` turned out not to be needed. `error` (a UserError's three parts) and `fault` (the traceback of a fault of
    the program) end the run once the rest is kept; items may then be missing.
    `notes` are about items that have rows: what is missing from them. They stand in quarantine as long as the rows do.
    """

    rows: pa.Table | None
    failures: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    spared: list[tuple[Key, str]] = field(default_factory=list)
    error: tuple[str, str, str] | None = None
    fault: str = ""


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
        """Items that `process` is given at once; neighbours whose keys begin alike, as the draws of one sample do, stay
        together and count as one."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """Seconds that one item may take in a worker; None: no limit."""
        ...

    def plan(self, store: Any) -> list[Item]:
        """Everything that should exist in `writes`, given what stands in the tables it reads."""
        ...

    def setup(self, place: "Location", device: str) -> None:
        """Load models and open tables, once a worker. `place`: where the store lies, for `Store(place)`."""
        ...

    def process(self, items: Sequence[Item]) -> Outcome:
        """Compute the rows of a batch. Failures that belong to an item are returned, not raised."""
        ...


def key_filters(columns: Sequence[str], keys: Iterable[Key]) -> Iterator[str]:
    """SQL filters that together name exactly the rows of some items.

    Args:
        columns: that the parts of a key stand in.
    """
    groups: dict[Key, list[Any]] = {}
    for key in keys:
        groups.setdefault(key[:-1], []).append(key[-1])
    clauses: list[str] = []
    for head, lasts in groups.items():
        fixed = [f"{c} = {literal(v)}" for c, v in zip(columns[:-1], head, strict=True)]
        for i in range(0, len(lasts), _KEYS_A_FILTER):
            values = ", ".join(literal(v) for v in lasts[i : i + _KEYS_A_FILTER])
            clauses.append("(" + " AND ".join([*fixed, f"{columns[-1]} IN ({values})"]) + ")")
    step = _KEYS_A_FILTER if len(columns) > 1 else 1
    for i in range(0, len(clauses), step):
        yield " OR ".join(clauses[i : i + step])


def literal(value: Any) -> str:
    """A value as an SQL literal.

    Raises:
        TypeError: keys are text and whole numbers only.
    """
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{value!r} cannot be part of a key")
