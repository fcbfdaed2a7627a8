"""ingest: parse, call, print. Registered by cli.data."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.options import STORE, Address, Engine, Json, StorePath, chosen_engine
from pipeline.errors import UserError
from pipeline.ingest import ingest as ingest_file
from pipeline.ingest import total_of
from pipeline.store import Store
from toyworld import dataset

TOYWORLD = Path("strive-toyworld")


def ingest(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Annotations of any known source (`strive-data sources`), recognised by their layout. Without it the "
            "toy world is written, into the store (into strive-toyworld when that is no folder), and ingested."
        ),
    ] = None,
    store: StorePath = STORE,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the videos: found by path, under another ending, or by name anywhere below it. Default: "
            "the folder of FILE, by path."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Name of this source; one file is one source. Default: format and name of FILE."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of the rows that name none. Default: as the name of FILE says, else the source's."),
    ] = None,
    format: Annotated[str, typer.Option(help="Name of a source, or auto: recognise it.")] = "auto",
    map: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a generic file, as FIELD=COLUMN; may be repeated. Fields: id, video, question, options "
            "(several columns: options=a0,a1,a2), answer, answer_index (from 0), spans, task, split, duration.",
            metavar="FIELD=COLUMN",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that look into the video files; 0: this one.")] = 1,
    engine: Engine = "local",
    address: Address = None,
    clips: Annotated[int, typer.Option(help="Clips of the toy world.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of the toy world.")] = 0,
    giveaways: Annotated[
        float,
        typer.Option(help="Share of the toy world's questions, 0 to 0.5, whose text says the answer: no frame needed."),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Bring questions and their videos into the store.

    The samples of a source are brought to what FILE says: the same file again adds nothing, an edited file adds and
    removes. Rows that cannot become a sample are kept in quarantine with their reason. When no --videos is named and
    none of the videos of a public dataset lies beside FILE, its annotations come in alone and wait for their videos.
    """
    if workers < 0:
        raise UserError(f"--workers {workers}", "0 or more", "try --workers 1")
    mapping = _mapping(map or [])
    if not 0 <= giveaways <= dataset.MAX_SHARE:
        raise UserError(f"--giveaways {giveaways}", f"a share from 0 to {dataset.MAX_SHARE}", "try --giveaways 0.2")
    computing = chosen_engine(engine, address)
    bar = output.Bar()
    if file is not None:
        if giveaways:
            raise UserError(
                f"--giveaways {giveaways}", "only the toy world has them", f"leave out {file} or the option"
            )
        if not file.is_file():
            raise UserError(str(file), "there is no such file", "check the path of the annotation file")
        if videos is not None and not videos.is_dir():
            raise UserError(f"--videos {videos}", "there is no such folder", "name the folder of the videos")
        opened = Store(store, create=True)
        files, names, folder = [file], [source], videos
    else:
        if clips < 1:
            raise UserError(f"--clips {clips}", "at least 1", "try --clips 120")
        opened = Store(store, create=True)
        place = opened.path / "toyworld" if opened.location.local else TOYWORLD  # decoders read files
        output.note(f"writing the toy world: {clips} clips into {place}")
        written = dataset.write(place, clips, seed, split or "train", giveaway_share=giveaways)
        files = [f for f in written if f.stat().st_size]  # one clip may have no question of grounding
        names, folder, split, format, mapping = (
            [f"toyworld-{f.stem}" for f in files],
            None,
            split or "train",
            "auto",
            None,
        )
    with computing as crew:
        reports = [
            ingest_file(opened, f, folder, name, split, format, mapping, workers=workers, engine=crew, progress=bar)
            for f, name in zip(files, names, strict=True)
        ]
    opened.remember(output.typed("strive-data"))
    total = total_of(opened, reports)
    next_command = f"strive-data cache-frames --store {store}"
    if total["waiting"] and file is not None:
        next_command = f"strive-data ingest {shlex.quote(str(file))} --store {store} --videos DIR"
    if json:
        output.print_json(total | {"next": next_command, "files": [report.as_dict() for report in reports]})
        return
    _print(total, next_command)


def _print(total: dict[str, Any], next_command: str) -> None:
    went_out = (
        f"{total['samples']} samples ({total['added']} new, {total['removed']} removed) on {total['videos']} videos"
    )
    if total["waiting"]:
        went_out += f"; {total['waiting']} of them wait for their videos, none of which is here"
    came_in = f"{total['rows']} rows of {total['source']} ({total['format']}, split {total['split']})"
    output.print_summary("ingest", came_in, went_out, total["reasons"], next_command)
    if total["repairs"]:
        output.print_table("repaired", ["what", "rows"], list(total["repairs"].items()))


def _mapping(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f"--map {pair}", "FIELD=COLUMN", "e.g. --map question=text")
    return {ours: theirs for ours, _, theirs in (pair.partition("=") for pair in pairs)} or None
