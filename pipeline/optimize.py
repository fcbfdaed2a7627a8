"""Upkeep of a store: fewer files, no deleted rows, no old versions; where it pays, or everywhere."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.runner import Progress
from pipeline.schemas import TABLES
from pipeline.store import Store
from pipeline.store.files import opened
from pipeline.store.location import Location
from pipeline.store.upkeep import LARGE, RECENT, Shape, clean, compact, shape


@dataclass(frozen=True)
class Done:
    """What became of one table. reasons: why it paid; empty when it was done by wish."""

    table: str
    reasons: Sequence[str]
    before: Shape
    after: Shape

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def places(store: Store) -> dict[str, Location]:
    """Every table of a store and where it lies; curated datasets and their verdicts as well."""
    found = {name: store.table_at(name) for name in TABLES}
    for name in store.curated_names():
        found |= {f"curated/{name}": store.curated_at(name), f"verdicts/{name}": store.verdicts_at(name)}
    return found


def worth(store: Store) -> dict[str, list[str]]:
    """{table: why it pays to optimise it}, of those for which it does. Reads only."""
    found = {name: shape(place, name in LARGE).reasons() for name, place in places(store).items()}
    return {name: reasons for name, reasons in found.items() if reasons}


def optimize(
    store: Store,
    everything: bool = False,
    older: datetime.timedelta = RECENT,
    progress: Progress | None = None,
) -> list[Done]:
    """Write tables anew in fewer files and let old versions go, where it pays.

    Rows, their order and their tags stay; each step is one atomic commit or removes what no version names, so that a
    kill at any moment leaves a whole table. Tagged versions stay for good, and so does what is younger than `older`.

    Args:
        everything: also where it does not pay.

    Raises:
        UserError: another process is writing, the disk is full, or files of a table are damaged.
    """
    done: list[Done] = []
    with store.writing():
        shapes = {name: shape(place, name in LARGE) for name, place in places(store).items()}
        chosen = [name for name, about in shapes.items() if about.files and (everything or about.reasons())]
        if progress:
            progress.start("optimize", len(chosen))
        for name in chosen:
            place = places(store)[name]
            compact(place, opened(place), name in LARGE)
            clean(place, opened(place), unverified=True, older=older)
            done.append(Done(name, shapes[name].reasons(), shapes[name], shape(place, name in LARGE)))
            if progress:
                progress.advance(1)
        if progress:
            progress.stop()
    return done
