"""Our own jsonl: all that a curated dataset holds, under the names that `strive-data ingest` reads as they are."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.exports.common import CLIPS, FRAMES, Format, Row, Sample, Shown, row_id
from pipeline.exports.files import write_jsonl
from pipeline.schemas import CURATED


def refuse(sample: Sample, medium: str) -> str:
    return ""


def row(sample: Sample, shown: Shown) -> Row:
    found: Row = {"id": row_id(sample, shown), "video": shown.video or None, "duration": shown.duration_s}
    if shown.view is not None:
        found |= {"variant": shown.view, "frames": list(shown.frames), "times": list(shown.times)}
    return found | {name: sample[name] for name in CURATED.names}


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_jsonl(folder / "train.jsonl", rows)


def usage(root: Path, medium: str) -> str:
    return f"polars.read_ndjson('{root / 'train.jsonl'}'), or strive-data ingest {root / 'train.jsonl'}"


FORMAT = Format(
    *("jsonl", "our own", (CLIPS, FRAMES), refuse, row, write, usage, "train.jsonl"),
    weighted=True,
)
