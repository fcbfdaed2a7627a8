"""strive-train eval: policies on the questions of a store, or predictions that lie there already."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, StorePath
from pipeline.errors import UserError
from toyworld import POLICY
from trainer.device import resolve_device

DEFAULT_DATASET = "default"


def evaluate(
    store: StorePath = STORE,
    dataset: Annotated[
        str | None, typer.Option(help="Curated dataset to answer. Default, without --split: default.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Tagged version of --dataset. Default: its newest version.")] = None,
    split: Annotated[str | None, typer.Option(help="Answer all samples of this split.")] = None,
    source: Annotated[str | None, typer.Option(help="Of these, the samples of one source only.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder in transformers' layout (a checkpoint), or a hub id; repeat it to compare several. "
            "Default: the toy world's policy."
        ),
    ] = None,
    view: Annotated[
        str,
        typer.Option(help="Views to answer on: anchor, importance, blind (no frame), several with commas, or all."),
    ] = "all",
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frame budget: the anchor is sampled anew from the cache, longer importance views are thinned evenly. "
            "Default: views as they were built."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples at most. Default: all.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 256,
    reward: Annotated[
        str | None,
        typer.Option(help='How reward parts join to the figure `reward`, e.g. "number=mra,format=0.1".'),
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="Type of the weights: fp32 or bf16.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Views answered together.")] = 16,
    cache_vision: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the vision tower's features, for runs and evaluations to come."),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="Grade these predictions instead of asking a policy; repeat it to compare several."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="The questions of --predictions that others published: a file as `strive-data ingest` reads."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="Layout of --annotations; `strive-data sources` lists them.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for predictions, summary.json and summary.md; an interrupted command goes on there."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")] = (
        False
    ),
) -> None:
    """Answer every sample at temperature 0; report each benchmark's own figures, for one checkpoint or side by side."""
    place = resolve_device(device)
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision {precision}", "expected fp32 or bf16", "strive-train eval --help")
    if annotations is not None and not predictions:
        raise UserError("--annotations", "they go with --predictions", "strive-train eval --help")
    from trainer.comparison import all_tables, evaluate_all, regrade
    from trainer.exams import Asked

    if predictions:
        if policy:
            raise UserError("--predictions", "expected either --policy or --predictions", "strive-train eval --help")
        found = regrade(predictions, annotations=annotations, format=format, out=out, reward=reward or "")
    else:
        chosen = DEFAULT_DATASET if dataset is None and split is None else dataset
        found = evaluate_all(
            store,
            policy or [str(POLICY)],
            Asked(chosen, tag, split, source, view, frames, limit),
            out=out,
            max_tokens=max_tokens,
            reward=reward or "",
            device=place,
            precision=precision,
            batch=batch,
            progress=output.Bar(),
            cache_vision=cache_vision,
        )
    if json:
        only = next(iter(found["checkpoints"].values()))
        output.print_json(only if len(found["checkpoints"]) == 1 else found)
        return
    for table in all_tables(found):
        output.print_table(table.title, table.columns, table.rows)
    for name, report in found["checkpoints"].items():
        for what in ("left_out", "failed"):
            if report[what]:
                told = ", ".join(f"{count} {reason}" for reason, count in report[what].items())
                output.line(f"{name}: {what.replace('_', ' ')}: {told}")
    if out is not None:
        output.line(f"written: {out / 'summary.md'}, {out / 'summary.json'}")
