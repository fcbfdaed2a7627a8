"""Seals: the size and the hash of each file of a table, noted when it is written, because Lance keeps no checksum.

Data files never change, so a file that no longer matches its seal was damaged. Pixels are left out of it: every frame
has a checksum of its own, which says which frame it is. Seals lie beside the table in a file of JSON lines; of two
lines about one file the first holds.
"""

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
    """Seal the files of a version that have no seal yet. The caller holds the store's lock."""
    known = _known.get(str(path))
    if known is None:
        known = _known[str(path)] = set(seals(path))
    lines = []
    for fragment in dataset.get_fragments():
        for name in files_of(fragment):
            if name not in known:
                found = _made(path, name)
                lines.append(json.dumps({"file": name, "bytes": found.size, "xxh3": found.digest, "out": found.out}))
                known.add(name)
    if lines:
        _add(path / FILE, "".join(line + "\n" for line in lines))


def seals(path: Path) -> dict[str, Seal]:
    """{file, relative to the table: its seal}. A line that a kill cut short is left out."""
    file = path / FILE
    found: dict[str, Seal] = {}
    if not file.is_file():
        return found
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            out = tuple((int(start), int(size)) for start, size in row["out"])
            found.setdefault(row["file"], Seal(int(row["bytes"]), str(row["xxh3"]), out))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def forget_gone(path: Path) -> None:
    """Drop the seals of files that are not there any more, in one step. The caller holds the store's lock."""
    there = {name: about for name, about in seals(path).items() if (path / name).exists()}
    lines = [
        json.dumps({"file": name, "bytes": about.size, "xxh3": about.digest, "out": about.out}) + "\n"
        for name, about in there.items()
    ]
    fresh = path / f".{FILE}.{os.getpid()}"
    fresh.write_text("".join(lines), encoding="utf-8")
    fresh.replace(path / FILE)
    _known[str(path)] = set(there)


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
