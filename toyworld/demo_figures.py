"""The demo's figures: hit rates, arms, the facts that must hold, the table and the picture. Pure but for the PNG."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from toyworld.questions import in_view

ARMS = ("grpo_anchor", "grpo_importance", "strive")
TITLES = {"grpo_anchor": "GRPO, anchor", "grpo_importance": "GRPO, one importance view", "strive": "STRIVE, four views"}
COLOURS = {"grpo_anchor": "#7f8c9b", "grpo_importance": "#d98032", "strive": "#1f6fb2"}
CURVES = {"reward_std": "reward std", "dead_group_share": "dead-group share", "grad_norm": "gradient norm"}

IMPORTANCE_HIT_MIN = 0.85
UNIFORM_HIT_MAX = 0.70
DEAD_RATIO_MAX = 0.70


@dataclass(frozen=True)
class Fact:
    """Something that the demo must show, with the figures it is judged by."""

    text: str
    holds: bool


def hit_rates(samples: Iterable[Mapping[str, Any]], variants: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Share of views that see all evidence of their question.

    Args:
        samples: rows with sample_id and origin, a JSON object with the key `evidence`: spans [start_s, end_s), each of
            which must be seen. Samples without evidence do not count.
        variants: rows with sample_id, variant and times.

    Returns:
        uniform: over variant 0, the anchor. importance: over all variants from 1 on.

    Raises:
        ValueError: there is no view of one of the two kinds.
    """
    evidence = {row["sample_id"]: json.loads(row["origin"]).get("evidence") for row in samples}
    hits: dict[str, list[bool]] = {"uniform": [], "importance": []}
    for view in variants:
        spans = evidence.get(view["sample_id"])
        if spans:
            kind = "uniform" if view["variant"] == 0 else "importance"
            hits[kind].append(in_view([(start, end) for start, end in spans], view["times"]))
    for kind, seen in hits.items():
        if not seen:
            raise ValueError(f"no {kind} view of a sample with evidence")
    return {kind: sum(seen) / len(seen) for kind, seen in hits.items()}


def column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """One figure over the steps of a run; NaN where a step has none (a step without live groups has no gradient)."""
    return np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)


def arm_figures(
    rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What one arm came to.

    Args:
        rows: metrics of its steps.
        before: `strive-train eval` of the policy that it started from, with figures `by_view`.
        after: the same of the policy that it ended with.
        seconds: wall time of the whole training command.

    Returns:
        accuracy_before and accuracy_after are those on importance views; those on the anchor have their own keys.
        grad_norm_cv is the population standard deviation of the gradient norm over the steps, by its mean; the other
        training figures are means over the steps.
    """
    norms = column(rows, "grad_norm")
    return {
        "rollouts": int(sum(row["rollouts"] for row in rows)),
        "steps": len(rows),
        "reward_std": float(np.nanmean(column(rows, "reward_std"))),
        "dead_group_share": float(np.nanmean(column(rows, "dead_group_share"))),
        "grad_norm_cv": float(np.nanstd(norms) / np.nanmean(norms)),
        "accuracy_before": before["by_view"]["importance"]["accuracy"],
        "accuracy_after": after["by_view"]["importance"]["accuracy"],
        "accuracy_anchor_before": before["by_view"]["anchor"]["accuracy"],
        "accuracy_anchor_after": after["by_view"]["anchor"]["accuracy"],
        "seconds": seconds,
    }


def robust_facts(summary: Mapping[str, Any]) -> list[Fact]:
    """The effects that are large enough to be asserted. Accuracy is none of them."""
    hit, arms = summary["hit_rate"], summary["arms"]
    control, strive = arms["grpo_importance"]["dead_group_share"], arms["strive"]["dead_group_share"]
    budgets = {(arm["rollouts"], arm["steps"]) for arm in arms.values()}
    return [
        Fact(
            f"importance views see the evidence in {hit['importance']:.1%} (at least {IMPORTANCE_HIT_MIN:.0%})",
            hit["importance"] >= IMPORTANCE_HIT_MIN,
        ),
        Fact(
            f"uniform views see it in {hit['uniform']:.1%} (at most {UNIFORM_HIT_MAX:.0%})",
            hit["uniform"] <= UNIFORM_HIT_MAX,
        ),
        Fact(
            f"dead groups: STRIVE {strive:.1%}, GRPO on one importance view {control:.1%} "
            f"(at most {DEAD_RATIO_MAX} of it)",
            strive <= DEAD_RATIO_MAX * control,
        ),
        Fact("all arms had the same number of rollouts and steps", len(budgets) == 1),
    ]


def arms_table(summary: Mapping[str, Any]) -> Table:
    """The closing table: one row an arm."""
    table = Table(title="At the same number of rollouts and steps", title_justify="left")
    table.add_column("arm")
    columns = ("rollouts", "steps", "reward std", "dead groups", "grad norm CV")
    for name in (*columns, "accuracy, importance", "accuracy, anchor", "wall time"):
        table.add_column(name, justify="right")
    for name in ARMS:
        arm = summary["arms"][name]
        table.add_row(
            TITLES[name],
            f"{arm['rollouts']}",
            f"{arm['steps']}",
            f"{arm['reward_std']:.3f}",
            f"{arm['dead_group_share']:.1%}",
            f"{arm['grad_norm_cv']:.2f}",
            f"{arm['accuracy_before']:.3f} -> {arm['accuracy_after']:.3f}",
            f"{arm['accuracy_anchor_before']:.3f} -> {arm['accuracy_anchor_after']:.3f}",
            f"{arm['seconds']:.0f} s",
        )
    return table


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centred moving mean over `width` steps (an odd number), shorter at both ends; NaN values are left out.

    A window with nothing but NaN gives NaN.
    """
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nan if np.isnan(window).all() else np.nanmean(window) for window in windows])


