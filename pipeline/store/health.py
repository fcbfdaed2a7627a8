"""A table looked at as files: does its newest version open, is every file what was written, which rows lie in others.

And what puts such a table right: each step is one atomic commit or one rename.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from pipeline.store import objects
from pipeline.store.location import Location, locate
from pipeline.store.seals import Seal, digest, files_of, forget_gone, seals
from pipeline.store.snapshot import pages

_VERSIONS, _TAGS = "_versions", "_refs/tags"
_PIXEL_BATCH, _LARGE_BATCH = 64, 256
_FRAME = ["video_id", "index", "checksum"]
_LARGE = {"embeddings", "scores", "indices"}  # columns of which few rows are held at once
TORN, MISSING, SHORT, CHANGED, UNREADABLE = (
    "torn version",
    "missing file",
    "cut file",
    "changed file",
    "unreadable file",
)

_DAMAGE = (OSError, ValueError, RuntimeError)  # what Lance raises for files that it cannot make sense of


@dataclass(frozen=True)
class Broken:
    """A file that does not hold what was written.

    fragment: which piece of the table it belongs to; None for a version. first, rows: of the table, in scan order, that
    lie in it.
    """

    what: str
    file: str
    message: str
    fragment: int | None = None
    first: int = 0
    rows: int = 0


@dataclass
class Examined:
    """The newest version of a table that opens, and what is wrong with its files.

    dataset: None when the table is not there, or no version opens (then `broken` says so). old: damaged versions before
    it, whose rows it does not need. files: looked at. unsealed:
    those without a seal, because their writer was killed before it made one, or on an object store, where there are
    none; they were read instead.
    """

    place: Location
    dataset: Any = None
    broken: list[Broken] = field(default_factory=list)
    old: list[Broken] = field(default_factory=list)
    files: int = 0
    unsealed: int = 0
    digests: dict[Path, str] = field(default_factory=dict, repr=False)
    known: dict[str, Seal] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """Rows outside of broken files."""
        return sum(_rows(fragment) for fragment in self.good())

    @property
    def whole(self) -> bool:
        """Whether no row was lost to a broken file."""
        return not self.broken

    def good(self) -> list[Any]:
        """The fragments whose files are whole, in scan order."""
        if self.dataset is None:
            return []
        bad = {broken.fragment for broken in self.broken}
        return [fragment for fragment in self.dataset.get_fragments() if fragment.fragment_id not in bad]

    def tags(self) -> dict[str, int]:
        """{tag: version}, of the tags whose files can be read."""
        return {name.removesuffix(".json"): version for name, version in self._tag_files() if version is not None}

    def lost_tags(self) -> list[str]:
        """The files of tags that cannot be read, relative to the table."""
        return [f"{_TAGS}/{name}" for name, version in self._tag_files() if version is None]

    def _tag_files(self) -> list[tuple[str, int | None]]:
        found: list[tuple[str, int | None]] = []
        for name in sorted(objects.files(self.place / _TAGS)):
            try:
                found.append((name, int(json.loads(objects.read(self.place / _TAGS / name) or b"")["version"])))
            except (ValueError, KeyError, TypeError):
                found.append((name, None))
        return found

    def numbers(self) -> list[int]:
        """The numbers of all fragments, in scan order."""
        return [] if self.dataset is None else [int(f.fragment_id) for f in self.dataset.get_fragments()]

    def table(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        """Some columns of all rows outside of broken files, and `_rowaddr` (uint64), in scan order."""
        parts = list(self.batches(columns))
        wanted = pa.schema([*(schema.field(name) for name in columns), pa.field("_rowaddr", pa.uint64())])
        return pa.Table.from_batches(parts).cast(wanted) if parts else wanted.empty_table()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The same, piece by piece."""
        fragments = self.good()
        if not fragments:
            return
        some = {"batch_size": _LARGE_BATCH, "batch_readahead": 2} if _LARGE & set(columns) else {}
        yield from self.dataset.scanner(
            columns=list(columns), fragments=fragments, with_row_address=True, scan_in_order=True, **some
        ).to_batches()

    def stored(self) -> Iterator[tuple[pa.Table, Any]]:
        """The frames of each whole file without their pixels, and how to get those: see `Stored`."""
        for fragment in self.good():
            scanner = self.dataset.scanner(columns=_FRAME, fragments=[fragment], with_row_address=True)
            yield scanner.to_table(), Stored(self.place, self.dataset, fragment)


