"""sources: parse, call, print. Registered by cli.data."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from cli import output
from pipeline import source_cards as cards


def sources(
    name: Annotated[str | None, typer.Argument(help="A source; its card is shown. Default: a table of all.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False,
) -> None:
    """Show the annotation formats that ingest knows, or the card of one."""
    found = cards.summary()
    if name is not None:
        text = cards.card(name)
        if as_json:
            about = next(source for source in found if source["name"] == name)
            output.print_json({key: about[key] for key in ("name", "title", "tasks")} | {"card": text})
            return
        _print_markdown(text)
        return
    if as_json:
        output.print_json({"sources": found})
        return
    output.print_table(
        "sources; split: of a file whose name and rows tell none",
        ["name", "what", "tasks", "split", "evaluation"],
        [[s["name"], s["title"], ", ".join(s["tasks"]), s["split"], "yes" if s["evaluation"] else ""] for s in found],
    )
    print("next: strive-data sources NAME for a card; strive-data ingest FILE recognises the source")


def _print_markdown(text: str) -> None:
    """Set on a terminal; as it is written where a program reads it."""
    console = Console()
    if console.is_terminal:
        console.print(Markdown(cards.titled(text)))
    else:
        print(text, end="")
