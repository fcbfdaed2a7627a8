"""build-variants and show: parse, call, print. Registered by cli.data."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, Address, Engine, Json, StorePath, Workers, chosen_engine
from pipeline.errors import UserError
from pipeline.store import Store


def build_variants(
    store: StorePath = STORE,
    variants: Annotated[int, typer.Option("--variants", help="Views a sample, the anchor included.")] = 4,
    frames: Annotated[int, typer.Option("--frames", help="Frames a view.")] = 8,
    mix: Annotated[float, typer.Option("--mix", help="importance: share of relevance, 0 coverage, 1 relevance.")] = 0.8,
    temperature: Annotated[
        float, typer.Option("--temperature", help="importance: of the relevance; low takes the best frames only.")
    ] = 0.1,
    bins: Annotated[
        int | None,
        typer.Option("--bins", help="importance: parts of the video that each get a frame. Default: half of --frames."),
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", help="How frames are chosen: importance, uniform, bolt, aks or top-k.")
    ] = "importance",
    power: Annotated[float, typer.Option("--power", help="bolt: the scores are raised to it.")] = 3.0,
    threshold: Annotated[
        float, typer.Option("--threshold", help="aks: by how much a segment's best frames stand out to keep it whole.")
    ] = 0.8,
    depth: Annotated[int, typer.Option("--depth", help="aks: halvings of the timeline at most.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of all draws.")] = 0,
    spatial: Annotated[
        bool, typer.Option("--spatial/--no-spatial", help="Centred crops where the task allows.")
    ] = True,
    resize: Annotated[
        float,
        typer.Option("--resize", help="Where the task allows, views keep this share of their resolution at least."),
    ] = 1.0,
    workers: Workers = 0,
    engine: Engine = "local",
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Draw the views of each sample: an anchor, and views that favour the relevant frames."""
    from pipeline import runner
    from pipeline.variants import BuildVariants, built

    computing = chosen_engine(engine, address)
    stage = BuildVariants(
        variants, frames, mix, temperature, bins, seed, spatial, sampler, power, threshold, depth, resize
    )
    opened = Store(store)
    with computing as crew:
        report = runner.run(stage, opened, workers=workers, engine=crew, progress=output.Bar())
    opened.remember(output.typed("strive-data"))
    facts = built(opened, variants, sampler)
    next_command = f"strive-data select --store {store}"
    if as_json:
        output.print_json(report.as_dict() | facts | {"next": next_command})
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["kinds"].items())
    overlap = "" if facts["overlap"] is None else f"; mean overlap of two views {facts['overlap']:.0%}"
    output.print_summary(
        f"build-variants ({sampler})",
        f"{facts['samples']} samples",
        f"{report.done} samples now, {report.already} before: {facts['views']} views ({kinds or 'none'}){overlap}",
        _some(
            {
                **facts["left_out"],
                **report.reasons,
                "views that came out equal": facts["equal_views"],
                "samples whose scores tell nothing (coverage views)": facts["flat_scores"],
            }
        ),
        next_command,
    )


def show(
    sample: Annotated[
        str | None, typer.Argument(help="A sample's id, or its beginning. Default: the first sample with views.")
    ] = None,
    store: StorePath = STORE,
    out: Annotated[
        Path | None, typer.Option("--out", help="PNG to write, replaced when it is there. Default: SAMPLE.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a sample's views: film strips under the curve of the frame scores, with the true span marked."""
    from pipeline.film import film_of, find_sample
    from pipeline.filmstrip import draw

    opened = Store(store)
    key = find_sample(opened, sample)
    path = out or Path(f"{key}.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}", "a name that ends in .png", f"--out {path.with_suffix('.png')}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}", "its folder does not exist", f"mkdir -p {path.absolute().parent}")
    film = film_of(opened, key)
    draw(film, path)
    if as_json:
        output.print_json({"sample_id": key, "views": len(film.strips), "picture": str(path)})
        return
    output.line(f"sample {key}, {len(film.strips)} views: {path}")


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
