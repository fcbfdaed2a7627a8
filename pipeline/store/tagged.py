"""A dataset that is replaced as a whole and keeps what it was under tags."""

from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store.files import opened, scanned, sealed, typed, whole, written
from pipeline.store.location import Location

_KEY = "sample_id"


class Tagged:
    """A Lance dataset of one row a sample, in `place`. The caller holds the store's lock while it writes."""

    def __init__(self, place: Location, schema: pa.Schema) -> None:
        self.place, self.schema = place, schema

    def tags(self) -> dict[str, int]:
        """{tag: version}; empty when nothing is there."""
        dataset = opened(self.place)
        with whole(self.place):
            return {} if dataset is None else {tag: int(about["version"]) for tag, about in dataset.tags.list().items()}

    def table(self, tag: str | None = None) -> pa.Table:
        """All rows of the newest version, or of a tagged one, ordered by sample_id.

        Raises:
            UserError: no such tag.
        """
        with whole(self.place):
            return self._version(tag).to_table().sort_by(_KEY)

    def scan(self, tag: str | None = None) -> pl.LazyFrame:
        """The newest version, or a tagged one, as a polars LazyFrame. Raises UserError: no such tag."""
        return scanned(self.place, self._version(tag).version)

    def facts(self, tag: str | None = None) -> dict[str, str]:
        """What `write` was given to remember about a version. Raises UserError: no such tag."""
        return dict(self._version(tag).metadata)

    def forget(self, tag: str) -> None:
        """Take a tag away; its rows may go with the next tidying."""
        dataset = opened(self.place)
        if dataset is not None and tag in dataset.tags.list():
            dataset.tags.delete(tag)

    def refuse_change(self, rows: pa.Table, tag: str) -> None:
        """Raises UserError when the tag names other rows: what was published under a tag does not change."""
        dataset = opened(self.place)
        if dataset is None or tag not in dataset.tags.list():
            return
        if not _same(dataset.checkout_version(tag), typed(rows, self.schema)):
            raise UserError(f"tag {tag!r} of {self.place.name!r}", "it names other samples", "choose another --tag")

    def write(self, rows: pa.Table, tag: str, facts: dict[str, str]) -> int:
        """Make `rows` the whole content, in one atomic commit, and tag that version unless the tag is there.

        Returns:
            the version that the tag names.
        """
        rows = typed(rows, self.schema)
        dataset = opened(self.place)
        if dataset is None:
            if self.place.local:
                self.place.path.mkdir(parents=True, exist_ok=True)
            written(self.place, rows, "create")
        elif not _same(dataset, rows):
            merge = dataset.merge_insert(_KEY).when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete().execute(rows)
        dataset = opened(self.place)
        sealed(self.place, dataset)
        if tag not in dataset.tags.list():
            if dict(dataset.metadata) != facts:
                dataset.update_metadata(facts, replace=True)
                dataset = opened(self.place)
            sealed(self.place, dataset)
            dataset.tags.create(tag, dataset.version)
        return int(dataset.tags.list()[tag]["version"])

    def _version(self, tag: str | None) -> Any:
        dataset = opened(self.place)
        if dataset is None:
            raise UserError(f"{self.place}", "nothing was written there", "strive-data select")
        if tag is None:
            return dataset
        with whole(self.place):
            known = sorted(dataset.tags.list())
        if tag not in known:
            raise UserError(
                f"tag {tag!r} of {self.place.name!r}", f"known tags: {', '.join(known) or 'none'}", "name one of them"
            )
        with whole(self.place):
            return dataset.checkout_version(tag)


def _same(dataset: Any, rows: pa.Table) -> bool:
    """Whether a version holds exactly these rows, in whatever order."""
    if dataset.count_rows() != rows.num_rows:
        return False
    # A fingerprint stands for the whole row.
    columns = [_KEY, "fingerprint"] if "fingerprint" in rows.column_names else rows.column_names
    there: bool = dataset.to_table(columns=columns).sort_by(_KEY).equals(rows.select(columns).sort_by(_KEY))
    return there
