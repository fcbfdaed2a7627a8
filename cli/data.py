"""strive-data: from annotations and videos to a curated dataset."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.curation import build_variants, score_frames, select
from pipeline import inspect as inspection
from pipeline import status as store_status
from pipeline.errors import UserError
from pipeline.frames import CacheFrames, estimate_bytes
from pipeline.ingest import ingest as ingest_file
from pipeline.ingest import total_of
from pipeline.runner import run
from pipeline.store import Store
from toyworld import dataset

PROGRAM = "strive-data"

app = typer.Typer(
    name=PROGRAM, help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

StorePath = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
DEFAULT_STORE = Path("strive-store")


@app.callback(invoke_without_command=True)
def strive_data(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=output.version_option(PROGRAM)),
    ] = False,
) -> None:
    """From annotations and videos to a curated dataset: ingest, cache-frames, score-frames, build-variants, select."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def ingest(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Annotations: json, jsonl, csv or parquet. Without it the toy world is written and ingested."
        ),
    ] = None,
    store: StorePath = DEFAULT_STORE,
    videos: Annotated[
        Path | None, typer.Option(help="Folder where the paths in FILE start. Default: the folder of FILE.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Name of this source; one file is one source. Default: the name of FILE.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the rows that name none.")] = "train",
    format: Annotated[str, typer.Option(help="Layout of FILE: video-r1, generic or auto.")] = "auto",
    map: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a generic file, as FIELD=COLUMN; may be repeated. Fields: id, video, question, options "
            "(several columns: options=a0,a1,a2), answer, answer_index (from 0), spans, task, split.",
            metavar="FIELD=COLUMN",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that look into the video files; 0: this one.")] = 1,
    clips: Annotated[int, typer.Option(help="Clips of the toy world.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of the toy world.")] = 0,
    json: Json = False,
) -> None:
    """Bring questions and their videos into the store.

    The samples of a source are brought to what FILE says: the same file again adds nothing, an edited file adds and
    removes. Rows that cannot become a sample are kept in quarantine with their reason.
    """
    _not_negative("--workers", workers)
    mapping = _mapping(map or [])
    bar = output.Bar()
    if file is not None:
        opened = Store(store, create=True) if file.is_file() else None
        if opened is None:
            raise UserError(str(file), "there is no such file", "check the path of the annotation file")
        reports = [ingest_file(opened, file, videos, source, split, format, mapping, workers=workers, progress=bar)]
    else:
        if clips < 1:
            raise UserError(f"--clips {clips}", "at least 1", "try --clips 120")
        opened = Store(store, create=True)
        output.note(f"writing the toy world: {clips} clips into {store / 'toyworld'}")
        files = dataset.write(opened.path / "toyworld", clips, seed, split)
        reports = [
            ingest_file(opened, f, None, f"toyworld-{f.stem}", split, "auto", None, workers=workers, progress=bar)
            for f in files
        ]
    total = total_of(opened, reports)
    next_command = f"{PROGRAM} cache-frames --store {store}"
    if json:
        output.print_json(total | {"next": next_command, "files": [report.as_dict() for report in reports]})
        return
    went_out = (
        f"{total['samples']} samples ({total['added']} new, {total['removed']} removed) on {total['videos']} videos"
    )
    output.print_summary("ingest", f"{total['rows']} rows", went_out, total["reasons"], next_command)
    if total["repairs"]:
        output.print_table("repaired", ["what", "rows"], list(total["repairs"].items()))


