"""The data card of a curated dataset: what is in it, what was left out and why, and how to make it again."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.curate import Spread

_PACKAGES = ("strive-video", "torch", "transformers", "open_clip_torch", "pylance", "decord", "av")
_OPEN = """\
```python
import polars as pl

pl.scan_lance("<this folder>").select("question", "reward_var").collect()
```
"""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render(
    facts: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    pool: Sequence[Mapping[str, Any]],
    funnels: Mapping[str, Mapping[str, int]],
    spreads: Mapping[str, Sequence["Spread"]],
) -> str:
    """The card's text, in the Hub's dataset-card layout. The same input gives the same text.

    Args:
        facts: name, tag, fingerprint, rule, policy, draws, temperature, max_tokens, seed, scorers, command.
        rows: the kept samples, as curated rows.
        pool: the samples that were looked at.
        funnels: by task: pool, kept, and dropped by reason.
        spreads: by task: the reward statistics of every sample with rollouts.
    """
    reasons = [r for r in dict.fromkeys(k for f in funnels.values() for k in f) if r not in ("pool", "kept")]
    views = Counter(len(row["variants"]) for row in rows)
    kinds = Counter(view["kind"] for row in rows for view in row["variants"])
    frames = Counter(len(view["indices"]) for row in rows for view in row["variants"])
    kept_by = Counter((row["source"], row["split"]) for row in rows)
    pool_by = Counter((row["source"], row["split"]) for row in pool)
    parts = [
        _head(facts, rows),
        f"# {facts['name']}\n",
        f"{len(rows)} of {len(pool)} samples, about {len({row['video_id'] for row in rows})} videos, with their views "
        f"and how well one policy answers them. Version `{facts['tag']}`.\n",
        "## Selection\n",
        f"Rule: {facts['rule']}. The variance is the population variance (ddof 0) of accuracy, IoU or their mean by "
        f"task, never of the format, over {facts['draws']} draws on the anchor view. A sample whose draws all have "
        "equal rewards teaches nothing to a policy that learns from differences.\n",
        _table(
            ["task", "pool", "kept", *reasons],
            [
                [task, *(str(funnel.get(k, 0)) for k in ("pool", "kept", *reasons))]
                for task, funnel in sorted(funnels.items())
            ],
        ),
        "## Sources\n",
        _table(
            ["source", "split", "pool", "kept"],
            [[*key, str(count), str(kept_by[key])] for key, count in sorted(pool_by.items())],
        ),
        "The licences of the sources hold for the samples and videos taken from them.\n",
        "## Reward spread\n",
        "Over all samples with rollouts, before the filter.\n",
        _table(
            ["task", "samples", "mean reward", "mean variance", "variance p25 / p50 / p75", "dead", "format rate"],
            [_spread_row(task, stats) for task, stats in sorted(spreads.items())],
        ),
        "## Views\n",
        f"Views a sample: {_counts(views)}. Kinds: {_counts(kinds)}. Frames a view: {_counts(frames)}. "
        f"Scorer: {facts['scorers']}.\n",
        "## How it was made\n",
        _table(
            ["what", "value"],
            [
                *([key, facts[key]] for key in ("policy", "draws", "temperature", "max_tokens", "seed", "fingerprint")),
                ["frames", f"{len({row['frames_fingerprint'] for row in rows})} videos' fingerprints, in the rows"],
                ["python", platform.python_version()],
                *([package, _version(package)] for package in _PACKAGES),
            ],
        ),
        f"```\n{facts['command'] or 'strive-data select'}\n```\n",
        "## How to open it\n",
        _OPEN,
    ]
    return "\n".join(parts)


def _head(facts: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    size = next((name for limit, name in _SIZES if len(rows) < limit), "n>1M")
    lines = [
        "---",
        f'pretty_name: "{facts["name"]}"',
        "task_categories:",
        "- video-text-to-text",
        "tags:",
        *("- video", "- reinforcement-learning", "- lance"),
        "size_categories:",
        f"- {size}",
        f'version: "{facts["tag"]}"',
        "source_datasets:",
        *(f'- "{source}"' for source in sorted({row["source"] for row in rows})),
        "---\n",
    ]
    return "\n".join(lines)


def _spread_row(task: str, stats: Sequence["Spread"]) -> list[str]:
    variances = [s.variance for s in stats]
    quartiles = " / ".join(f"{q:.3f}" for q in np.quantile(variances, [0.25, 0.5, 0.75]))
    means = [float(np.mean(x)) for x in ([s.mean for s in stats], variances, [s.format_rate for s in stats])]
    dead = sum(s.dead for s in stats)
    return [task, str(len(stats)), f"{means[0]:.3f}", f"{means[1]:.3f}", quartiles, str(dead), f"{means[2]:.3f}"]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _counts(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{key} ({count})" for key, count in sorted(counter.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
