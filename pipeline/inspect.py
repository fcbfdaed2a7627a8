"""A look into a table or a curated dataset, through polars."""

from typing import Any

import polars as pl

from pipeline.errors import UserError
from pipeline.schemas import TABLES
from pipeline.store import Store

_CURATED = "curated:"


def inspect(
    store: Store,
    table: str,
    limit: int = 10,
    where: str | None = None,
    columns: list[str] | None = None,
    tag: str | None = None,
) -> dict[str, Any]:
    """Rows of a table as plain values; bytes are shown as their length.

    Args:
        table: a table's name, or curated:NAME.
        limit: rows at most.
        where: an SQL condition, e.g. "task = 'choice' AND reward_var > 0.1".
        columns: default: all but pixels.
        tag: of a curated dataset; default: its newest version.

    Returns:
        {"table", "rows": how many satisfy the condition, "columns", "records": the first of them}.

    Raises:
        UserError: no such table, column, dataset or tag, or the condition is not SQL.
    """
    if limit < 0:
        raise UserError(f"--limit {limit}", "0 or more", "try --limit 10")
    frame = _frame(store, table, tag)
    known = frame.collect_schema().names()
    chosen = [name for name in known if name != "pixels"] if columns is None else columns
    for name in chosen:
        if name not in known:
            raise UserError(f"column {name!r} of {table}", f"the columns are {', '.join(known)}", "name one of them")
    try:
        if where:
            frame = frame.filter(pl.sql_expr(where))
        # Pixels are read only for the rows that are shown.
        light = frame.select(name for name in known if name != "pixels")
        rows = int(light.select(pl.len()).collect().item())
        records = frame.select(chosen).head(limit).collect().to_dicts()
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"--where {where!r}", f"an SQL condition on {', '.join(known)} ({error})", "correct it"
        ) from error
    return {
        "table": table,
        "rows": rows,
        "columns": chosen,
        "records": [{name: _plain(value) for name, value in record.items()} for record in records],
    }


def curated_name(table: str) -> str | None:
    """The dataset that curated:NAME names; None for a table."""
    return table.removeprefix(_CURATED) if table.startswith(_CURATED) else None


def newest_curated(store: Store) -> str | None:
    """The curated dataset that was written to last; None when there is none."""
    return max(store.curated_names(), key=store.curated_changed, default=None)


def default_table(store: Store) -> str:
    """What to look at when nothing is named: the newest stage's result that is there."""
    newest = newest_curated(store)
    if newest is not None:
        return _CURATED + newest
    return next((name for name in ("rollouts", "variants", "frame_scores", "frames") if store.count(name)), "samples")


def _frame(store: Store, table: str, tag: str | None) -> pl.LazyFrame:
    name = curated_name(table)
    if name is not None:
        return store.scan_curated(name, tag)
    if table not in TABLES:
        known = [*TABLES, *(_CURATED + name for name in store.curated_names())]
        raise UserError(f"table {table!r}", f"the tables are {', '.join(known)}", "name one of them")
    if tag is not None:
        raise UserError(f"--tag {tag}", f"tags belong to curated datasets, not to {table}", "name curated:NAME")
    return store.scan(table)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
