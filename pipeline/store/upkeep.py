"""When it pays to write a table anew in fewer files or to let old versions go, and doing it."""

import datetime
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.store import objects
from pipeline.store.files import folder_bytes, opened, sealed, size
from pipeline.store.health import examine
from pipeline.store.location import Location
from pipeline.store.seals import forget_gone

LARGE = ("frames", "frame_embeddings")  # written in large pieces: rewriting them would cost more than it saves
RECENT = datetime.timedelta(hours=1)  # readers may still be on a version this young
PIECES = 64
"""A table of more small files than this is written anew: reading its keys takes ten times as long as from one file."""
VERSIONS = 256
"""More old versions than this are let go."""
DELETED = 0.1
"""Share of rows that are only marked as deleted, from which their files are written anew."""
OLD = 0.25
"""Share of a table's bytes that belong to old versions, from which these are let go."""

_LEAST_BYTES = 64 << 20  # of old versions: below it nobody cares
_ROWS = 1 << 18  # of a file of small rows: what one damaged byte can cost
_BYTES = 256 << 20  # of a file of large rows
_BATCH = 64  # large rows in memory at once


@dataclass(frozen=True)
class Shape:
    """How a table lies on its disk.

    files: of the newest version. small: those that would be joined with others. rows, deleted: in these files.
    versions, tags: how many. bytes: of all versions. old: of data that neither the newest nor a tagged version holds;
    0 on an object store, where looking would take a request a file.
    """

    files: int = 0
    small: int = 0
    rows: int = 0
    deleted: int = 0
    versions: int = 0
    tags: int = 0
    bytes: int = 0
    old: int = 0

    def reasons(self) -> list[str]:
        """Why it pays to optimise the table; nothing when it does not."""
        found = []
        if self.small > PIECES:
            found.append(f"{self.small} small files")
        if self.deleted > DELETED * (self.rows + self.deleted):
            found.append(f"{self.deleted / (self.rows + self.deleted):.0%} of its rows are deleted")
        if self.versions > VERSIONS:
            found.append(f"{self.versions} versions")
        if self.old > max(_LEAST_BYTES, OLD * self.bytes):
            found.append(f"{self.old / self.bytes:.0%} of its bytes are old versions'")
        return found


def shape(table: Location, large: bool) -> Shape:
    """How a table lies; all zero when it is not there.

    Args:
        large: whether its rows are.
    """
    dataset = opened(table)
    if dataset is None:
        return Shape()
    with objects.reaching(table):
        fragments = dataset.get_fragments()
        tags = dataset.tags.list()
        deleted = sum(int(f.num_deletions) for f in fragments)
        rows = sum(int(f.physical_rows) for f in fragments) - deleted
        target = _target(dataset, large)
        small = sum(int(f.physical_rows) < target / 2 for f in fragments)
        kept = _bytes_by_file(dataset)
        if table.local:
            for about in tags.values():
                kept |= _bytes_by_file(dataset.checkout_version(int(about["version"])))
    whole = size(table)
    old = max(0, folder_bytes(table.path / "data") - sum(kept.values())) if table.local else 0
    versions = sum(name.endswith(".manifest") for name in objects.files(table / "_versions"))
    return Shape(len(fragments), small, rows, deleted, versions, len(tags), whole, old)


def compact(table: Location, dataset: Any, large: bool) -> bool:
    """Join small files and leave deleted rows behind, in one commit; whether there was anything to do.

    A damaged file is not rewritten, because the copy would look whole.

    Raises:
        UserError: a file of the table is damaged.
    """
    if table.local and not examine(table, pixels=False).whole:
        raise UserError(f"table {table}", "some of its files are damaged", "strive-data verify, then with --repair")
    options = {"batch_size": _BATCH, "num_threads": 1} if large else {}
    before = dataset.version
    with objects.reaching(table):
        dataset.optimize.compact_files(target_rows_per_fragment=_target(dataset, large), **options)
    after = opened(table)
    sealed(table, after)
    return bool(after.version != before)


def clean(table: Location, dataset: Any, unverified: bool, older: datetime.timedelta = RECENT) -> None:
    """Let go of old versions, except tagged and recent ones.

    Args:
        unverified: also of files that no version names; workers may have some that wait for their commit.
    """
    with objects.reaching(table):
        dataset.cleanup_old_versions(older, delete_unverified=unverified, error_if_tagged_old_versions=False)
    if table.local:
        forget_gone(table.path)


def _target(dataset: Any, large: bool) -> int:
    """Rows that a file is to have."""
    fragments = dataset.get_fragments()
    rows = sum(int(fragment.physical_rows) for fragment in fragments)
    if not large or not rows:
        return _ROWS
    return max(1, _BYTES * rows // max(1, sum(_bytes_by_file(dataset).values())))


def _bytes_by_file(dataset: Any) -> dict[str, int]:
    return {file.path: int(file.file_size_bytes or 0) for f in dataset.get_fragments() for file in f.data_files()}
