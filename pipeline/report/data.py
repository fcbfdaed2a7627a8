"""What a report shows of a tag, read from the store: its facts, the verdicts of the pool, and some samples in full."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.report.choice import choose
from pipeline.report.film import film_of
from pipeline.report.samples import Sample, Shown, shown
from pipeline.rewards import RewardRule, reward_expr
from pipeline.stage import key_filters, literal
from pipeline.store import Store
from pipeline.views import ANCHOR, BLIND, ONE_FRAME

MOST_SAMPLES = 1000  # of a page: a browser stays quick
_NEXT = "strive-data report --help"
_SAMPLE = [f.name for f in schemas.SAMPLES if f.name not in ("origin", "fingerprint")]
_COUNTS = {ANCHOR: "draws", BLIND: "blind_draws", ONE_FRAME: "one_frame_draws"}
_NUMBERS = {"sample_id": pl.String, "views": pl.Int64}
_VIEW = ["variant", "kind", "indices", "times", "crop", "scale"]


@dataclass(frozen=True)
class Content:
    """All that a page is made of. `verdicts` has a row for each sample of the pool, `shown` a few of them in full."""

    facts: dict[str, str]
    verdicts: pl.DataFrame
    shown: Shown


def read(
    store: Store, name: str, tag: str | None = None, samples: int = 200, films: int = 40, seed: int = 0
) -> Content:
    """Read a tag of a curated dataset; nothing is written.

    Args:
        name: of the curated dataset.
        tag: None: the newest version.
        samples: that are shown in full, at most.
        films: of these, how many with the pictures of their views, at most.
        seed: of the random share of the samples.

    Raises:
        UserError: a bad number, or there is no such dataset, no such tag, or no rollout of its policy.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"--samples {samples}", f"1 to {MOST_SAMPLES}, a page stays small", _NEXT)
    if films < 0:
        raise UserError(f"--open-film {films}", "0 or more", _NEXT)
    curated = store.curated(name, tag)  # first: it knows what to say when the dataset or the tag is not there
    facts = store.facts(name, tag)
    verdicts = _frame(store.verdicts(name, tag))
    policy = f"policy = {literal(facts['policy_fingerprint'])}"
    if not store.count("rollouts", policy):
        again = f"strive-data select --store {store.location} --name {name}"
        raise UserError(f"dataset {name!r}", f"the ledger has no rollouts of its policy {facts['policy']}", again)
    chosen = choose(verdicts, samples, seed)
    ids = chosen["sample_id"].to_list()
    kept = {row["sample_id"]: row for row in _of(curated, ids).to_pylist()}
    rest = [key for key in ids if key not in kept]
    rows = {row["sample_id"]: row for row in _by_id(store, "samples", _SAMPLE, rest)}
    views = {key: row.pop("variants") for key, row in kept.items()}
    for view in sorted(_by_id(store, "variants", ["sample_id", *_VIEW], rest), key=lambda view: int(view["variant"])):
        views.setdefault(view["sample_id"], []).append(view)
    drawn = _frame_of(_by_id(store, "rollouts", schemas.ROLLOUTS.names, ids, policy))
    ledger = rollouts(drawn, verdicts, facts, {key: len(found) for key, found in views.items()})
    scores = _by_id(store, "frame_scores", ["sample_id", "scorer", "scores"], ids[:films])
    scored = {row["sample_id"]: row for row in scores}
    reader = FrameReader(store) if films else None
    stats = {row["sample_id"]: row for row in verdicts.filter(pl.col("sample_id").is_in(ids)).to_dicts()}

    def film(key: str) -> dict[str, Any] | str:
        assert reader is not None
        return film_of(reader, {**stats[key], **_row(key, kept, rows)}, views.get(key, []), scored.get(key))

    found = [
        Sample(_row(key, kept, rows), stats[key], why, views.get(key, []), ledger.get(key, []))
        for key, why in chosen.iter_rows()
    ]
    return Content(facts, verdicts, shown(found, films, film))


def thresholds(facts: Mapping[str, str]) -> dict[str, float]:
    """The least variance by task that the tag was selected with; empty when variance was no filter."""
    return {task: float(value) for task, value in (json.loads(facts["thresholds"]) or {}).items()}


def max_blind(facts: Mapping[str, str]) -> float | None:
    """The largest mean reward without frames that the tag allows; None: it does not ask."""
    value = json.loads(facts["options"]).get("max_blind_acc")
    return None if value is None else float(value)


def rollouts(
    ledger: pl.DataFrame, verdicts: pl.DataFrame, facts: Mapping[str, str], views: Mapping[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """The rollouts that a tag looked at by sample, views first, each with its `reward` by the tag's rule.

    The ledger may hold more: draws of other selections, on other views. A verdict stands on the first draws of its
    probe, as many as it says; with views of "variants" draw d is made on view d modulo their number (pipeline.ledger).

    Args:
        ledger: rows of `rollouts` of the tag's policy.
        verdicts: sample_id, task, draws, blind_draws and one_frame_draws.
        views: {sample_id: number of its views}.
    """
    counted = verdicts.select("sample_id", "task", *(pl.col(name).alias(f"of {name}") for name in _COUNTS.values()))
    numbers = pl.DataFrame({"sample_id": list(views), "views": list(views.values())}, _NUMBERS)
    looked = pl.col("draw") % pl.col("views") if facts["views"] == "variants" else pl.lit(ANCHOR)
    probe = pl.min_horizontal("variant", pl.lit(ANCHOR))
    planned = pl.lit(0)
    for number, name in _COUNTS.items():
        # Where there is no verdict on draws, those that were made for one are worth seeing all the same.
        planned = pl.when(probe == number).then(pl.coalesce(f"of {name}", int(facts[name]))).otherwise(planned)
    rows = (
        ledger.join(counted, on="sample_id")
        .join(numbers, on="sample_id", how="left")
        .filter((pl.col("variant") < ANCHOR) | (pl.col("variant") == looked))
        .with_columns(probe.alias("probe"), planned.alias("planned"))
        .filter(pl.col("draw").rank("ordinal").over("sample_id", "probe") <= pl.col("planned"))
        .with_columns(reward_expr(RewardRule(**json.loads(facts["reward"]))).alias("reward"))
        .sort("sample_id", pl.col("variant") < ANCHOR, pl.col("variant").abs(), "draw")
    )
    by_sample: dict[str, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        by_sample.setdefault(row["sample_id"], []).append(row)
    return by_sample


def _row(key: str, kept: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as it was when it was kept, else as the store has it now; without a question when it has it no more."""
    missing: dict[str, Any] = {"question": None, "options": [], "answer": "", "spans": [], "clip": []}
    row: dict[str, Any] = kept.get(key) or rows.get(key) or missing
    return row


def _by_id(store: Store, table: str, columns: list[str], ids: Sequence[str], also: str = "") -> list[dict[str, Any]]:
    """Rows of some samples, a bounded number of ids a question."""
    rows: list[dict[str, Any]] = []
    for either in key_filters(("sample_id",), [(key,) for key in ids]):
        rows += store.table(table, columns, f"({either}) AND {also}" if also else either).to_pylist()
    return rows


def _of(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table["sample_id"], pa.array(list(ids), pa.string())))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _frame_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return _frame(pa.Table.from_pylist(list(rows), schema=schemas.ROLLOUTS))
