"""EasyR1: jsonl with `problem`, `answer`, and `videos` or `images`, and the prompt's frame as a jinja file."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.exports.common import (
    CLIPS,
    FRAMES,
    Format,
    Row,
    Sample,
    Shown,
    answer_text,
    refuse_one_answer,
    tagged,
)
from pipeline.exports.files import write_jsonl
from pipeline.prompts import SYSTEM


def row(sample: Sample, shown: Shown) -> Row:
    if shown.view is None:
        media: Row = {"videos": [shown.video]}
    else:
        media = {"images": list(shown.frames), "times": list(shown.times)}
    return {
        "problem": tagged(sample, shown),
        "answer": answer_text(sample),
        **media,
        **{name: sample[name] for name in ("task", "sample_id")},
    }


def write(folder: Path, root: Path, rows: Iterable[Row], medium: str) -> None:
    write_jsonl(folder / "train.jsonl", rows)
    (folder / "prompt.jinja").write_text("{{ content | trim }}\n" + SYSTEM + "\n", encoding="utf-8")


def usage(root: Path, medium: str) -> str:
    words = [f"data.train_files={root / 'train.jsonl'}", "data.prompt_key=problem", "data.answer_key=answer"]
    if medium == FRAMES:
        words.append(f"data.image_dir={root}")
    return " ".join([*words, f"data.format_prompt={root / 'prompt.jinja'}"])


FORMAT = Format("easyr1", "EasyR1", (CLIPS, FRAMES), refuse_one_answer, row, write, usage, "train.jsonl")
