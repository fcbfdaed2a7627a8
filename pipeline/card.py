"""The data card of a curated dataset: what is in it, what was left out and why, and how to make it again."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import polars as pl

from pipeline import source_cards
from pipeline.markdown import cell, fence, head, table
from pipeline.summary import ViewCounts, funnel, gaps, spreads

PACKAGES = (
    "strive-video",
    "torch",
    "transformers",
    "open_clip_torch",
    "pylance",
    "polars",
    "numpy",
    "faiss-cpu",
    "decord",
    "av",
)
"""What the numbers of a curated dataset depend on."""

_PROBES = {
    "blind": "without frames; `strive-data select --blind-draws 8` does",
    "one frame": "with one frame; `strive-data select --one-frame-draws 8` does",
}
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_OPEN = """\
import polars as pl

newest = pl.scan_lance("<this folder>")
this_one = pl.scan_lance("<this folder>", version={tag})
print(this_one.select("question", "answer", "reward_mean", "reward_var").head().collect())\
"""
_ADAPTIVE = (
    "Drawing was adaptive: a sample was asked no further once its verdict was certain. Such a sample stopped because "
    "of what was drawn, so its mean and its variance are biased, and its 95 % interval is nominal. Compare them only "
    "with those of other adaptive drawings under the same rule."
)
_FIXED = "Drawing was fixed: every sample was to be asked equally often, whatever was drawn."
_LIMITS = """\
- A sample is here because this policy disagrees with itself about it. Another policy, or this one after some training,
  would keep others.
- With few draws a hard sample is easily taken for a hopeless one, and an easy one for a mastered one: see the intervals
  of each row, `reward_low` and `reward_high`.
- The reward is as good as the annotations and as the parser that reads the responses. A sample that is always answered
  wrong may have a wrong answer key.
- Answering without frames tells what this policy can guess, not what every model could.
- The rows hold no video and no picture: they index the cached frames of the store that they were selected in, and are
  of use without it only for their questions and statistics.
