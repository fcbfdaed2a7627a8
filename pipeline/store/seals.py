"""Seals: the size and the hash of each file of a table, noted when it is written, because Lance keeps no checksum.

Data files never change, so a file that no longer matches its seal was damaged. Pixels are left out of it: every frame
has a checksum of its own, which says which frame it is. Seals lie beside the table in a file of JSON lines; of two
lines about one file the first holds.
"""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from lance.file import LanceFileReader

FILE = "_seals.jsonl"
_BLOCK = 1 << 22
_PIXELS = "pixels"
_PLAIN = "FullZipLayout"  # how Lance calls a page whose first buffer holds the values as they are

Ranges = Sequence[Sequence[int]]

_known: dict[str, set[str]] = {}  # table -> files that this process knows to be sealed


class Seal(NamedTuple):
    """Of one file: its bytes, the hash of all but the (position, size) ranges that are left out, and these."""

    size: int
    digest: str
    out: tuple[tuple[int, int], ...]


def seal(path: Path, dataset: Any) -> None:
    """Seal the files of a version that have no seal yet, its own among them. The caller holds the store's lock.

    Raises:
        OSError: one of them is shorter than it was written, or cannot be read: the disk is full, and Lance has not
            noticed. The version is taken back before.
    """
    known = _known.get(str(path))
    if known is None:
        known = _known[str(path)] = set(seals(path))
    lines = []
    files = [manifest(path, dataset.version)]
    for fragment in dataset.get_fragments():
        new = [name for name in files_of(fragment) if name not in known]
        if new:
            _whole(path, dataset, fragment)
        files += new
    for name in files:
        if name not in known:
            lines.append(_line(name, _made(path, name)))
            known.add(name)
    if lines:
        _add(path / FILE, "".join(lines))


def seals(path: Path) -> dict[str, Seal]:
    """{file, relative to the table: its seal}. A line that was cut short or changed is left out."""
    file = path / FILE
    found: dict[str, Seal] = {}
    if not file.is_file():
        return found
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        text, tab, of_line = line.rpartition("\t")
        if tab and xxhash.xxh3_64_hexdigest(text.encode()) == of_line:
            row = json.loads(text)
            out = tuple((int(start), int(size)) for start, size in row["out"])
            found.setdefault(row["file"], Seal(row["bytes"], row["xxh3"], out))
    return found


def forget_gone(path: Path, going: str | None = None) -> None:
    """Drop the seals of files that are not there any more, in one step. The caller holds the store's lock.

    Args:
        going: a file that is about to be moved away, or ".", the whole table. Names of versions come again.
    """
    if going == ".":
        _known.pop(str(path), None)
        return
    there = {name: about for name, about in seals(path).items() if name != going and (path / name).exists()}
    fresh = path / f".{FILE}.{os.getpid()}"
    fresh.write_text("".join(_line(name, about) for name, about in there.items()), encoding="utf-8")
    fresh.replace(path / FILE)
    _known[str(path)] = set(there)


def _line(name: str, about: Seal) -> str:
    """A seal as it is written down, with a hash of its own: a changed seal must not speak against a good file."""
    text = json.dumps({"file": name, "bytes": about.size, "xxh3": about.digest, "out": about.out})
    return f"{text}\t{xxhash.xxh3_64_hexdigest(text.encode())}\n"


def manifest(path: Path, version: int) -> str:
    """The file of a version, relative to the table. Lance counts down from the largest number of 64 bits."""
    name = f"_versions/{(1 << 64) - 1 - version:020d}.manifest"
    return name if (path / name).is_file() else f"_versions/{version}.manifest"


def files_of(fragment: Any) -> list[str]:
    """The files of a fragment, relative to the table: its data, and what is deleted of it."""
    deleted = fragment.deletion_file()
    return [*(f"data/{file.path}" for file in fragment.data_files()), *([deleted] if deleted else [])]


def digest(file: Path, out: Ranges) -> str:
    """xxh3 of a file's bytes without some ranges, which ascend."""
    hashed = xxhash.xxh3_64()
    with file.open("rb", buffering=0) as stream:
        for start, end in _rest(os.fstat(stream.fileno()).st_size, out):
            stream.seek(start)
            left = end - start
            while left and (block := stream.read(min(left, _BLOCK))):
                hashed.update(block)
                left -= len(block)
    return hashed.hexdigest()


def _whole(path: Path, dataset: Any, fragment: Any) -> None:
    """Of the last piece of a file, Lance does not hear when the disk does not take it: that is seen by its length."""
    try:
        for file in fragment.data_files():
            written, there = file.file_size_bytes, (path / "data" / file.path).stat().st_size
            if written is not None and there != written:
                raise OSError(f"{file.path} has {there} bytes, not {written}")
        fragment.count_rows()
        if fragment.deletion_file():
            fragment.scanner(columns=[], with_row_address=True).to_table()
    except (OSError, ValueError) as error:
        (path / manifest(path, dataset.version)).unlink()  # the version before it is the newest again
        raise OSError(errno.ENOSPC, f"a file was cut short ({error})", str(path)) from error


def _made(path: Path, name: str) -> Seal:
    file = path / name
    out = _pixels(file) if name.startswith("data/") else ()
    return Seal(file.stat().st_size, digest(file, out), out)


def _pixels(file: Path) -> tuple[tuple[int, int], ...]:
    """Where a data file holds the values of the column `pixels`; nothing when they are packed."""
    about = LanceFileReader(str(file)).metadata()
    if _PIXELS not in about.schema.names:
        return ()
    pages = about.columns[about.schema.names.index(_PIXELS)].pages
    plain = [page.buffers[0] for page in pages if page.buffers and _PLAIN in repr(page.encoding)]
    return tuple(sorted((buffer.position, buffer.size) for buffer in plain))


def _rest(size: int, out: Ranges) -> Iterator[tuple[int, int]]:
    """The (start, end) of what lies between the ranges."""
    place = 0
    for start, length in out:
        if start > place:
            yield place, start
        place = start + length
    if place < size:
        yield place, size


def _add(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":  # a kill left half a line
            text = "\n" + text
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
