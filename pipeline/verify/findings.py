"""What a check of a store found: one finding a table and kind of damage, and what puts it right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_SHOWN = 3  # keys that a finding names

OWNER = {
    "videos": "ingest",
    "samples": "ingest",
    "frames": "cache-frames",
    "frame_embeddings": "score-frames",
    "frame_scores": "score-frames",
    "variants": "build-variants",
    "rollouts": "select",
    "curated": "select",
    "verdicts": "select",
    "overlaps": "duplicates",
    "overlap_checks": "duplicates",
}
"""Table -> the command that fills it. What is lost of quarantine is found out again by the stages themselves."""


@dataclass
class Finding:
    """One kind of damage in one table.

    Attributes:
        table: as in the store; "curated/NAME" and "verdicts/NAME" for those.
        what: the kind, in a few words; the same words for the same kind.
        count: rows, or what `unit` says.
        where: the first keys, or the file and the rows that lie in it.
        message: what it means.
        redo: the command that makes it again, by its name; empty when there is none.
        wrong: False for what is only told: the tables are right without it.
        drop: addresses of the rows that a repair removes. fragments: pieces that it removes as wholes. aside: files or
            folders, below the table, that it moves aside. tags: that it takes away, because they cannot be read.
    """

    table: str
    what: str
    count: int
    where: str
    message: str
    redo: str = ""
    unit: str = "rows"
    wrong: bool = True
    drop: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64), repr=False)
    fragments: list[int] = field(default_factory=list, repr=False)
    aside: list[str] = field(default_factory=list, repr=False)
    tags: list[str] = field(default_factory=list, repr=False)

    @property
    def repair(self) -> str:
        """What a repair does about it, in words."""
        parts = [f"drops {len(self.drop)} rows"] if len(self.drop) else []
        parts += [f"drops the {self.count} rows of {len(self.fragments)} files"] if self.fragments else []
        parts += [f"moves {', '.join(self.aside)} aside"] if self.aside else []
        parts += [f"takes the tag {', '.join(self.tags)} away"] if self.tags else []
        return "; ".join(parts) or "nothing to drop"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("table", "what", "count", "unit", "where", "message", "wrong", "redo", "repair")
        return {name: getattr(self, name) for name in names}


@dataclass
class Verdict:
    """What a check of a whole store came to.

    tables: {table: {rows, files, unsealed}} of those that are there. frames, pixels: how many were compared with their
    checksums and with their videos. skipped: what could not be looked at, and why.
    """

    store: str
    findings: list[Finding] = field(default_factory=list)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    frames: int = 0
    pixels: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.wrong for finding in self.findings)

    def redo(self) -> list[str]:
        """The commands that make again what is lost, by their names, in the order of the pipeline."""
        wanted = {finding.redo for finding in self.findings if finding.redo}
        order = list(dict.fromkeys([*OWNER.values()]))
        return [name for name in order if name in wanted]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "store": self.store,
            "well": self.well,
            "findings": [finding.as_dict() for finding in self.findings],
            "tables": self.tables,
            "frames_checked": self.frames,
            "pixels_checked": self.pixels,
            "skipped": self.skipped,
        }


def some(keys: Sequence[Any]) -> str:
    """The first few keys, and how many more there are."""
    shown = [", ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in keys[:_SHOWN]]
    more = len(keys) - len(shown)
    return "; ".join(shown) + (f" and {more} more" if more > 0 else "")