class Stored:
    """The pixels of one file of frames, as bytes."""

    def __init__(self, place: Location, dataset: Any, fragment: Any) -> None:
        self._place, self._dataset, self._fragment = place, dataset, fragment

    @property
    def local(self) -> bool:
        """Whether the data file can be read as a file."""
        return self._place.local

    def pages(self) -> tuple[Path, list[list[tuple[int, int]]], int]:
        """As `Snapshot.pages`, of the column `pixels`."""
        return pages(self._place.path, self._fragment, "pixels")

    def many(self, rows: Sequence[int]) -> Iterator[Any]:
        """As `take` for each of many ascending rows, some of them by one request."""
        first = int(self._fragment.fragment_id) << 32
        for some in (rows[i : i + _PIXEL_BATCH] for i in range(0, len(rows), _PIXEL_BATCH)):
            listed = ", ".join(str(first + row) for row in some)
            scanner = self._dataset.scanner(columns=["pixels"], filter=f"_rowaddr IN ({listed})", with_row_address=True)
            try:
                with objects.reaching(self._place):
                    found = scanner.to_table()
            except _DAMAGE:
                yield from map(self.take, some)
                continue
            values = dict(zip(found["_rowaddr"].to_pylist(), found["pixels"], strict=True))
            for row in some:
                value = values.get(first + row)
                yield None if value is None else value.as_buffer()

    def take(self, row: int) -> Any:
        """The bytes of a row of the file (deleted rows counted), by Lance; None when it cannot read them."""
        address = (int(self._fragment.fragment_id) << 32) + row
        try:
            scanner = self._dataset.scanner(columns=["pixels"], filter=f"_rowaddr = {address}")
            with objects.reaching(self._place):
                return scanner.to_table()["pixels"][0].as_buffer()
        except _DAMAGE:
            return None


def examine(
    place: Location, version: int | None = None, pixels: bool = True, digests: dict[Path, str] | None = None
) -> Examined:
    """Look at the files of a table's newest version, or of a certain one.

    Args:
        pixels: whether files without a seal that hold pixels are read to their end.
        digests: of files that were read before; filled.
    """
    known = seals(place.path) if place.local else {}
    found = Examined(place, digests={} if digests is None else digests, known=known)
    if not manifests(place):
        return found
    if version is None:
        _open_newest(found)
    else:
        torn = _opened(found, version)
        found.broken += [torn] if torn else []
    if found.dataset is not None:
        _look(found, pixels)
    return found


def manifests(place: Location | Path) -> list[int]:
    """The numbers of the versions that a table has files of, the newest first."""
    names = objects.files(locate(place) / _VERSIONS)
    return sorted((_number(name) for name in names if name.endswith(".manifest")), reverse=True)


def drop_fragments(place: Location, numbers: Sequence[int]) -> None:
    """Remove pieces of a table as wholes, without reading them, in one commit."""
    dataset = _open(place, None)
    gone = lance.LanceOperation.Delete([], sorted(numbers), "damaged")
    lance.LanceDataset.commit(place.uri, gone, read_version=dataset.version, storage_options=place.storage)


def forget_tag(place: Location, tag: str) -> None:
    """Take a tag away."""
    _open(place, None).tags.delete(tag)


def set_aside(table: Location, part: str, folder: Location) -> Location:
    """Move a file of a table, or all of it ("."), into a folder, under a name that is free there: where it is now."""
    file = table if part == "." else table / part
    if table.local:
        forget_gone(table.path, going=part)
    taken = {name.partition("/")[0] for name in objects.names(folder)}
    name, count = file.name, 1
    while name in taken:
        name, count = f"{file.name}.{count}", count + 1
    objects.move(file, folder / name)
    return folder / name


def _open_newest(found: Examined) -> None:
    """The newest version that opens; those above it are torn. On an object store those below it are not looked at."""
    for number in manifests(found.place):
        if found.dataset is not None and not found.place.local:
            return
        newest = found.dataset
        torn = _opened(found, number)
        if torn is not None:
            (found.broken if newest is None else found.old).append(torn)
        found.dataset = newest or found.dataset


