"""cache-frames: parse, call, print. Registered by cli.data."""

import shutil
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, Address, Engine, Json, StorePath, chosen_engine
from pipeline.errors import UserError
from pipeline.frames import JPEG_SHARE, CacheFrames, estimate_bytes
from pipeline.runner import run
from pipeline.store import Store


def cache_frames(
    store: StorePath = STORE,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 2.0,
    max_frames: Annotated[int, typer.Option(help="Longer videos are thinned evenly to so many frames.")] = 768,
    short_side: Annotated[
        int | None, typer.Option(help="Scale down to so many pixels on the shorter side. Default: as they are.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Scale down to at most so many pixels a frame. Default: as they are.")
    ] = None,
    codec: Annotated[str, typer.Option(help="raw (fastest to read) or jpeg (about 15 times smaller).")] = "raw",
    workers: Annotated[int, typer.Option(help="Processes that decode; at least 1.")] = 1,
    engine: Engine = "local",
    address: Address = None,
    deadline: Annotated[
        float, typer.Option(help="Seconds that one video may take; then it goes to quarantine.")
    ] = 300.0,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Leave damaged videos out, instead of keeping their good frames. Decodes all videos anew."
        ),
    ] = False,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try videos again that failed before.")
    ] = False,
    json: Json = False,
) -> None:
    """Decode every video once, into frames with their true times."""
    if workers < (engine == "local"):
        raise UserError(
            f"--workers {workers}",
            "at least 1: a decoder that hangs can only be killed with its process",
            "try --workers 1",
        )
    computing = chosen_engine(engine, address)
    stage = CacheFrames(
        fps=fps,
        max_frames=max_frames,
        short_side=short_side,
        max_pixels=max_pixels,
        codec=codec,
        strict=strict,
        deadline_s=deadline,
    )
    opened = Store(store)
    estimate = estimate_bytes(opened, stage)
    if estimate:
        share = f"jpeg, taken as 1/{1 / JPEG_SHARE:.0f} of raw" if codec == "jpeg" else codec
        output.note(f"about {output.size(estimate)} of frames to write ({share})")
        free = shutil.disk_usage(opened.path).free if opened.location.local else estimate
        if estimate > free:
            smaller = "--codec jpeg, or " if codec == "raw" else ""
            raise UserError(
                f"about {output.size(estimate)} of frames",
                f"{output.size(free)} are free on the disk of {store}",
                f"strive-data cache-frames with {smaller}a smaller --short-side, --max-pixels, --max-frames or --fps",
            )
    with computing as crew:
        report = run(
            stage,
            opened,
            workers=workers,
            engine=crew,
            progress=output.Bar(),
            retry_quarantined=retry_quarantined,
        )
    opened.remember(output.typed("strive-data"))
    next_command = f"strive-data score-frames --store {store}"
    if json:
        output.print_json(report.as_dict() | {"estimated_bytes": estimate, "next": next_command})
        return
    came_in = f"{report.planned} videos: {report.to_do} to do, {report.already} done before"
    went_out = f"{report.rows} new frames of {report.done} videos; stale videos removed first: {report.stale}"
    output.print_summary(stage.name, came_in, went_out, report.reasons, next_command)
    if report.notes:
        output.print_table("kept, but not whole", ["what", "videos"], list(report.notes.items()))
