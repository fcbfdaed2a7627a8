"""report of strive-train: parse, call, print. Registered by cli.train."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import Json
from pipeline.errors import UserError

_HELP = "strive-train report --help"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs: what was their --out.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write, replaced when it is there.")] = Path(
        "runs.html"
    ),
    smooth: Annotated[
        float, typer.Option("--smooth", help="Of the bold curves: what a step weighs against the next, 0 to below 1.")
    ] = 0.9,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            "--answers",
            help="Predictions of two checkpoints, shown side by side: two files that `strive-train eval --out` wrote "
            "(give it twice), or the folder of an eval of two.",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Store with the frames that they saw. Default: no frames are shown.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Questions shown side by side, at most.")] = 100,
    films: Annotated[int, typer.Option("--open-film", min=0, help="Of these, how many with frames, at most.")] = 40,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about training runs: curves, seconds, settings, and answers side by side."""
    if not 0 <= smooth < 1:
        raise UserError(f"--smooth {smooth:g}", "expected 0 or more, and less than 1", _HELP)
    if store is not None and not answers:
        raise UserError(f"--store {store}", "the frames go with --answers", _HELP)
    from pipeline.report.page import refuse_place

    refuse_place(out)  # before the work, not after it
    from trainer.runreport import answers as side_by_side
    from trainer.runreport import page
    from trainer.runreport.runs import read_runs

    found = read_runs(runs)
    compared = None
    if answers:
        from pipeline.framereader import FrameReader
        from pipeline.store import Store

        reader = FrameReader(Store(store)) if store is not None else None
        compared = side_by_side.compare(side_by_side.files_of(answers), samples, films, reader)
    size = page.write(found, out, smooth, compared)
    for run in found:
        for note in run.notes:
            output.note(f"{run.name}: {note}")
    steps = {run.name: run.steps for run in found}
    if as_json:
        pairs = {} if compared is None else {"pairs": compared.pairs, "shown": len(compared.shown)}
        output.print_json({"page": str(out), "bytes": size, "steps": steps, **pairs})
        return
    shown = "" if compared is None else f", {len(compared.shown)} of {compared.pairs} questions side by side"
    output.print_summary(
        f"report of {len(found)} runs" if len(found) > 1 else "report of a run",
        ", ".join(f"{name} ({count} steps)" for name, count in steps.items()),
        f"{out}: {output.size(size)}{shown}",
        {},
        f"open {out} in a browser",
    )
