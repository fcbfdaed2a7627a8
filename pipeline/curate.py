"""Selection: keep the samples that have something to teach one policy, as a tagged and documented dataset."""

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import assembly, drawing, overlaps, schemas, verdicts
from pipeline.diversity import binds, choose, video_vectors, weights
from pipeline.drawing import Asker, Stop
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.plan import Plan, SelectReport
from pipeline.runner import Report
from pipeline.store import Store, literal
from pipeline.verdicts import Rule

VERSION = 2
NO_FRAMES, NO_VARIANTS, NO_ROLLOUTS = "no frames", "no variants", "no rollouts"
_POOL = ["sample_id", "source", "dataset", "split", "video_id", "task"]


def select(
    store: Store,
    plan: Plan,
    rule: Rule,
    asker: Asker,
    *,
    policy_name: str = "",
    command: str = "",
    commands: Sequence[str] = (),
) -> SelectReport:
    """Draw the rollouts that verdicts still need, judge every sample, write and tag the curated dataset and its card.

    With a ledger that holds the draws already nobody is asked: thresholds change for free.

    Args:
        policy_name: what the card calls the policy. command: what the user typed; commands: what was typed before.

    Raises:
        UserError: no sample in the pool, no sample kept, nobody looked for what is to be excluded, a budget is set and
            embeddings are missing, or nobody is to be asked blind though that is bounded.
    """
    if plan.mode == "weight":  # a weight is an estimate: all draws count, and a low variance leaves nobody out
        asker, rule = replace(asker, adaptive=False), replace(rule, thresholds=None)
    if rule.max_blind_acc is not None and plan.blind_draws < 1:
        raise UserError(f"--blind-draws {plan.blind_draws}", "at least 1 with --max-blind-acc", "leave the option away")
    store.curated_at(plan.name)  # a bad name fails before anything is drawn
    samples = _samples(store, plan)
    pool = pl.DataFrame(pl.from_arrow(samples.select(_POOL)))
    reader = FrameReader(store)
    pool = pool.with_columns(reason=_before_drawing(store, plan, pool, set(reader.videos)))
    tasks = pool.filter(pl.col("reason") == "").select("sample_id", "task")
    stats, reports = _drawn(store, plan, rule, asker, tasks, reader)
    pool = _with_statistics(pool, stats, asker)
    pool = _within_budget(store, plan, pool)
    if plan.mode == "weight":
        pool = _weighted(pool)
    counts = _funnels(pool)
    if not counts["all"]["kept"]:
        raise _nothing_kept(counts["all"], rule)

    curated = assembly.curated(store, samples, pool.filter(pl.col("reason") == ""), reader, VERSION)
    content = fingerprint("curated", VERSION, sorted(curated["fingerprint"].to_pylist()), verdicts.facts(rule))
    tag = plan.tag or f"{plan.name}-{content[:8]}"
    facts = _facts(store, plan, rule, asker, reports) | {
        "tag": tag,
        "fingerprint": content,
        "policy": f"{policy_name} ({asker.fingerprint})".strip(),
        "command": command,
    }
    version, card = assembly.publish(store, plan.name, curated, pool, tag, facts, [*commands, command])
    whole = counts.pop("all")
    kept_rows = pool.filter(pl.col("reason") == "")
    asked = pool.filter(pl.col("draws") > 0)
    return SelectReport(
        name=plan.name,
        tag=tag,
        version=version,
        path=str(store.curated_at(plan.name)),
        card=card,
        pool=whole["pool"],
        kept=whole["kept"],
        dropped={reason: count for reason, count in whole.items() if reason not in ("pool", "kept")},
        per_task=counts,
        rule=rule.text(),
        views=plan.views,
        draws=plan.draws,
        policy=asker.fingerprint,
        reward_mean=_mean(kept_rows["reward_mean"]),
        reward_var=_mean(kept_rows["reward_var"]),
        calls=int(asked["draws"].sum()),
        calls_planned=asked.height * plan.draws,
        drawn_now=sum(report.done for report in reports),
        rollouts=reports,
    )


def _samples(store: Store, plan: Plan) -> pa.Table:
    """The pool's rows, ordered by sample_id."""
    parts = [f"{name} = {literal(value)}" for name, value in (("source", plan.source), ("split", plan.split)) if value]
    columns = [f.name for f in schemas.SAMPLES if f.name != "origin"]
    rows = store.table("samples", columns, " AND ".join(parts) or None)
    if rows.num_rows:
        return rows.sort_by("sample_id")
    known = sorted({(r["source"], r["split"]) for r in store.table("samples", ["source", "split"]).to_pylist()})
    listed = ", ".join(f"{a}/{b}" for a, b in known) or "none"
    asked = f"source {plan.source or '(any)'}, split {plan.split or '(any)'}"
    raise UserError(asked, f"no sample matches; the store has source/split {listed}", "strive-data status")


