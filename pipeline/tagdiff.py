"""Two tags of a curated dataset side by side: samples, reasons, settings, statistics."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from pipeline.errors import UserError
from pipeline.store import Store

NOT_IN_POOL = "not in the pool"
STATISTICS = ("draws", "reward_mean", "reward_var", "format_rate", "blind_mean", "one_frame_mean", "weight")
_SAME = 1e-9
_OF_THE_RUN = ("tag", "drawn_now")  # facts that say nothing of what was selected, and how


@dataclass(frozen=True)
class TagDiff:
    """What differs between tags a and b.

    Attributes:
        both, only_a, only_b: how many samples are kept in both, or in the one alone.
        left_out_of_b: of those kept in a alone, how many by b's reason; left_out_of_a likewise.
        samples: those kept in one alone: {sample_id, source, task, kept_in, reason (of the other)}, by id.
        settings: {what: [in a, in b]} where the facts differ; None where a tag does not have it.
        statistics: {name: {a, b, changed}}: means over the samples that both keep, and how many samples changed.
    """

    dataset: str
    a: str
    b: str
    both: int
    only_a: int
    only_b: int
    left_out_of_b: dict[str, int]
    left_out_of_a: dict[str, int]
    samples: list[dict[str, Any]]
    settings: dict[str, list[Any]]
    statistics: dict[str, dict[str, float | int | None]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dataset_of(store: Store, a: str, b: str, name: str | None = None) -> str:
    """The curated dataset that has both tags.

    Args:
        name: of the dataset; needed only when several have both.

    Raises:
        UserError: none has them, naming the tags there are; or several have.
    """
    tags = {known: sorted(store.curated_tags(known)) for known in ([name] if name else store.curated_names())}
    found = [known for known, its in tags.items() if {a, b} <= set(its)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"tags {a} and {b}", f"{', '.join(found)} have both", "say --name")
    known = "; ".join(f"{one}: {', '.join(its)}" for one, its in tags.items() if its) or "none"
    unknown = [tag for tag in dict.fromkeys((a, b)) if not any(tag in its for its in tags.values())]
    what = f"tag {' and '.join(unknown)}" if unknown else f"tags {a} and {b}"
    expected = f"known tags: {known}" if unknown else f"two tags of one dataset; known tags: {known}"
    raise UserError(what, expected, "name two of them, or strive-data select --tag NAME")


def compare(store: Store, a: str, b: str, name: str | None = None) -> TagDiff:
    """Compare two tags.

    Raises:
        UserError: see `dataset_of`.
    """
    dataset = dataset_of(store, a, b, name)
    first, second = (pl.DataFrame(pl.from_arrow(store.verdicts(dataset, tag))) for tag in (a, b))
    joined = first.join(second, on="sample_id", how="full", suffix="_b", coalesce=True).sort("sample_id")
    in_a, in_b = pl.col("reason").eq("").fill_null(False), pl.col("reason_b").eq("").fill_null(False)
    both = joined.filter(in_a & in_b)
    alone = joined.filter(in_a != in_b).select(
        "sample_id",
        pl.coalesce("source", "source_b").alias("source"),
        pl.coalesce("task", "task_b").alias("task"),
        pl.when(in_a).then(pl.lit(a)).otherwise(pl.lit(b)).alias("kept_in"),
        pl.when(in_a).then("reason_b").otherwise("reason").fill_null(NOT_IN_POOL).alias("reason"),
    )
    return TagDiff(
        dataset,
        a,
        b,
        both.height,
        alone.filter(pl.col("kept_in") == a).height,
        alone.filter(pl.col("kept_in") == b).height,
        _reasons(alone.filter(pl.col("kept_in") == a)),
        _reasons(alone.filter(pl.col("kept_in") == b)),
        alone.to_dicts(),
        settings(store.facts(dataset, a), store.facts(dataset, b)),
        {column: _change(both, column) for column in STATISTICS},
    )


def settings(a: dict[str, str], b: dict[str, str]) -> dict[str, list[Any]]:
    """The facts in which two tags differ, side by side; those that are JSON objects are compared entry by entry.

    The tag's name and what one run happened to draw are no settings.
    """
    first, second = _flat(a), _flat(b)
    names = [name for name in dict.fromkeys([*first, *second]) if name not in _OF_THE_RUN]
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _flat(facts: dict[str, str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, text in facts.items():
        entries = json.loads(text) if name in ("thresholds", "options", "reward") else text
        if isinstance(entries, dict):
            flat |= {f"{name}.{key}": value for key, value in entries.items()}
        else:
            flat[name] = entries
    return flat


def _reasons(rows: pl.DataFrame) -> dict[str, int]:
    counts = rows.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return dict(counts.iter_rows())


def _change(both: pl.DataFrame, column: str) -> dict[str, float | int | None]:
    a, b = pl.col(column).cast(pl.Float64), pl.col(f"{column}_b").cast(pl.Float64)
    moved = ((a - b).abs() > _SAME).fill_null(False) | (a.is_null() != b.is_null())
    row = both.select(a.mean().alias("a"), b.mean().alias("b"), moved.sum().alias("changed")).to_dicts()[0]
    return {"a": row["a"], "b": row["b"], "changed": int(row["changed"])}
