"""strive-data: from annotations and videos to a curated dataset."""

from typing import Annotated, Any

import typer

from cli import output
from cli.curation import select
from cli.evidence import evaluate_scorer
from cli.exports import export
from cli.frames import cache_frames
from cli.ingest import ingest
from cli.optimize import optimize
from cli.options import STORE, Json, StorePath
from cli.report import report
from cli.scoring import score_frames
from cli.search import duplicates, leaks, search
from cli.sources import sources
from cli.storage import Program
from cli.summary import diff
from cli.summary import show as show_summary
from cli.variants import build_variants, show
from cli.verify import verify
from pipeline import inspect as inspection
from pipeline import quarantine as failures
from pipeline import status as store_status
from pipeline import summary as selection
from pipeline.errors import UserError
from pipeline.store import Store

PROGRAM = "strive-data"

app = Program(name=PROGRAM, help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


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


app.command("sources")(sources)
app.command("ingest")(ingest)
app.command("cache-frames")(cache_frames)
app.command("score-frames")(score_frames)
app.command("evaluate-scorer")(evaluate_scorer)
app.command("build-variants")(build_variants)
app.command("show")(show)
app.command("search")(search)
app.command("duplicates")(duplicates)
app.command("leaks")(leaks)
app.command("select")(select)
app.command("diff")(diff)
app.command("report")(report)
app.command("export")(export)
app.command("verify")(verify)
app.command("optimize")(optimize)


@app.command()
def status(store: StorePath = STORE, json: Json = False) -> None:
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
    of_stages = {name: reasons for name, reasons in found["quarantine"].items() if not name.startswith("ingest ")}
    for title, column, counts in (
        ("rows of annotations left out", "source", found["rejected"]),
        ("quarantine", "stage", of_stages),
        ("kept, but not whole", "stage", found["notes"]),
    ):
        rows = [[name, reason, n] for name, reasons in counts.items() for reason, n in reasons.items()]
        if rows:
            output.print_table(title, [column, "reason", "items"], rows)
    if found["questions"]["scored"]:
        asked = found["questions"]
        output.print_table("questions scored", ["samples", "split into windows", "tokens cut"], [list(asked.values())])
    if found["waiting"]:
        output.print_table("samples without their videos", ["source", "samples"], list(found["waiting"].items()))
    if found["optimize"]:
        rows = [[name, ", ".join(reasons)] for name, reasons in found["optimize"].items()]
        output.print_table(f"it pays: strive-data optimize --store {store}", ["table", "why"], rows)


@app.command()
def inspect(
    table: Annotated[
        str | None,
        typer.Argument(
            help="A table, or curated:NAME. Default: what the newest curated dataset came to, else the newest result."
        ),
    ] = None,
    store: StorePath = STORE,
    tag: Annotated[str | None, typer.Option("--tag", help="A tag of a curated dataset. Default: its newest.")] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Of curated:NAME: what it came to, instead of its rows.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Rows at most.")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition, e.g. \"task = 'choice'\".")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns, separated by commas. Default: all but pixels.")] = None,
    json: Json = False,
) -> None:
    """What a selection came to, by task and source; or the rows of a table, through polars."""
    opened = Store(store)
    chosen = [name.strip() for name in columns.split(",")] if columns else None
    shown = table or inspection.default_table(opened)
    name = inspection.curated_name(shown)
    rows_wanted = where is not None or chosen is not None
    if summary and (name is None or rows_wanted):
        raise UserError(f"--summary of {shown}", "the whole of a curated dataset", "inspect curated:NAME --summary")
    if name is not None and (summary or (table is None and not rows_wanted)):
        whole = selection.whole(opened, name, tag)
        if json:
            output.print_json(whole)
        else:
            show_summary(whole)
        return
    found = inspection.inspect(opened, shown, limit, where, chosen, tag)
    if json:
        output.print_json(found)
        return
    output.print_records(f"{found['table']}: {found['rows']} rows", found["columns"], found["records"])


@app.command()
def quarantine(
    store: StorePath = STORE,
    stage: Annotated[
        str | None, typer.Option(help='Only this stage, or all whose names begin so: "ingest", "probe", cache-frames.')
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason, or all that begin so.")] = None,
    contains: Annotated[str | None, typer.Option(help="Only rows with this text in key or message.")] = None,
    limit: Annotated[int, typer.Option(help="Rows shown at most.", min=0)] = 20,
    retry: Annotated[
        bool, typer.Option("--retry", help="Set the rows free: the commands that are shown then try them again.")
    ] = False,
    json: Json = False,
) -> None:
    """List what failed and why; filter it; set it free to be tried again."""
    opened = Store(store)
    rows = failures.find(opened, stage, reason, contains)
    counts = failures.counts(rows)
    commands = [f"{command} --store {store}" for command in failures.release(opened, rows)] if retry else []
    if json:
        shown = rows.head(limit).to_dicts()
        output.print_json({"rows": rows.height, "counts": counts, "records": shown, "next": commands})
        return
    if not rows.height:
        print("nothing is in quarantine")
        return
    columns = ["stage", "key", "reason", "message"]
    output.print_table(f"quarantine: {rows.height} rows", columns, list(rows.head(limit).select(columns).iter_rows()))
    output.print_table("by reason", ["stage", "reason", "items"], [list(count.values()) for count in counts])
    if retry:
        output.print_table("set free; try them again with", ["command"], [[command] for command in commands])


def main() -> None:
    """The program `strive-data`."""
    output.run(app, PROGRAM)


if __name__ == "__main__":
    main()