def _before_drawing(store: Store, plan: Plan, pool: pl.DataFrame, cached: set[str]) -> pl.Series:
    """Why samples are left out before anybody is asked, "" for the others."""
    excluded = overlaps.excluded(store, plan.exclude, pool.to_dicts()) if plan.exclude else {}
    views = store.table("variants", ["sample_id"])["sample_id"].unique()
    with_views = pl.Series("sample_id", views.to_pylist(), dtype=pl.String).implode()
    here = pl.Series("video_id", sorted(cached), dtype=pl.String).implode()
    reason = (
        pl.when(pl.col("excluded").is_not_null())
        .then(pl.col("excluded"))
        .when(~pl.col("video_id").is_in(here))
        .then(pl.lit(NO_FRAMES))
        .when(~pl.col("sample_id").is_in(with_views))
        .then(pl.lit(NO_VARIANTS))
        .otherwise(pl.lit(""))
    )
    why = pl.Series("excluded", [excluded.get(key) for key in pool["sample_id"].to_list()], dtype=pl.String)
    return pool.with_columns(why).select(reason.alias("reason"))["reason"]


def _drawn(
    store: Store, plan: Plan, rule: Rule, asker: Asker, tasks: pl.DataFrame, reader: FrameReader
) -> tuple[pl.DataFrame, list[Report]]:
    """Statistics of all probes, a row a sample, with the reason that its draws give; and the runs that drew."""
    stop = Stop(plan.draws, rule) if asker.adaptive else None
    stats, reports = drawing.fill(store, asker, plan.views, tasks, plan.draws, rule, stop, reader)
    stats = stats.with_columns(pl.Series("reason", drawing.reasons(stats, plan.draws, rule), dtype=pl.String))
    for probe, planned in (("blind", plan.blind_draws), ("one-frame", plan.one_frame_draws)):
        limit = rule.max_blind_acc if probe == "blind" else None
        # A sample that is left out anyway need not be asked blind, unless all draws are wanted.
        some = stats.filter(pl.col("reason") == "") if limit is not None and asker.adaptive else stats

        stop = Stop(planned, rule, limit) if limit is not None and asker.adaptive else None
        name = probe.replace("-", "_")
        columns = [
            pl.col("n").cast(pl.Int32).alias(f"{name}_draws"),
            (pl.col("total") / pl.col("n")).alias(f"{name}_mean"),
        ]
        if not planned:
            empty = {f"{name}_draws": pl.lit(0, pl.Int32), f"{name}_mean": pl.lit(None, pl.Float64)}
            stats = stats.with_columns(**empty)
            continue
        asked = some.select("sample_id", "task")
        found, more = drawing.fill(store, asker, probe, asked, planned, rule, stop, reader)
        reports += more
        if limit is not None:
            found = found.with_columns(pl.Series("open", ~drawing.blind_settled(found, planned, limit)))
            columns.append(pl.col("open"))
        answers = found.select("sample_id", *columns).with_columns(pl.col(f"{name}_mean").fill_nan(None))
        stats = stats.join(answers, on="sample_id", how="left", maintain_order="left")
        stats = stats.with_columns(pl.col(f"{name}_draws").fill_null(0))
        if limit is not None:
            free = pl.col("reason") == ""
            over = pl.col("blind_mean") > limit + verdicts.EPSILON
            stats = stats.with_columns(
                reason=pl.when(free & pl.col("open").fill_null(True))
                .then(pl.lit(verdicts.UNDECIDED))
                .when(free & over.fill_null(False))
                .then(pl.lit(verdicts.BLIND))
                .otherwise(pl.col("reason"))
            ).drop("open")
    return stats, reports


def _with_statistics(pool: pl.DataFrame, stats: pl.DataFrame, asker: Asker) -> pl.DataFrame:
    """The pool in the columns of VERDICTS, and `prints` of the rollouts; no statistics where nothing was drawn."""
    stats = drawing.statistics(stats).rename({"reason": "verdict"})
    pool = pool.join(stats, on="sample_id", how="left", maintain_order="left")
    drawn = pl.col("draws").fill_null(0) > 0
    return pool.with_columns(
        pl.when(drawn).then(pl.lit(asker.fingerprint)).alias("policy"),
        pl.lit(1.0).alias("weight"),
        pl.col("draws", "blind_draws", "one_frame_draws").fill_null(0),
        reason=pl.when(pl.col("reason") != "")
        .then(pl.col("reason"))
        .when(~drawn)
        .then(pl.lit(NO_ROLLOUTS))
        .otherwise(pl.col("verdict")),
    ).drop("verdict")


