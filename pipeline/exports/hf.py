"""A dataset for the Hub: parquet with all that a curated dataset holds, its data card, and the frames as images."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from pipeline.exports.common import CLIPS, FRAMES, Format, Row, Sample, Shown
from pipeline.exports.files import IMAGES, images, write_parquet
from pipeline.schemas import CURATED, SPAN

_VIDEO = [("video", pa.string()), ("duration_s", pa.float64())]
_FRAMES = [("variant", pa.int32()), ("times", SPAN), ("images", IMAGES)]


def schema(medium: str) -> pa.Schema:
    """All columns of a curated dataset, the video's file and length, and with frames those of one view."""
    extra = _VIDEO + (_FRAMES if medium == FRAMES else [])
    return pa.schema([pa.field(name, type_) for name, type_ in [*((f.name, f.type) for f in CURATED), *extra]])


def refuse(sample: Sample, medium: str) -> str:
    return ""


def row(sample: Sample, shown: Shown) -> Row:
    found = {name: sample[name] for name in CURATED.names}
    found |= {"video": shown.video or None, "duration_s": shown.duration_s}
    if shown.view is not None:
        found |= {"variant": shown.view, "times": list(shown.times), "images": images(shown.jpegs)}
    return found


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_parquet(folder / "data", rows, schema(medium))


def usage(root: Path, medium: str) -> str:
    return f'datasets.load_dataset("{root}", split="train")'


FORMAT = Format(
    *("hf", "Hugging Face datasets", (CLIPS, FRAMES), refuse, row, write, usage, "data/train-*.parquet"),
    embeds=True,
    weighted=True,
    card=True,
)
