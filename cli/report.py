"""report: parse, call, print. Registered by cli.data."""

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline.store import Store


def report(
    store: StorePath = STORE,
    name: Annotated[str, typer.Option("--name", help="Of the curated dataset.")] = "default",
    tag: Annotated[str | None, typer.Option("--tag", help="Default: its newest version.")] = None,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write, replaced when it is there.")] = Path(
        "report.html"
    ),
    samples: Annotated[int, typer.Option("--samples", help="Samples shown in full, at most.")] = 200,
    open_film: Annotated[
        int, typer.Option("--open-film", help="Of these, how many with film strips of their views, at most.")
    ] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Of the random share of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about a curated dataset: funnel, histograms, samples, views and responses."""
    from pipeline.report import data, page

    page.refuse_place(out)  # before the work, not after it
    content = data.read(Store(store), name, tag, samples, open_film, seed)
    size = page.write(content, out)
    shown = content.shown
    if as_json:
        facts = {"page": str(out), "bytes": size, "name": content.facts["name"], "tag": content.facts["tag"]}
        counts = {"pool": content.verdicts.height, "samples": len(shown.samples), "films": shown.films}
        beyond = {"without_responses": shown.without_responses, "beyond_films": shown.beyond_films}
        output.print_json(facts | counts | beyond)
        return
    beyond_page = {
        "samples": shown.asked - len(shown.samples),
        "film strips": shown.beyond_films,
        "responses of samples": shown.without_responses,
    }
    output.print_summary(
        f"report of {content.facts['name']}, tag {content.facts['tag']}",
        f"{content.verdicts.height} samples",
        f"{out}: {output.size(size)}, {len(shown.samples)} samples in full, {shown.films} with film strips",
        {f"{what} beyond the size of a page": count for what, count in beyond_page.items() if count},
        f"open {out} in a browser",
    )
