"""evaluate-scorer: parse, call, print. Registered by cli.data."""

from typing import Annotated, Any

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline.errors import UserError
from pipeline.store import Store

_MEANING = {
    "flat": "samples whose scores tell nothing; coverage chose",
    "short": "samples with no more frames than the view; it has them all",
}


def evaluate_scorer(
    store: StorePath = STORE,
    source: Annotated[str | None, typer.Option("--source", help="Only samples of this source.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only samples of this split.")] = None,
    frames: Annotated[str, typer.Option("--frames", help="Frames a view, separated by commas.")] = "8,16",
    seed: Annotated[int, typer.Option("--seed", help="Of the samplers that work by chance.")] = 0,
    moments: Annotated[
        str | None,
        typer.Option("--moments", help="Key of the original rows with the spans to judge by. Default: the true spans."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge scores and samplers by the true spans: AUC, how often a view hits the moment, how much it leaves unseen."""
    from pipeline.evidence import evaluate

    opened = Store(store)
    found = evaluate(opened, budgets(frames), source, split, seed, moments, output.Bar())
    fewest = min(row["frames"] for row in found["samplers"])
    of_fewest = [row for row in found["samplers"] if row["frames"] == fewest]
    best = max(of_fewest, key=lambda row: (row["hit_all"], row["hit"], -row["gap"]))
    next_command = f"strive-data build-variants --store {store} --sampler {best['sampler']} --frames {best['frames']}"
    if as_json:
        output.print_json(found | {"next": next_command})
        return
    shown = [name for name in ("flat", "short") if any(row[name] for row in found["samplers"])]
    rows: list[list[Any]] = [
        [row["sampler"], row["frames"], _share(row, "hit"), _share(row, "hit_all"), f"{row['gap']:.1%}"]
        + [row[name] for name in shown]
        for row in sorted(found["samplers"], key=lambda row: row["frames"])
    ]
    names = ["sampler", "frames", "hit", "hit all", "largest gap", *shown]
    output.print_table("views that show a moment (hit), or each of them (hit all)", names, rows)
    auc = f"{found['auc']:.3f}" + ("" if found["auc_se"] is None else f" ± {found['auc_se']:.3f}")
    for name in shown:
        output.note(f"{name}: {_MEANING[name]}")
    output.print_summary(
        f"evaluate-scorer ({', '.join(found['scorers'])})",
        f"{found['samples']} samples with moments and scores; {found['inside']:.1%} of their frames show them",
        f"AUC {auc}: 0.5 is chance",
        found["left_out"],
        next_command,
    )


def budgets(text: str) -> list[int]:
    """ "8,16" as numbers, each once, ascending.

    Raises:
        UserError: not whole numbers from 1 on.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) >= 1 for word in words):
        raise UserError(f"--frames {text}", "whole numbers from 1 on, separated by commas", "--frames 8,16")
    return sorted({int(word) for word in words})


def _share(row: dict[str, Any], name: str) -> str:
    error = row[f"{name}_se"]
    return f"{row[name]:.1%}" + ("" if error is None else f" ±{100 * error:.1f}")
