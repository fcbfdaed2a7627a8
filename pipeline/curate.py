"""Variance-aware selection: keep the samples on which repeated answers differ, as a tagged and documented dataset."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import overlaps, runner, schemas
from pipeline.card import render
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.groups import is_dead, population_variance
from pipeline.ledger import Answerer, DrawRollouts
from pipeline.runner import Progress, Report
from pipeline.store import Store, literal

VERSION = 1
MAX_BINARY_VARIANCE = 0.25
IOU_SHARE = 0.1
"""Threshold of graded tasks as a share of the binary one: IoU spreads less, 0.1 of variance would reject nearly all."""

EPSILON = 1e-9  # 8 draws with 1 right have 0.109375, but sums of other counts may end a bit below their true value
BINARY_TASKS = ("choice", "number", "open")
REASONS = ("all wrong", "all right", "below threshold", "no frames", "no variants", "no rollouts")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class SelectReport:
    """What a selection came to, in samples. `per_task` has pool, kept and every reason for each task.

    `rule` holds the threshold in force for each task, None with no filter; `rollouts` is the ledger's report.
    """

    name: str
    tag: str
    version: int
    path: str
    card: str
    pool: int
    kept: int
    dropped: dict[str, int]
    per_task: dict[str, dict[str, int]]
    rule: dict[str, float] | None
    draws: int
    policy: str
    reward_mean: float
    reward_var: float
    rollouts: Report = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rollouts": self.rollouts.as_dict()}


@dataclass(frozen=True)
class Spread:
    """Statistics of a sample's rewards over its draws; `dead` is max == min."""

    mean: float
    variance: float
    dead: bool
    format_rate: float


def thresholds(min_var: float) -> dict[str, float]:
    """The least variance by task: `min_var` for binary rewards, a tenth of it for IoU.

    Raises:
        UserError: outside 0..0.25, which is all that a binary reward can reach.
    """
    if not 0.0 <= min_var <= MAX_BINARY_VARIANCE:
        raise UserError(
            f"--min-var {min_var}",
            f"the variance of a binary reward lies in 0..{MAX_BINARY_VARIANCE}",
            "strive-data select --min-var 0.1",
        )
    return {task: min_var if task in BINARY_TASKS else min_var * IOU_SHARE for task in schemas.TASKS}


def rule_text(rule: Mapping[str, float] | None) -> str:
    """The rule in force, in one line."""
    if rule is None:
        return "no filter: every sample with rollouts is kept"
    binary, graded = rule["choice"], rule["grounding"]
    return (
        f"variance of the reward >= {binary:g} ({', '.join(BINARY_TASKS)}), >= {graded:g} (grounding, grounded_choice)"
    )


def spread(rewards: Sequence[float], formats: Sequence[float]) -> Spread:
    """Statistics of one sample's draws: rewards in 0..1 and the format part, which never enters the variance."""
    mean = sum(rewards) / len(rewards)
    return Spread(mean, population_variance(rewards), is_dead(rewards), sum(formats) / len(formats))


def verdict(stats: Spread, threshold: float | None) -> str:
    """Why a sample is dropped; "" when it is kept. A threshold of 0 or None keeps all, any other drops the dead."""
    if not threshold or (stats.variance >= threshold - EPSILON and not stats.dead):
        return ""
    if stats.dead and stats.mean in (0.0, 1.0):
        return "all right" if stats.mean else "all wrong"
    return "below threshold"


