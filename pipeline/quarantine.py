"""What failed, and why: listed, filtered, and set free to be tried again."""

from typing import Any

import polars as pl

from pipeline.errors import UserError
from pipeline.store import Store

GROUPS = ("stage", "reason")


def find(
    store: Store, stage: str | None = None, reason: str | None = None, contains: str | None = None
) -> pl.DataFrame:
    """The rows of quarantine, sorted by stage, reason and key.

    Args:
        stage: its name, e.g. cache-frames, or the beginning of it: "ingest" finds "ingest nextqa-val".
        reason: its name, or the beginning of it.
        contains: part of the key or of the message, as it stands there.

    Raises:
        UserError: a stage or a reason is asked for that no row has.
    """
    rows = pl.from_arrow(store.table("quarantine"))
    assert isinstance(rows, pl.DataFrame)
    for column, wanted in (("stage", stage), ("reason", reason)):
        if wanted is None:
            continue
        known = sorted(rows[column].unique().to_list())
        rows = rows.filter(pl.col(column).str.starts_with(wanted))
        if rows.is_empty():
            listed = ", ".join(known) or "none: the quarantine is empty"
            raise UserError(f"--{column} {wanted}", f"the {column}s are {listed}", "strive-data quarantine")
    if contains is not None:
        found = pl.col("key").str.contains(contains, literal=True)
        rows = rows.filter(found | pl.col("message").str.contains(contains, literal=True))
    return rows.sort("stage", "reason", "key")


def counts(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """How many rows by stage and reason, the most frequent first within a stage."""
    counted = rows.group_by(GROUPS).len("items").sort("stage", "items", "reason", descending=[False, True, False])
    return counted.to_dicts()


def release(store: Store, rows: pl.DataFrame) -> list[str]:
    """Take failures out of quarantine, so that the next run of their stages tries them again.

    Notes (`kept`) stay: they say what is missing from rows that are there, and are true as long as those are.

    Returns:
        the commands that do it, in the order of the pipeline.
    """
    rows = rows.filter(~pl.col("kept"))
    keys = list(zip(rows["stage"].to_list(), rows["key"].to_list(), strict=True))
    if keys:
        with store.writing():
            store.remove_items("quarantine", keys)
    commands = {command_of(stage) for stage in rows["stage"].to_list()}
    return [f"strive-data {command}" for command in ORDER if command in commands]


ORDER = ("ingest", "cache-frames", "score-frames", "build-variants", "select")

_COMMANDS = {"probe": "ingest", "ingest": "ingest", "embed-frames": "score-frames"}


def command_of(stage: str) -> str:
    """The command that runs a stage: probes and rejected rows are ingest's, embeddings those of score-frames."""
    first = stage.split(" ", 1)[0]
    return _COMMANDS.get(first, first)
