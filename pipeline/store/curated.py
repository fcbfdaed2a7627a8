"""The curated datasets of a store: rows, verdicts, facts and cards, each version by its tag."""

import datetime
import re
from pathlib import Path

import polars as pl
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.schemas import CURATED, VERDICTS
from pipeline.store import objects
from pipeline.store.files import exists, opened, size
from pipeline.store.location import Location
from pipeline.store.lock import writing
from pipeline.store.tagged import Tagged

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CuratedTables:
    """The part of a store that holds curated datasets."""

    location: Location

    def curated_bytes(self, name: str) -> int:
        """Size of a curated dataset, counted as that of a table."""
        return size(self.curated_at(name))

    def curated_at(self, name: str) -> Location:
        """Where a curated dataset lies: a Lance dataset that polars and the trainer open directly.

        Raises:
            UserError: the name cannot be a folder's.
        """
        return self._named("curated", name)

    def curated_path(self, name: str) -> Path:
        """The folder that a curated dataset lies in. Raises UserError: a bad name, or it lies on an object store."""
        return self.curated_at(name).path

    def verdicts_at(self, name: str) -> Location:
        """Where its verdicts lie. Raises UserError: the name cannot be a folder's."""
        return self._named("verdicts", name)

    def curated_names(self) -> list[str]:
        """Names of the curated datasets, sorted."""
        folder = self.location / "curated"
        return [name for name in objects.entries(folder) if exists(folder / name)]

    def curated(self, name: str, tag: str | None = None) -> pa.Table:
        """A curated dataset, ordered by sample_id: its newest version, or a tagged one.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).table(tag)

    def verdicts(self, name: str, tag: str | None = None) -> pa.Table:
        """What became of each sample of the pool that a curated dataset was selected from, ordered by sample_id.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        self._curated(name)
        return self._verdicts(name).table(tag)

    def facts(self, name: str, tag: str | None = None) -> dict[str, str]:
        """How a curated dataset was selected, in the selection's own words (see pipeline.curate).

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).facts(tag)

    def curated_tags(self, name: str) -> dict[str, int]:
        """{tag: version} of a curated dataset; empty when there is none."""
        return Tagged(self.curated_at(name), CURATED).tags()

    def scan_curated(self, name: str, tag: str | None = None) -> pl.LazyFrame:
        """A version of a curated dataset as a polars LazyFrame.

        Raises:
            UserError: there is no such dataset or no such tag.
        """
        return self._curated(name).scan(tag)

    def write_curated(self, name: str, rows: pa.Table, verdicts: pa.Table, tag: str, facts: dict[str, str]) -> int:
        """Make `rows` the whole content of a curated dataset, in one atomic commit, and tag that version.

        Older versions stay readable by their tags. Nothing is written when the newest version holds the same already.

        Args:
            rows: schema CURATED. verdicts: schema VERDICTS, written first. facts: what to remember about the tag.

        Returns:
            the version that the tag names.

        Raises:
            UserError: the tag names other rows: what was published under a tag does not change.
        """
        curated = Tagged(self.curated_at(name), CURATED)
        with writing(self.location):
            curated.refuse_change(rows, tag)
            about = self._verdicts(name)
            if tag not in curated.tags():
                about.forget(tag)  # of a selection that was stopped before its dataset was there
            about.write(verdicts, tag, facts)
            return curated.write(rows, tag, facts)

    def curated_changed(self, name: str) -> float:
        """When a curated dataset was last written to, seconds since 1970."""
        place = self.curated_at(name)
        if place.local:
            return max(path.stat().st_mtime_ns for path in place.path.rglob("*")) / 1e9
        with objects.reaching(place):
            newest: datetime.datetime = opened(place).versions()[-1]["timestamp"]
        return newest.timestamp()

    def write_card(self, name: str, tag: str, text: str) -> str:
        """Keep the card of a tag, which is also the newest one, beside its dataset; return where that lies."""
        folder = self.curated_at(name)
        with writing(self.location):
            objects.write(folder / "cards" / f"{tag}.md", text.encode())
            objects.write(folder / "CARD.md", text.encode())
        return str(folder / "CARD.md")

    def card(self, name: str, tag: str) -> str:
        """The card of a tag; "" when it has none."""
        return (objects.read(self.curated_at(name) / "cards" / f"{tag}.md") or b"").decode()

    def _curated(self, name: str) -> Tagged:
        found = Tagged(self.curated_at(name), CURATED)
        if not exists(found.place):
            known = ", ".join(self.curated_names()) or "none yet"
            raise UserError(f"curated dataset {name!r}", f"the store has {known}", f"strive-data select --name {name}")
        return found

    def _verdicts(self, name: str) -> Tagged:
        return Tagged(self.verdicts_at(name), VERDICTS)

    def _named(self, kind: str, name: str) -> Location:
        if not _NAME.fullmatch(name):
            raise UserError(f"name {name!r}", "letters, digits, dots, dashes and underscores", "choose another name")
        return self.location / kind / name