def select(
    store: Store,
    name: str = "default",
    min_var: float | None = 0.1,
    *,
    load_policy: Callable[[str], Answerer],
    policy_fingerprint: str,
    policy_name: str = "",
    tag: str | None = None,
    source: str | None = None,
    split: str | None = None,
    exclude: Sequence[str] = (),
    draws: int = 8,
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    command: str = "",
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    retry_quarantined: bool = False,
) -> SelectReport:
    """Fill the missing rollouts on the anchor view, filter by their variance, write and tag the curated dataset.

    Args:
        name: of the curated dataset.
        min_var: least population variance of a binary reward, 0..0.25; see `thresholds`. None: no filter.
        load_policy, policy_fingerprint: the policy that answers; see ledger.DrawRollouts.
        policy_name: what the card calls it.
        tag: of this version; by default one that follows from the dataset's content.
        source, split: only samples of this source or split.
        exclude: "leaks", "duplicates" or both: leave out what those commands found, before the policy is asked.
        draws, temperature, max_tokens, seed: of the rollouts.
        command: what the user typed, for the card.
        workers, device, progress, retry_quarantined: of the runner.

    Raises:
        UserError: a bad parameter, no sample in the pool, no sample kept, or nobody looked for what is to be excluded.
    """
    rule = None if min_var is None else thresholds(min_var)
    path = store.curated_path(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise UserError(f"--tag {tag}", "letters, digits, dots, dashes and underscores", "choose another tag")
    only = _filter(source, split)
    columns = [f.name for f in schemas.SAMPLES if f.name != "origin"]
    pool = store.table("samples", columns, only).sort_by("sample_id").to_pylist()
    if not pool:
        known = sorted({(r["source"], r["split"]) for r in store.table("samples", ["source", "split"]).to_pylist()})
        listed = ", ".join(f"{a}/{b}" for a, b in known) or "none"
        asked = f"source {source or '(any)'}, split {split or '(any)'}"
        raise UserError(asked, f"no sample matches; the store has source/split {listed}", "strive-data status")
    excluded = overlaps.excluded(store, exclude, pool) if exclude else {}
    if excluded:  # their rollouts would be drawn in vain
        ids = ", ".join(literal(key) for key in sorted(excluded))
        only = f"({only or 'true'}) AND sample_id NOT IN ({ids})"
    stage = DrawRollouts(
        load_policy, policy_fingerprint, draws, temperature=temperature, max_tokens=max_tokens, seed=seed, only=only
    )
    report = runner.run(
        stage, store, workers=workers, device=device, progress=progress, retry_quarantined=retry_quarantined
    )

    reader = FrameReader(store)
    views = _by_sample(store.table("variants").sort_by("variant").to_pylist())
    drawn = _by_sample(
        store.table("rollouts", ["sample_id", "reward", "format", "fingerprint"], stage.scope).to_pylist()
    )
    cached = set(reader.videos)
    rows: list[dict[str, Any]] = []
    spreads: dict[str, list[Spread]] = {}
    per_task: dict[str, Counter[str]] = {}
    for sample in pool:
        key, task = sample["sample_id"], sample["task"]
        funnel = per_task.setdefault(task, Counter())
        funnel["pool"] += 1
        rollouts = drawn.get(key, [])
        if key in excluded:
            reason = excluded[key]
        elif sample["video_id"] not in cached:
            reason = "no frames"
        elif key not in views:
            reason = "no variants"
        elif len(rollouts) < draws:
            reason = "no rollouts"
        else:
            stats = spread([r["reward"] for r in rollouts], [r["format"] for r in rollouts])
            spreads.setdefault(task, []).append(stats)
            reason = verdict(stats, None if rule is None else rule[task])
            if not reason:
                frames = reader.fingerprint(sample["video_id"])
                rows.append(_row(sample, views[key], frames, policy_fingerprint, rollouts, stats))
        funnel[reason or "kept"] += 1
    reasons = (*(reason for reason in overlaps.REASONS if reason in excluded.values()), *REASONS)
    dropped = {reason: sum(funnel[reason] for funnel in per_task.values()) for reason in reasons}
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise UserError(
            f"0 of {len(pool)} samples kept ({why})",
            f"at least one has to pass: {rule_text(rule)}",
            "strive-data status, or select with a lower --min-var or more --draws",
        )

    content = fingerprint("curated", VERSION, sorted(row["fingerprint"] for row in rows), rule)
    tag = tag or f"{name}-{content[:8]}"
    facts = {
        "name": name,
        "tag": tag,
        "fingerprint": content,
        "rule": rule_text(rule),
        "min_var": "none" if min_var is None else f"{min_var:g}",
        "policy": f"{policy_name} ({policy_fingerprint})".strip(),
        "draws": str(draws),
        "temperature": f"{temperature:g}",
        "max_tokens": str(max_tokens),
        "seed": str(seed),
        "scorers": ", ".join(sorted(set(store.table("frame_scores", ["scorer"])["scorer"].to_pylist()))) or "none",
        "command": command,
    }
    version = store.write_curated(name, pa.Table.from_pylist(rows, schema=schemas.CURATED), tag, facts)
    card = path / "CARD.md"
    _write(card, render(facts, rows, pool, {task: dict(f) for task, f in per_task.items()}, spreads))
    funnels = {task: {k: per_task[task][k] for k in ("pool", "kept", *reasons)} for task in sorted(per_task)}
    return SelectReport(
        name,
        tag,
        version,
        str(path),
        str(card),
        len(pool),
        len(rows),
        dropped,
        funnels,
        rule,
        draws,
        policy_fingerprint,
        sum(row["reward_mean"] for row in rows) / len(rows),
        sum(row["reward_var"] for row in rows) / len(rows),
        report,
    )


def _filter(source: str | None, split: str | None) -> str | None:
    parts = [f"{name} = {literal(value)}" for name, value in (("source", source), ("split", split)) if value]
    return " AND ".join(parts) or None


def _by_sample(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["sample_id"], []).append(row)
    return grouped


def _row(
    sample: dict[str, Any],
    views: list[dict[str, Any]],
    frames: str,
    policy: str,
    rollouts: list[dict[str, Any]],
    stats: Spread,
) -> dict[str, Any]:
    determined_by = [sample["fingerprint"], views[0]["fingerprint"], frames]
    return {
        **sample,
        "variants": [{f.name: view[f.name] for f in schemas.VARIANT_FIELDS} for view in views],
        "frames_fingerprint": frames,
        "policy": policy,
        "draws": len(rollouts),
        "reward_mean": stats.mean,
        "reward_var": stats.variance,
        "format_rate": stats.format_rate,
        "fingerprint": fingerprint("curated", VERSION, determined_by, sorted(r["fingerprint"] for r in rollouts)),
    }


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a kill never leaves half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