- What was not looked for is not excluded: see "Overlap with benchmarks".
"""


def render(
    facts: Mapping[str, str],
    curated: pl.DataFrame,
    verdicts: pl.DataFrame,
    *,
    overlaps: Mapping[str, str],
    commands: Sequence[str],
    views: ViewCounts,
) -> str:
    """The card's text, in the Hub's dataset-card layout. The same input gives the same text.

    Args:
        facts: what the store remembers of the tag; see `curate`.
        curated: the kept rows; the column `variants` is not needed.
        verdicts: a row for each sample of the pool, schemas.VERDICTS.
        overlaps: sentences about leaks and duplicates; see summary.overlap_facts.
        commands: what was typed, in order.
        views: counts over the rows' views.
    """
    licences = {name: source_cards.licence(name) for name in sorted(set(curated["dataset"].to_list()))}
    parts = [
        _head(facts, curated, licences),
        f"# {cell(facts['name'])}\n",
        f"{curated.height} of {verdicts.height} samples on {curated['video_id'].n_unique()} videos, each with its "
        f"views and with how well one policy answers it. Version `{cell(facts['tag'])}`.\n",
        "## What it is for\n",
        _purpose(facts),
        "## What was left out, and why\n",
        f"Rule: {cell(facts['rule'])}. The variance is the population variance (ddof 0) of the reward, never of the "
        "format.\n",
        *_selection(facts, verdicts),
        "## Sources and licences\n",
        *_sources(curated, verdicts, licences),
        "## Policy and draws\n",
        _pairs(facts, ("policy", "views", "draws", "drawing", "temperature", "max_tokens", "seed", "reward")),
        _draws(verdicts),
        f"{_ADAPTIVE if facts['drawing'] == 'adaptive' else _FIXED}\n",
        "## Reward spread\n",
        "Over all samples with draws, kept or not. Dead: all draws have the same reward. In parentheses: Wilson's "
        "95 % interval of the share.\n",
        _spreads(verdicts),
        "## Without frames, and with one\n",
        _gaps(verdicts),
        "## Overlap with benchmarks\n",
        "".join(f"- {cell(kind)}: {cell(text)}\n" for kind, text in overlaps.items()),
        "## Views\n",
        f"Views a sample: {_counts(views.views)}. Kinds: {_counts(views.kinds)}. Frames a view: "
        f"{_counts(views.frames)}. Scorer: {cell(facts['scorers'])}.\n",
        "## How it was made\n",
        fence("\n".join(commands), "sh"),
        _versions(facts, curated),
        "## How to open it\n",
        "The newest version, and this one whatever comes after it:\n",
        fence(_OPEN.format(tag=json.dumps(facts["tag"])), "python"),
        "## Limits\n",
        _LIMITS,
    ]
    return "\n".join(parts)


def _head(facts: Mapping[str, str], curated: pl.DataFrame, licences: Mapping[str, str | None]) -> str:
    ids = {source_cards.hub_licence(text) for text in licences.values()}
    one = ids.pop() if len(ids) == 1 else None
    size = next((name for limit, name in _SIZES if curated.height < limit), "n>10M")
    terms = {"license": one} if one else {"license": "other", "license_name": "terms-of-the-sources"}
    return head(
        {
            "pretty_name": facts["name"],
            **terms,
            "task_categories": ["video-text-to-text", "visual-question-answering"],
            "tags": ["video", "reinforcement-learning", "lance"],
            "size_categories": [size],
            "source_datasets": sorted(set(curated["dataset"].to_list())),
            "configs": [{"config_name": "default", "data_files": ["data/*.lance", "_versions/*"]}],
            "version": facts["tag"],
        }
    )


def _purpose(facts: Mapping[str, str]) -> str:
    weighted = json.loads(facts["options"]).get("mode") == "weight"
    how = (
        "`weight` says how often a trainer should draw each of them: more often the more the rewards differ"
        if weighted
        else "the trainer draws them evenly"
    )
    return (
        "Reinforcement learning of video-language models that learns from differences between answers to one question "
        "(GRPO and its kin). A question that the policy always answers right, or always wrong, gives no such "
        f"difference. Of the samples that were kept, {how}. For evaluation it is unfit: it is chosen by a policy's "
        "answers.\n"
    )


def _selection(facts: Mapping[str, str], verdicts: pl.DataFrame) -> list[str]:
    options = {name: value for name, value in json.loads(facts["options"]).items() if value not in (None, "", [])}
    limits = json.loads(facts["thresholds"])
    limits = limits.items() if isinstance(limits, dict) else []
    given = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else value] for name, value in options.items()
    ]
    return [
        table(["setting", "value"], [*([f"least variance, {task}", f"{value:g}"] for task, value in limits), *given]),
        *(_funnel(verdicts, by) for by in ("task", "source")),
    ]


def _funnel(verdicts: pl.DataFrame, by: str) -> str:
    rows = funnel(verdicts, by)
    total = funnel(verdicts)
    reasons = list(total[0]["left_out"]) if total else []
    body = [
        [name, row["pool"], row["kept"], _share(row["kept"], row["pool"], row["kept_low"], row["kept_high"])]
        + [row["left_out"].get(reason, 0) for reason in reasons]
        for name, row in [*((row[by], row) for row in rows), *(("all", row) for row in total)]
    ]
    return table([by, "pool", "kept", "share kept", *reasons], body)


def _sources(curated: pl.DataFrame, verdicts: pl.DataFrame, licences: Mapping[str, str | None]) -> list[str]:
    keys = ["source", "dataset", "split"]
    pool = verdicts.group_by(keys).agg(pl.len().alias("pool"))
    kept = curated.group_by(keys).agg(pl.len().alias("kept"))
    counted = pool.join(kept, on=keys, how="left").sort(keys).with_columns(pl.col("kept").fill_null(0))
    return [
        table([*keys, "pool", "kept"], list(counted.iter_rows())),
        "The terms of all of them hold for what is here: those of the annotations for the rows, those of the videos "
        "for the videos that the rows are about.\n",
        "".join(
            f"- {cell(name)}: {cell(text or 'no card here tells; ask its owners', len(text or '') + 99)}\n"
            for name, text in licences.items()
        ),
    ]


def _draws(verdicts: pl.DataFrame) -> str:
    drawn = verdicts.filter(pl.col("draws") > 0)["draws"]
    if drawn.is_empty():
        return "No sample has draws.\n"
    counts = np.asarray(drawn.to_numpy())
    return (
        f"{counts.sum()} draws of {len(counts)} samples: {counts.min()} to {counts.max()} a sample, median "
        f"{np.median(counts):g}.\n"
    )


def _spreads(verdicts: pl.DataFrame) -> str:
    columns = ["task", "samples", "mean reward", "mean variance", "variance p25 / p50 / p75", "dead", "right format"]
    body = [
        [
            row["task"],
            row["samples"],
            f"{row['reward_mean']:.3f}",
            f"{row['reward_var']:.4f}",
            " / ".join(f"{row[name]:.4f}" for name in ("var_p25", "var_p50", "var_p75")),
            _share(row["dead"], row["samples"], row["dead_low"], row["dead_high"]),
            f"{row['format_rate']:.3f}",
        ]
        for row in spreads(verdicts)
    ]
    return table(columns, body)


def _gaps(verdicts: pl.DataFrame) -> str:
    found = gaps(verdicts)
    missing = [probe for probe in _PROBES if probe not in {row["probe"] for row in found}]
    text = "".join(f"No sample was asked {_PROBES[probe]}.\n\n" for probe in missing)
    if not found:
        return text
    text += "Over the samples that were asked so; in parentheses the normal 95 % interval over samples.\n\n"
    body = [
        [
            row["source"],
            row["probe"],
            row["samples"],
            f"{row['with_views']:.3f}",
            f"{row['with_probe']:.3f}",
            f"{row['gap']:+.3f}" + ("" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"),
        ]
        for row in found
    ]
    columns = ["source", "probe", "samples", "mean reward with views", "with the probe", "gap"]
    return text + table(columns, body)


def _versions(facts: Mapping[str, str], curated: pl.DataFrame) -> str:
    frames = curated["frames_fingerprint"].n_unique()
    rows = [
        ["made", facts["made"]],
        ["fingerprint of this version", facts["fingerprint"]],
        ["fingerprint of the policy", facts["policy_fingerprint"]],
        ["fingerprints of the frames", f"{frames}, in the rows"],
        ["python", platform.python_version()],
        *([package, _version(package)] for package in PACKAGES),
    ]
    return table(["what", "value"], rows)


def _pairs(facts: Mapping[str, str], names: Sequence[str]) -> str:
    return table(["what", "value"], [[name, facts[name]] for name in names])


def _share(part: int, whole: int, low: float, high: float) -> str:
    return f"{part / whole:.3f} ({low:.3f} to {high:.3f})"


def _counts(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{cell(key)} ({count})" for key, count in sorted(counter.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