def draw(
    summary: Mapping[str, Any], runs: Mapping[str, Sequence[Mapping[str, Any]]], test_samples: int, path: Path
) -> None:
    """The demo's picture: evidence, selection and accuracy above; the three curves that STRIVE is about below.

    Args:
        summary: what `summary.json` holds.
        runs: metrics of each arm's steps.
        test_samples: questions behind an accuracy, for its standard error.
        path: the PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    plain: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "font.size": 9.5,
    }
    with plt.rc_context({**plain, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10}):
        figure = plt.figure(figsize=(13.5, 7.8), layout=ConstrainedLayoutEngine(w_pad=0.12, wspace=0.03))
        parts: Any = figure.subfigures(2, 1, hspace=0.06)  # apart: long labels above do not squeeze the curves below
        upper, lower = parts
        hits, selection, accuracy = upper.subplots(1, 3, width_ratios=(0.8, 1.1, 1.1))
        _draw_hits(hits, summary["hit_rate"])
        _draw_selection(selection, summary["selection"])
        _draw_accuracy(accuracy, summary["arms"], test_samples)
        curves = lower.subplots(1, 3)
        for axis, (name, label) in zip(curves, CURVES.items(), strict=True):
            _draw_curves(axis, name, label, runs)
        handles, labels = curves[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10.5)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _draw_hits(axis: Any, hit_rate: Mapping[str, float]) -> None:
    bars = axis.bar(
        ["uniform\n(anchor)", "importance\nviews"],
        [hit_rate["uniform"], hit_rate["importance"]],
        color=[COLOURS["grpo_anchor"], COLOURS["strive"]],
        width=0.55,
    )
    axis.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=3, fontsize=11)
    axis.set(title="All evidence is in the view", ylim=(0, 1.12), ylabel="share of views", xlim=(-0.6, 1.6))
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1.0])


def _draw_selection(axis: Any, selection: Mapping[str, Any]) -> None:
    reasons = sorted(selection.get("reasons", {}).items(), key=lambda item: -item[1])
    rows = [("pool", selection["pool"], "#c9d1da")]
    left = selection["pool"]
    offsets = [0]
    for reason, count in reasons:
        left -= count
        rows.append((f"dropped:\n{reason}", count, "#b5544a"))
        offsets.append(left)
    rows.append(("kept", selection["kept"], COLOURS["strive"]))
    offsets.append(0)
    for place, ((_, count, colour), offset) in enumerate(zip(rows, offsets, strict=True)):
        axis.barh(place, count, left=offset, color=colour, height=0.6)
        axis.text(offset + count + 0.012 * selection["pool"], place, f"{count}", va="center", fontsize=11)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axis.invert_yaxis()
    axis.set(title="Selection by repeated inference", xlabel="samples", xlim=(0, 1.12 * selection["pool"]))


def _draw_accuracy(axis: Any, arms: Mapping[str, Mapping[str, Any]], test_samples: int) -> None:
    for place, name in enumerate(ARMS):
        before, after = arms[name]["accuracy_before"], arms[name]["accuracy_after"]
        error = math.sqrt(after * (1 - after) / test_samples)
        axis.plot([before, after], [place, place], color=COLOURS[name], linewidth=3, alpha=0.35, zorder=1)
        axis.plot(before, place, "o", color="white", markeredgecolor=COLOURS[name], markersize=9, markeredgewidth=1.8)
        axis.errorbar(after, place, xerr=error, fmt="o", color=COLOURS[name], markersize=9, capsize=3)
        axis.annotate(f"{after:.3f}", (after, place), (0, 10), textcoords="offset points", ha="center")
    axis.set_yticks(range(len(ARMS)), [TITLES[name].replace(", ", ",\n") for name in ARMS])
    axis.set_ylim(len(ARMS) - 0.5, -0.6)
    axis.margins(x=0.2)
    axis.locator_params(axis="x", nbins=6)
    axis.set(
        title="Accuracy before (open) and after", xlabel=f"importance views of {test_samples} test questions, ± 1 SE"
    )


def _draw_curves(axis: Any, name: str, label: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    width = 1 + 2 * max(1, max(len(rows) for rows in runs.values()) // 12)
    for arm in ARMS:
        values = column(runs[arm], name)
        steps = [row["step"] for row in runs[arm]]
        axis.plot(steps, values, color=COLOURS[arm], alpha=0.32, linewidth=1)
        axis.plot(steps, smooth(values, width), color=COLOURS[arm], linewidth=2.4, label=TITLES[arm])
    axis.set(title=label[0].upper() + label[1:], xlabel=f"training step (bold: mean of {width})")
    axis.set_ylim(bottom=0)
    axis.locator_params(axis="x", integer=True)