@app.command("cache-frames")
def cache_frames(
    store: StorePath = DEFAULT_STORE,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 2.0,
    max_frames: Annotated[int, typer.Option(help="Longer videos are thinned evenly to so many frames.")] = 768,
    short_side: Annotated[
        int | None, typer.Option(help="Scale down to so many pixels on the shorter side. Default: as they are.")
    ] = None,
    codec: Annotated[str, typer.Option(help="raw (fastest to read) or jpeg (about 15 times smaller).")] = "raw",
    workers: Annotated[int, typer.Option(help="Processes that decode; at least 1.")] = 1,
    deadline: Annotated[
        float, typer.Option(help="Seconds that one video may take; then it goes to quarantine.")
    ] = 300.0,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try videos again that failed before.")
    ] = False,
    json: Json = False,
) -> None:
    """Decode every video once, into frames with their true times."""
    if workers < 1:
        raise UserError(
            f"--workers {workers}",
            "at least 1: a decoder that hangs can only be killed with its process",
            "try --workers 1",
        )
    stage = CacheFrames(fps=fps, max_frames=max_frames, short_side=short_side, codec=codec, deadline_s=deadline)
    opened = Store(store)
    estimate = estimate_bytes(opened, stage)
    if estimate:
        output.note(f"about {output.size(estimate)} of frames to write ({codec})")
        free = shutil.disk_usage(opened.path).free
        if estimate > free:
            raise UserError(
                f"about {output.size(estimate)} of frames",
                f"{output.size(free)} are free",
                "use --codec jpeg, a smaller --short-side or fewer --fps",
            )
    report = run(stage, opened, workers=workers, progress=output.Bar(), retry_quarantined=retry_quarantined)
    next_command = f"{PROGRAM} score-frames --store {store}"
    if json:
        output.print_json(report.as_dict() | {"estimated_bytes": estimate, "next": next_command})
        return
    came_in = f"{report.planned} videos: {report.to_do} to do, {report.already} done before"
    went_out = f"{report.rows} new frames of {report.done} videos; stale videos removed first: {report.stale}"
    output.print_summary(stage.name, came_in, went_out, report.reasons, next_command)


@app.command()
def status(store: StorePath = DEFAULT_STORE, json: Json = False) -> None:
    """Show the store at a glance: rows, fingerprints, stale rows, quarantine by reason, bytes."""
    found = store_status.status(Store(store))
    if json:
        output.print_json(found)
        return
    columns = ["table", "rows", "items", "fingerprints", "stale", "size"]
    rows: list[list[Any]] = [
        [name, t["rows"], t["items"], t["fingerprints"], t["stale"], output.size(t["bytes"])]
        for name, t in found["tables"].items()
    ]
    output.print_table(f"{found['store']}: {output.size(found['bytes'])}", columns, rows)
    if found["curated"]:
        output.print_table(
            "curated",
            ["dataset", "rows", "stale", "tags", "size"],
            [
                [name, c["rows"], c["stale"], ", ".join(c["tags"]), output.size(c["bytes"])]
                for name, c in found["curated"].items()
            ],
        )
    left_out = [[stage, reason, n] for stage, reasons in found["quarantine"].items() for reason, n in reasons.items()]
    if left_out:
        output.print_table("quarantine", ["stage", "reason", "items"], left_out)


@app.command()
def inspect(
    table: Annotated[
        str | None, typer.Argument(help="A table, or curated:NAME. Default: a curated dataset, or the newest result.")
    ] = None,
    store: StorePath = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(help="Rows at most.")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition, e.g. \"task = 'choice'\".")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns, separated by commas. Default: all but pixels.")] = None,
    json: Json = False,
) -> None:
    """Look into a table, through polars."""
    opened = Store(store)
    chosen = [name.strip() for name in columns.split(",")] if columns else None
    found = inspection.inspect(opened, table or inspection.default_table(opened), limit, where, chosen)
    if json:
        output.print_json(found)
        return
    output.print_records(f"{found['table']}: {found['rows']} rows", found["columns"], found["records"])


app.command("score-frames")(score_frames)
app.command("build-variants")(build_variants)
app.command("select")(select)


def main() -> None:
    """The program `strive-data`."""
    output.run(app, PROGRAM)


def _mapping(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f"--map {pair}", "FIELD=COLUMN", "e.g. --map question=text")
    return {ours: theirs for ours, _, theirs in (pair.partition("=") for pair in pairs)} or None


def _not_negative(option: str, value: int) -> None:
    if value < 0:
        raise UserError(f"{option} {value}", "0 or more", f"try {option} 1")


if __name__ == "__main__":
    main()