def _within_budget(store: Store, plan: Plan, pool: pl.DataFrame) -> pl.DataFrame:
    """Leave out what --per-source and --max-samples have no room for."""
    kept = pool.filter(pl.col("reason") == "")
    sources = kept["source"].to_list()
    if not binds(sources, plan.per_source, plan.max_samples):
        return pool
    videos = kept["video_id"].to_list()
    vectors = video_vectors(store, set(videos), plan.scorer)
    value = kept["reward_var"].to_list()
    ids = kept["sample_id"].to_list()
    budget = {"per_source": plan.per_source, "max_samples": plan.max_samples}
    _, out = choose(ids, sources, videos, value, vectors, **budget, seed=plan.seed)
    beyond = pl.DataFrame(
        {"sample_id": list(out), "beyond": list(out.values())}, {"sample_id": pl.String, "beyond": pl.String}
    )
    pool = pool.join(beyond, on="sample_id", how="left", maintain_order="left")
    return pool.with_columns(reason=pl.coalesce("beyond", "reason")).drop("beyond")


def _weighted(pool: pl.DataFrame) -> pl.DataFrame:
    kept = (pool["reason"] == "").to_numpy()
    value = np.ones(pool.height)
    stays = pool.filter(pl.Series(kept, dtype=pl.Boolean))
    value[kept] = weights(stays["reward_var"].to_numpy(), stays["task"].to_list())
    return pool.with_columns(pl.Series("weight", value))


def _funnels(pool: pl.DataFrame) -> dict[str, dict[str, int]]:
    """By task, and for "all": pool, kept and every reason that occurs, in a fixed order."""
    rows = pool.group_by("task", "reason").len().iter_rows()
    found: dict[str, Counter[str]] = {}
    for task, reason, count in rows:
        found.setdefault(task, Counter())[reason] += count
    order = [*overlaps.REASONS, *verdicts.REASONS, NO_FRAMES, NO_VARIANTS, NO_ROLLOUTS]
    seen = {reason for counts in found.values() for reason in counts if reason}
    reasons = [*(r for r in order if r in seen), *sorted(seen - set(order))]
    out = {}
    for task in sorted(found):
        counts = found[task]
        out[task] = {"pool": counts.total(), "kept": counts[""], **{reason: counts[reason] for reason in reasons}}
    names = ["pool", "kept", *reasons]
    out["all"] = {name: sum(funnel[name] for funnel in out.values()) for name in names}
    return out


def _nothing_kept(counts: dict[str, int], rule: Rule) -> UserError:
    why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count and reason not in ("pool", "kept"))
    return UserError(
        f"0 of {counts['pool']} samples kept ({why})",
        f"at least one has to pass: {rule.text()}",
        "strive-data status, or select with a lower --min-var or more --draws",
    )


def _facts(store: Store, plan: Plan, rule: Rule, asker: Asker, reports: Sequence[Report]) -> dict[str, str]:
    known = verdicts.facts(rule)
    options = json.loads(plan.options()) | {name: known[name] for name in ("min_acc", "max_acc", "max_blind_acc")}
    sampling = asker.sampling
    scorers = store.table("frame_scores", ["scorer"])["scorer"].unique().to_pylist()
    return {
        "name": plan.name,
        "rule": rule.text(),
        "thresholds": json.dumps(known["thresholds"]),
        "options": json.dumps(options),
        "reward": json.dumps(known["reward"]),
        "policy_fingerprint": asker.fingerprint,
        "views": plan.views,
        "draws": str(plan.draws),
        "blind_draws": str(plan.blind_draws),
        "one_frame_draws": str(plan.one_frame_draws),
        "drawing": "adaptive" if asker.adaptive else "fixed",
        "drawn_now": str(sum(report.done for report in reports)),
        "temperature": f"{sampling.temperature:g}",
        "max_tokens": str(sampling.max_tokens),
        "seed": str(sampling.seed),
        "scorers": ", ".join(sorted(scorers)) or "none",
        "made": datetime.date.today().isoformat(),
    }


def _mean(values: pl.Series) -> float:
    mean: Any = values.mean()
    return float(mean or 0.0)
