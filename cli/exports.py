"""export: parse, call, print. Registered by cli.data."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline.errors import UserError
from pipeline.store import Store


def export(
    format: Annotated[str, typer.Option("--format", help="video-r1, temporal-r1, trl, ms-swift, easyr1, hf or jsonl.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must be free.")],
    store: StorePath = STORE,
    name: Annotated[str, typer.Option("--name", help="Of the curated dataset.")] = "default",
    tag: Annotated[str | None, typer.Option("--tag", help="Of its version. Default: the newest.")] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Rows show the frames of a view, as JPEG.")] = False,
    clips: Annotated[
        bool, typer.Option("--clips", help="Rows name the video files. Default: what the format is made for.")
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(
            "--view", help="With frames: anchor, importance (the first that the scores chose) or all, a row each."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")] = False,
    as_json: Json = False,
) -> None:
    """Write a curated dataset in the documented layout of another trainer."""
    from pipeline.exports.export import export as write_export

    if frames and clips:
        raise UserError("--frames --clips", "one of the two", "leave out the other")
    report = write_export(
        Store(store),
        name,
        format,
        out,
        tag=tag,
        medium="frames" if frames else "clips" if clips else None,
        view=view,
        overwrite=overwrite,
        command=shlex.join(["strive-data", *sys.argv[1:]]),
        progress=output.Bar(),
    )
    if as_json:
        output.print_json(report.as_dict())
        return
    if report.weights:
        output.note(f"{report.weights} samples have a weight other than 1, for which {format} has no place")
    tasks = ", ".join(f"{count} {task}" for task, count in report.tasks.items())
    output.print_summary(
        f"export {name}, tag {report.tag}, as {format}",
        f"{report.samples} samples",
        f"{report.exported} samples ({tasks}) as {report.rows} rows, {report.medium}: {report.out}",
        report.left_out,
        report.usage,
    )