def _opened(found: Examined, version: int) -> Broken | None:
    """Open a version; or what is wrong with its file."""
    name = f"{_VERSIONS}/{_manifest(found.place, version)}"
    mark = found.known.get(name)
    if mark is not None:
        file = found.place.path / name
        if file.is_file() and (file.stat().st_size != mark.size or digest(file, mark.out) != mark.digest):
            return Broken(TORN, name, "its bytes are not those that were written")
    try:
        dataset = _open(found.place, version)
        dataset.get_fragments()
    except _DAMAGE as error:
        return Broken(TORN, name, _short(error))
    found.dataset = dataset
    return None


def _look(found: Examined, pixels: bool) -> None:
    known = found.known
    there = None if found.place.local else set(objects.names(found.place))
    first = 0
    for fragment in found.dataset.get_fragments():
        rows = _rows(fragment)
        wrong = _wrong_file(found, fragment, known) if there is None else _lost_file(found, fragment, there)
        if wrong is None and any(name not in known for name in files_of(fragment)):
            wrong = _unreadable(found.place, fragment, pixels)
        if wrong is not None:
            found.broken.append(Broken(*wrong, fragment.fragment_id, first, rows))
        first += rows


def _wrong_file(found: Examined, fragment: Any, known: dict[str, Seal]) -> tuple[str, str, str] | None:
    sizes = {f"data/{file.path}": file.file_size_bytes for file in fragment.data_files()}
    for name in files_of(fragment):
        file = found.place.path / name
        found.files += 1
        if not file.is_file():
            return MISSING, name, "it is not there"
        mark = known.get(name)
        size = mark.size if mark else sizes.get(name)
        if size and file.stat().st_size != size:
            return SHORT, name, f"it has {file.stat().st_size} bytes instead of {size}"
        if mark is None:
            found.unsealed += 1
        elif _digest(found, file, mark) != mark.digest:
            return CHANGED, name, "its bytes are not those that were written"
    return None


def _lost_file(found: Examined, fragment: Any, there: set[str]) -> tuple[str, str, str] | None:
    """On an object store, which stores an object wholly or not at all, and checks its bytes by itself."""
    names = files_of(fragment)
    found.files += len(names)
    found.unsealed += len(names)
    return next(((MISSING, name, "it is not there") for name in names if name not in there), None)


def _digest(found: Examined, file: Path, mark: Seal) -> str:
    if file not in found.digests:
        found.digests[file] = digest(file, mark.out)
    return found.digests[file]


def _unreadable(place: Location, fragment: Any, pixels: bool) -> tuple[str, str, str] | None:
    """A fragment whose values Lance cannot decode."""
    columns = [name for name in fragment.schema.names if pixels or name != "pixels"]
    try:
        with objects.reaching(place):
            for _ in fragment.to_batches(columns=columns, batch_size=_PIXEL_BATCH if "pixels" in columns else None):
                pass
    except _DAMAGE as error:
        return UNREADABLE, files_of(fragment)[0], _short(error)
    return None


def _rows(fragment: Any) -> int:
    deleted = fragment.metadata.deletion_file  # counting by Lance would read the file
    return int(fragment.physical_rows) - (int(deleted.num_deleted_rows) if deleted else 0)


def _number(name: str) -> int:
    """Lance counts its versions down from the largest number of 64 bits, so that the newest is listed first."""
    number = int(name.removesuffix(".manifest"))
    return number if number < 1 << 63 else (1 << 64) - 1 - number


def _open(place: Location, version: int | None) -> Any:
    with objects.reaching(place):
        return lance.dataset(place.uri, version=version, storage_options=place.storage)


def _manifest(place: Location, number: int) -> str:
    """The name of a version's file."""
    names = (name for name in objects.files(place / _VERSIONS) if name.endswith(".manifest"))
    return next((name for name in names if _number(name) == number), f"{number}.manifest")


def _short(error: Exception) -> str:
    """Lance's message without the place in its own source, which says nothing to a user."""
    text = " ".join(str(error).split())
    return text.split(", /")[0].removeprefix("External error: ")[:200]
