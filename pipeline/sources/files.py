"""What an annotation file holds, by its ending. The only part of `sources` that opens files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.errors import UserError

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt", ".yaml", ".yml")

csv.field_size_limit(1 << 30)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only, and no aliases: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken")
        return super().compose_node(parent, index)


def read_content(file: Path) -> Any:
    """json and yaml: the value; jsonl, csv, parquet: a list of rows; txt: a list of lines that are not blank.

    Raises:
        UserError: there is no such file, it is empty, unreadable, or of another kind.
    """
    name = str(file)
    if not file.is_file():
        raise UserError(name, "there is no such file", "check the path of the annotation file")
    try:
        content = _read(file)
    except (ValueError, csv.Error, OSError, RecursionError, yaml.YAMLError, pa.ArrowException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kind = file.suffix[1:] or "annotations"
        raise UserError(name, f"not readable as {kind} ({first})", "repair the file") from error
    if not content:
        raise UserError(name, "the file holds no rows", "check the path of the annotation file")
    return content


def _read(file: Path) -> Any:
    kind = file.suffix.lower()
    if kind not in ENDINGS:
        raise ValueError(f"the kinds are {', '.join(ENDINGS)}")
    if kind == ".parquet":
        return list(pq.read_table(file).to_pylist())
    if kind == ".json":
        return json.loads(file.read_text(encoding="utf-8-sig") or "[]")
    if kind == ".jsonl":
        return list(_lines(file))
    if kind == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    if kind == ".txt":
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - a SafeLoader


def _lines(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
