"""optimize: parse, call, print. Registered by cli.data."""

import datetime
from typing import Annotated

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline import optimize as upkeep
from pipeline.store import Store
from pipeline.store.upkeep import Shape


def optimize(
    store: StorePath = STORE,
    everything: Annotated[bool, typer.Option("--all", help="Also the tables for which it does not pay.")] = False,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0.0, help="Hours that an old version stays; readers may be on it.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Write tables anew in fewer files, without deleted rows, and let old versions go; where it pays.

    Rows and tags stay. `strive-data status` says when it pays.
    """
    opened = Store(store)
    older = datetime.timedelta(hours=older_than)
    done = upkeep.optimize(opened, everything, older, output.Bar())
    next_command = f"strive-data status --store {store}"
    if as_json:
        output.print_json({"tables": [one.as_dict() for one in done], "next": next_command})
        return
    if done:
        columns = ["table", "why", "files", "deleted rows", "versions", "size"]
        output.print_table(
            "optimize: before -> after",
            columns,
            [[one.table, ", ".join(one.reasons) or "by wish", *_both(one.before, one.after)] for one in done],
        )
    spared = sum(one.before.bytes - one.after.bytes for one in done)
    output.print_summary(
        f"optimize: {store}",
        f"{len(upkeep.places(opened))} tables",
        f"{len(done)} tables optimised, {output.size(max(0, spared))} freed",
        {},
        next_command,
    )


def _both(before: Shape, after: Shape) -> list[str]:
    sizes = f"{output.size(before.bytes)} -> {output.size(after.bytes)}"
    counts = ((before.files, after.files), (before.deleted, after.deleted), (before.versions, after.versions))
    return [*(f"{a} -> {b}" for a, b in counts), sizes]
