"""A table looked at as files: does its newest version open, is every file what was written, which rows lie in others.

And what puts such a table right: each step is one atomic commit or one rename.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance

from pipeline.store import objects
from pipeline.store.examined import DAMAGE, PIXEL_BATCH, Broken, Examined, rows_of
from pipeline.store.location import Location, locate
from pipeline.store.seals import Seal, digest, files_of, forget_gone, seals

_VERSIONS = "_versions"
TORN, MISSING, SHORT, CHANGED, UNREADABLE = (
    "torn version",
    "missing file",
    "cut file",
    "changed file",
    "unreadable file",
)


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
    except DAMAGE as error:
        return Broken(TORN, name, _short(error))
    found.dataset = dataset
    return None


def _look(found: Examined, pixels: bool) -> None:
    known = found.known
    there = None if found.place.local else set(objects.names(found.place))
    first = 0
    for fragment in found.dataset.get_fragments():
        rows = rows_of(fragment)
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
            for _ in fragment.to_batches(columns=columns, batch_size=PIXEL_BATCH if "pixels" in columns else None):
                pass
    except DAMAGE as error:
        return UNREADABLE, files_of(fragment)[0], _short(error)
    return None


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
