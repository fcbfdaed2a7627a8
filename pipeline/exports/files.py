"""The files of an export: a folder written aside that appears complete, json, jsonl, and parquet with images."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.exports.common import Row
from pipeline.sources.values import plain

MANIFEST = "export.json"
"""Written last. A folder that bears it is ours, and complete."""

IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
"""A list of images as the `datasets` library keeps them in a table."""

_SHARD_BYTES = 256 << 20  # of a parquet file, about
_GROUP_BYTES = 32 << 20  # of rows that wait in memory
_GROUP_ROWS = 1000


@contextmanager
def complete_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place when the block ends; after an error nothing is left of it.

    Args:
        out: absolute; where the folder is to be.
        overwrite: replace an earlier export there.

    Raises:
        UserError: something else is there, or the disk does not take it.
    """
    _refuse(out, overwrite)
    aside = out.parent / f".{out.name}.new.{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)  # of a process of the same number that was killed
        aside.mkdir()
        yield aside
        _swap(aside, out)
    except OSError as error:
        raise UserError(str(out), f"cannot be written ({error})", "make room, or choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse(out: Path, overwrite: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"--out {out}", "a folder, or a name that is free", "choose another --out")
    if not out.exists() or not any(out.iterdir()):
        return
    if not _is_export(out / MANIFEST):
        raise UserError(f"--out {out}", "an empty folder, or a name that is free", "choose another --out")
    if not overwrite:
        raise UserError(f"--out {out}", "it holds an export already", "choose another --out, or say --overwrite")


def _is_export(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format", "dataset", "fingerprint"} <= set(found)


def _swap(aside: Path, out: Path) -> None:
    old = out.parent / f".{out.name}.old.{os.getpid()}"
    if out.exists():
        out.rename(old)
    try:
        aside.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def as_json(value: Any) -> str:
    """One line of JSON; a number that is not finite becomes null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def write_json(file: Path, rows: Iterable[Row]) -> None:
    """A list of rows, one a line, written as they come."""
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("[")
        for number, row in enumerate(rows):
            stream.write((",\n" if number else "\n") + as_json(row))
        stream.write("\n]\n")


def write_jsonl(file: Path, rows: Iterable[Row]) -> None:
    """One row a line, written as they come."""
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(as_json(row) + "\n" for row in rows)


def write_parquet(folder: Path, rows: Iterable[Row], schema: pa.Schema) -> None:
    """Shards train-00000-of-00002.parquet, ... that the `datasets` library opens, images as images.

    Args:
        schema: of the rows; a column of type `IMAGES` holds JPEGs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    schema = schema.with_metadata({"huggingface": json.dumps(about)})
    parts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    try:
        for group in _groups(rows):
            if writer is None:
                parts.append(folder / f"part-{len(parts):05d}")
                writer = pq.ParquetWriter(parts[-1], schema)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            if parts[-1].stat().st_size >= _SHARD_BYTES:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    for number, part in zip(count(), parts, strict=False):
        part.rename(folder / f"train-{number:05d}-of-{len(parts):05d}.parquet")


def images(jpegs: Iterable[bytes]) -> list[dict[str, Any]]:
    """JPEGs as values of a column of type `IMAGES`."""
    return [{"bytes": jpeg, "path": f"{place}.jpg"} for place, jpeg in enumerate(jpegs)]


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    waiting = 0
    for row in rows:
        group.append(row)
        waiting += sum(len(image["bytes"]) for image in row.get("images", ()))
        if waiting >= _GROUP_BYTES or len(group) >= _GROUP_ROWS:
            yield group
            group, waiting = [], 0
    if group:
        yield group


def _feature(type_: pa.DataType) -> Any:
    """A column's type as the `datasets` library writes it. The list in brackets is read by its old and new versions."""
    if type_ == IMAGES:
        return [{"_type": "Image"}]
    if pa.types.is_list(type_):
        return [_feature(type_.value_type)]
    if pa.types.is_struct(type_):
        return {field.name: _feature(field.type) for field in type_}
    dtype = {"double": "float64", "float": "float32"}.get(str(type_), str(type_))
    return {"dtype": dtype, "_type": "Value"}
