"""TRL's GRPOTrainer: parquet with a conversational `prompt` and a column `images`; other columns reach the rewards."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from pipeline.exports.common import (
    ANSWER_TAG,
    FRAMES,
    SEVERAL_SPANS,
    Format,
    Row,
    Sample,
    Shown,
    answer_tag,
    clock,
    many_spans,
    question_of,
    solution,
)
from pipeline.exports.files import IMAGES, images, write_parquet
from pipeline.prompts import SYSTEM
from pipeline.schemas import SPAN

_CONTENT = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))

SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", _CONTENT)]))),
        ("images", IMAGES),
        ("solution", pa.string()),
        ("task", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("spans", pa.list_(SPAN)),
        ("times", SPAN),
        ("weight", pa.float64()),
        ("sample_id", pa.string()),
        ("variant", pa.int32()),
    ]
)


def refuse(sample: Sample, medium: str) -> str:
    if many_spans(sample):
        return SEVERAL_SPANS
    return ANSWER_TAG if answer_tag(sample) else ""


def row(sample: Sample, shown: Shown) -> Row:
    """Each frame's true time stands before it."""
    content = []
    for time in shown.times:
        content += [_text(clock(time)), {"type": "image", "text": None}]
    return {
        "prompt": [
            {"role": "system", "content": [_text(SYSTEM)]},
            {"role": "user", "content": [*content, _text(question_of(sample))]},
        ],
        "images": images(shown.jpegs),
        "solution": solution(sample),
        **{name: sample[name] for name in ("task", "options", "answer", "spans", "weight", "sample_id")},
        "times": list(shown.times),
        "variant": shown.view,
    }


def _text(text: str) -> dict[str, str | None]:
    return {"type": "text", "text": text}


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_parquet(folder / "data", rows, SCHEMA)


def usage(root: Path, medium: str) -> str:
    return f'GRPOTrainer(train_dataset=load_dataset("{root}", split="train"), ...)'


FORMAT = Format(
    *("trl", "TRL GRPOTrainer", (FRAMES,), refuse, row, write, usage, "data/train-*.parquet"),
    embeds=True,
    weighted=True,
)
