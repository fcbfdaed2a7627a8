"""What a tag came to, in numbers: the funnel, spreads of the reward, what frames are worth, the samples at the ends."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import overlaps
from pipeline.errors import UserError
from pipeline.groups import Z_95, wilson
from pipeline.store import Store, literal

BINS = 10
MAX_VARIANCE = 0.25
"""The largest variance of rewards in 0..1."""

ENDS = {
    "most useful": [("reward_var", True), ("reward_mean", False)],
    "hardest": [("reward_mean", False), ("reward_high", False)],
    "easiest": [("reward_mean", True), ("reward_low", True)],
}
"""Name -> columns to order by, and whether the highest comes first. Of equal means the surer one comes first."""

_SHOWN = ["reason", "draws", "reward_mean", "reward_low", "reward_high", "reward_var", "blind_mean", "one_frame_mean"]


@dataclass(frozen=True)
class ViewCounts:
    """How the views of a curated dataset look: samples by number of views, views by kind, views by number of frames."""

    views: Counter[int]
    kinds: Counter[str]
    frames: Counter[int]


@dataclass(frozen=True)
class Selection:
    """A tag of a curated dataset: its facts, the kept rows without their views, and a verdict on each of the pool."""

    facts: dict[str, str]
    curated: pl.DataFrame
    verdicts: pl.DataFrame
    views: ViewCounts


def read(store: Store, name: str, tag: str | None = None) -> Selection:
    """A tag of a curated dataset, or its newest version.

    Raises:
        UserError: no such dataset or tag.
    """
    rows = store.curated(name, tag)
    found = _frame(rows.drop_columns(["variants"])), _frame(store.verdicts(name, tag))
    return Selection(store.facts(name, tag), *found, view_counts(rows))


def view_counts(curated: pa.Table) -> ViewCounts:
    """Counts over the column `variants` of a curated table."""
    lists = curated["variants"].combine_chunks()
    views = pc.list_flatten(lists)
    lengths = pc.list_value_length(views.field("indices"))
    counted: list[dict[Any, int]] = []
    for values in (pc.list_value_length(lists), views.field("kind"), lengths):
        pairs = pc.value_counts(values).to_pylist()
        counted.append({pair["values"]: pair["counts"] for pair in pairs})
    return ViewCounts(*(Counter(counts) for counts in counted))


def funnel(verdicts: pl.DataFrame, by: str | None = None) -> list[dict[str, Any]]:
    """How many samples came in, how many were kept, and how many were left out for each reason.

    Args:
        verdicts: rows of schemas.VERDICTS.
        by: a column to count by; None: all together.

    Returns:
        {by (or "all"), pool, kept, kept_low, kept_high (Wilson's 95 % interval of the share), left_out: {reason: n}} a
        value, sorted; the most frequent reason first.
    """
    key = pl.lit("all") if by is None else pl.col(by)
    counts = verdicts.group_by(key.alias("key"), "reason").len()
    dropped = verdicts.filter(pl.col("reason") != "").group_by("reason").len()
    reasons = dropped.sort(["len", "reason"], descending=[True, False])["reason"].to_list()
    found = []
    for value in counts["key"].unique().sort().to_list():
        mine: dict[str, int] = dict(counts.filter(pl.col("key") == value).select("reason", "len").iter_rows())
        pool, kept = sum(mine.values()), mine.get("", 0)
        low, high = wilson(kept, pool)
        left_out = {reason: mine[reason] for reason in reasons if reason in mine}
        row = {"pool": pool, "kept": kept, "kept_low": low, "kept_high": high, "left_out": left_out}
        found.append({by or "of": value, **row})
    return found


def spreads(verdicts: pl.DataFrame) -> list[dict[str, Any]]:
    """By task, of every sample with draws, kept or not: rewards, variances with quartiles, dead samples, format.

    `dead` counts samples whose draws have equal rewards; dead_low and dead_high are Wilson's 95 % interval of their
    share.
    """
    var = pl.col("reward_var")
    table = (
        verdicts.filter(pl.col("draws") > 0)
        .group_by("task")
        .agg(
            pl.len().alias("samples"),
            pl.sum("draws"),
            pl.mean("reward_mean"),
            var.mean(),
            *(var.quantile(q, "linear").alias(f"var_p{round(100 * q)}") for q in (0.25, 0.5, 0.75)),
            (var == 0.0).sum().alias("dead"),
            pl.mean("format_rate"),
        )
        .sort("task")
    )
    return [row | _interval("dead", row["dead"], row["samples"]) for row in table.to_dicts()]


def histograms(verdicts: pl.DataFrame) -> list[dict[str, Any]]:
    """By task: how many samples with draws lie in each tenth of the range, of the mean reward and of its variance.

    Returns:
        {task, of ("reward_mean" 0..1, "reward_var" 0..0.25), edges [11], kept [10], left_out [10]}; a bin holds its
        lower edge, the last one both.
    """
    drawn = verdicts.filter(pl.col("draws") > 0)
    found = []
    for (task,), rows in sorted(drawn.group_by("task"), key=lambda group: str(group[0][0])):
        for column, most in (("reward_mean", 1.0), ("reward_var", MAX_VARIANCE)):
            edges = np.linspace(0.0, most, BINS + 1)
            kept = rows["reason"].to_numpy() == ""
            values = np.clip(rows[column].to_numpy(), 0.0, most)
            parts = {name: np.histogram(values[mine], edges)[0].tolist() for name, mine in _halves(kept)}
            found.append({"task": task, "of": column, "edges": edges.round(6).tolist(), **parts})
    return found


def gaps(verdicts: pl.DataFrame, by: str = "source") -> list[dict[str, Any]]:
    """What the frames are worth: mean reward with views, without any frame and with one, over the samples asked so.

    Returns:
        {by, probe ("blind" or "one frame"), samples, with_views, with_probe, gap (with views minus probe), low, high}:
        the interval is the normal one at 95 % over samples, None for fewer than two.
    """
    found = []
    for probe, column in (("blind", "blind"), ("one frame", "one_frame")):
        asked = verdicts.filter((pl.col("draws") > 0) & (pl.col(f"{column}_draws") > 0))
        gap = pl.col("reward_mean") - pl.col(f"{column}_mean")
        table = asked.group_by(by).agg(
            pl.len().alias("samples"),
            pl.mean("reward_mean").alias("with_views"),
            pl.mean(f"{column}_mean").alias("with_probe"),
            gap.mean().alias("gap"),
            (gap.std(ddof=1) / pl.len().sqrt() * Z_95).alias("half"),
        )
        for row in table.sort(by).to_dicts():
            half = row.pop("half")
            low, high = (None, None) if half is None else (row["gap"] - half, row["gap"] + half)
            found.append({by: row.pop(by), "probe": probe, **row, "low": low, "high": high})
    return found


def ends(store: Store, verdicts: pl.DataFrame, count: int = 3) -> list[dict[str, Any]]:
    """The hardest, easiest and most useful samples of each task, with their questions, kept or not.

    Returns:
        {which, task, sample_id, source, question, statistics ...}, at most `count` a task and kind. The most useful are
        the kept ones with the highest variance.
    """
    drawn = verdicts.filter(pl.col("draws") > 0)
    parts = []
    for which, order in ENDS.items():
        rows = drawn.filter(pl.col("reason") == "") if which == "most useful" else drawn
        names, highest = zip(*order, strict=True)
        rows = rows.sort([*names, "sample_id"], descending=[*highest, False])
        parts.append(rows.group_by("task", maintain_order=True).head(count).with_columns(which=pl.lit(which)))
    chosen = pl.concat(parts).select("which", "task", "sample_id", "source", *_SHOWN)
    listed = ", ".join(literal(key) for key in chosen["sample_id"].unique().sort()) or "''"
    texts = _frame(store.table("samples", ["sample_id", "question"], f"sample_id IN ({listed})"))
    return chosen.join(texts, on="sample_id", how="left", maintain_order="left").to_dicts()


def overlap_facts(store: Store, kept: pl.DataFrame) -> dict[str, str]:
    """Whether anybody looked for leaks and duplicates, how, and what of it is among the kept samples.

    Args:
        kept: sample_id and video_id of the kept samples.

    Returns:
        a sentence for "leaks" and one for "duplicates".
    """
    checked = set(store.table("overlap_checks", ["kind"])["kind"].to_pylist())
    again = {"leaks": "strive-data leaks --against val,test", "duplicates": "strive-data duplicates"}
    found = {}
    for kind, command in again.items():
        if kind not in checked:
            found[kind] = f"Nobody looked for {kind} in this store; this looks: {command}"
            continue
        try:
            recipe, pairs = overlaps.read(store, kind)
        except UserError as error:
            found[kind] = f"Looked for, but {error.expectation}; this looks again: {error.next_command}"
            continue
        found[kind] = _overlap_text(recipe, pairs, set(kept["video_id"].to_list()), set(kept["sample_id"].to_list()))
    return found


def _overlap_text(
    recipe: overlaps.Recipe, pairs: Sequence[overlaps.Overlap], videos: set[str], samples: set[str]
) -> str:
    of = {"video": videos, "question": samples}
    # Of a leak `a` is the training side; of duplicates both have to be here.
    here = [p for p in pairs if p.a in of[p.of] and (recipe.kind == "leaks" or p.b in of[p.of])]
    counts = {name: len({p.a if recipe.kind == "leaks" else p.b for p in here if p.of == name}) for name in of}
    against = f" against {', '.join(recipe.against)}" if recipe.against else ""
    how = f"likeness of videos from {recipe.video_threshold:g}, of questions from {recipe.question_threshold:g}"
    by = f"scorer {recipe.scorer}" if recipe.scorer else "no scorer: only equal files and words"
    return (
        f"Looked for{against} ({by}; {how}): {len(pairs)} pairs in the store; among the kept samples "
        f"{counts['video']} videos and {counts['question']} questions."
    )


def whole(store: Store, name: str, tag: str | None = None, count: int = 3) -> dict[str, Any]:
    """All of the above for one tag, as plain values.

    Raises:
        UserError: no such dataset or tag.
    """
    of = read(store, name, tag)
    return {
        "dataset": name,
        "facts": of.facts,
        "funnel": {"all": funnel(of.verdicts), **{by: funnel(of.verdicts, by) for by in ("task", "source")}},
        "spreads": spreads(of.verdicts),
        "histograms": histograms(of.verdicts),
        "gaps": gaps(of.verdicts),
        "samples": ends(store, of.verdicts, count),
        "views": {name: dict(sorted(counts.items())) for name, counts in vars(of.views).items()},
    }


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _interval(name: str, successes: int, trials: int) -> dict[str, Any]:
    low, high = wilson(successes, trials)
    return {f"{name}_low": low, f"{name}_high": high}


def _halves(kept: np.ndarray) -> Sequence[tuple[str, np.ndarray]]:
    return ("kept", kept), ("left_out", ~kept)
