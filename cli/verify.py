"""verify: parse, call, print. Registered by cli.data."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline.errors import UserError
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.verify import Verdict

WRONG = 1


def verify(
    store: StorePath = STORE,
    frames: Annotated[
        str, typer.Option("--frames", help="Frames whose checksums are compared: all, or so many drawn at random.")
    ] = "all",
    pixels: Annotated[
        int, typer.Option("--pixels", min=0, help="Decode so many frames again and compare them with their videos.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.")] = 0,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Drop what is wrong, and only that, so that the commands shown make it again."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every table: files, duplicates, references, fingerprints, pixels; say what to redo.

    Ends with 0 when all is well, with 1 when something is wrong, repaired or not.
    """
    from cli.recipes import commands_for, stages
    from pipeline import verify as checks

    if frames != "all" and not frames.isdecimal():
        raise UserError(f"--frames {frames}", "all, or a number of frames", "strive-data verify --help")
    opened = Store(store)
    known, unknown = stages(opened)
    sample = None if frames == "all" else int(frames)
    verdict = checks.verify(opened, known, frames=sample, pixels=pixels, seed=seed, progress=output.Bar())
    verdict.skipped += unknown
    done = checks.repair(opened, verdict) if repair else []
    again = [command for name in verdict.redo() for command in commands_for(opened, name)]
    fixable = any(f.fragments or f.aside or f.tags or len(f.drop) for f in verdict.findings)
    if fixable and not repair:
        again = [f"strive-data verify --repair --store {store}", *again]
    if as_json:
        output.print_json(verdict.as_dict() | {"repaired": done, "next": again})
    else:
        _print(verdict, done, again)
    if not verdict.well:
        raise typer.Exit(WRONG)


def _print(verdict: "Verdict", done: list[str], again: list[str]) -> None:
    for title, wrong in (("wrong", True), ("to know", False)):
        rows = [
            [f.table, f.what, f"{f.count} {f.unit}", f.where, f.message, f.repair]
            for f in verdict.findings
            if f.wrong is wrong
        ]
        if rows:
            output.print_table(title, ["table", "what", "how much", "where", "why", "--repair"], rows)
    if done:
        output.print_table("repaired", ["step"], [[line] for line in done])
    if verdict.skipped:
        output.print_table("not looked at", ["what"], [[line] for line in verdict.skipped])
    unsealed = sum(about["unsealed"] for about in verdict.tables.values())
    files = sum(about["files"] for about in verdict.tables.values())
    whole = sum(about["rows"] for about in verdict.tables.values())
    came_in = f"{whole} rows of {len(verdict.tables)} tables in {files} files"
    state = "all is well" if verdict.well else f"{sum(f.wrong for f in verdict.findings)} things are wrong"
    output.print_summary(
        f"verify: {verdict.store}",
        came_in + (f", {unsealed} of them without a seal" if unsealed else ""),
        f"{verdict.frames} frames compared with their checksums, {verdict.pixels} with their videos; {state}",
        {},
        "; ".join(again) or "nothing to do",
    )
