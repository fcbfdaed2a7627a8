"""The charts of a page of runs: which figures, in which groups, over which x; and the seconds by phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.report.texts import html, number
from trainer.live import seconds_of
from trainer.runreport import charts
from trainer.runreport.charts import Curve
from trainer.runreport.curves import Points, Scale, scale_of, smoothed
from trainer.runreport.runs import Run, paths_of, value_of

LAST = 10  # steps that the figures at a glance are means of, at least
READOUT = 500  # points of a run that the page can read out at the pointer


@dataclass(frozen=True)
class Panel:
    """One chart: the path of its figure in a row, its title, what it means; `share`: its axis is 0 to 1."""

    path: str
    title: str
    about: str
    share: bool = False


STRIVE = (
    Panel("reward_std", "Reward standard deviation", "of a pool, mean over the pools of a step"),
    Panel("dead_group_share", "Share of dead groups", "all rewards of the pool equal: nothing to learn from", True),
    Panel("grad_norm", "Gradient norm", "before clipping; a step without a live pool has none"),
)
REWARD = (
    Panel("reward_mean", "Mean reward", "of all rollouts of a step"),
    Panel("between_share", "Variance between views", "its share of a live pool's variance", True),
    Panel("replaced", "Dead pools replaced", "by the next samples of the stream"),
)
RESPONSE = (
    Panel("length", "Response length", "tokens, mean over the rollouts of a step"),
    Panel("lengths/max", "Longest response", "tokens"),
    Panel("lengths/cut", "Responses cut", "share that reached max_tokens without an end"),
    Panel("tokens_per_second", "Response tokens a second", "over the whole step"),
)
UPDATE = (
    Panel("loss", "Loss", "of the update"),
    Panel("approx_kl", "KL to the policy that sampled", "k3 estimate, nats a token"),
    Panel("kl", "KL to the reference", "k3 estimate, nats a token"),
    Panel("clip_fraction", "Clip fraction", "share of tokens whose ratio was clipped"),
)
GROUPS = {
    "What STRIVE is about": STRIVE,
    "Reward": REWARD,
    "Responses": RESPONSE,
    "Update": UPDATE,
}

PHASES = ("stream", "prompts", "vision", "rollout", "reward", "update")
COLOURS = 8  # of phases; further ones share the last

_PARTS, _PART = "parts/", "mean over the responses that have it"
_COUNTED = {"step", "rollouts", "tokens", "lengths/mean", "lengths/min"}  # shown in other ways


@dataclass(frozen=True)
class Axis:
    """A choice of x: its name, its label, and the values of each run, one a row."""

    name: str
    label: str
    xs: list[list[float]]

    def scale(self) -> Scale:
        """From the first to the last value of all runs; rollouts and time begin at 0."""
        values = [x for run in self.xs for x in (run[:1] + run[-1:])]
        low = min(values) if self.name == "step" else 0.0
        return charts.x_scale(low, max(values))


def axes_of(runs: Sequence[Run]) -> list[Axis]:
    """Steps; and rollouts and time where all runs have them: equal steps are not equal budgets. None without a step."""
    begun = [run for run in runs if run.rows]
    if not begun:
        return []
    found = [Axis("step", "step", [[float(row["step"]) for row in run.rows] for run in runs])]
    if all(any(value_of(row, "rollouts") for row in run.rows) for run in begun):
        sums = [summed([value_of(row, "rollouts") or 0.0 for row in run.rows]) for run in runs]
        found.append(Axis("rollouts", "rollouts", sums))
    if all(any(map(seconds_of, run.rows)) for run in begun):
        sums = [summed([seconds_of(row) for row in run.rows]) for run in runs]
        longest = max(run[-1] for run in sums if run)
        unit, size = ("seconds", 1.0) if longest < 180 else ("minutes", 60.0) if longest < 10800 else ("hours", 3600.0)
        found.append(Axis("time", f"{unit} of training", [[s / size for s in run] for run in sums]))
    return found


def summed(values: Sequence[float]) -> list[float]:
    """Running sums."""
    out, total = [], 0.0
    for value in values:
        total += value
        out.append(total)
    return out


def groups_of(runs: Sequence[Run]) -> list[tuple[str, list[Panel]]]:
    """The charts in their groups, those that any run has a value for; figures that are not known here come last."""
    rows = [row for run in runs for row in run.rows]
    paths = paths_of(rows)
    parts = [
        Panel(path, f"Reward part: {path.removeprefix(_PARTS)}", _PART) for path in paths if path.startswith(_PARTS)
    ]
    groups = {name: [*group, *(parts if group is REWARD else [])] for name, group in GROUPS.items()}
    known = {panel.path for group in groups.values() for panel in group} | _COUNTED
    others = [path for path in paths if path not in known and not path.startswith("seconds/")]
    groups["Other figures"] = [Panel(path, path.replace("_", " ").replace("/", ", "), "") for path in others]
    found = []
    for name, group in groups.items():
        there = [panel for panel in group if any(told(value_of(row, panel.path), panel) for row in rows)]
        if there:
            found.append((name, there))
    return found


def told(value: float | None, panel: Panel) -> bool:
    """Whether a value is worth a chart: there is one, and where nothing is ever replaced, not a row of zeros."""
    return value is not None and (panel.path != "replaced" or value != 0)


@dataclass(frozen=True)
class Drawn:
    """The values of one panel: for each run raw and smoothed, one a row."""

    panel: Panel
    raw: list[list[float | None]]
    smooth: list[list[float | None]]


def drawn(panel: Panel, runs: Sequence[Run], beta: float) -> Drawn:
    """Read a panel's values and smooth them over the steps."""
    raw = [[value_of(row, panel.path) for row in run.rows] for run in runs]
    steps = [[float(row["step"]) for row in run.rows] for run in runs]
    return Drawn(panel, raw, [smoothed(s, values, beta) for s, values in zip(steps, raw, strict=True)])


def figure(found: Drawn, runs: Sequence[Run], axes: Sequence[Axis]) -> str:
    """A panel as a <figure>: a chart for each choice of x, and which runs or steps lack it."""
    panel = found.panel
    up = scale_of([v for values in found.raw for v in values if v is not None], panel.share)
    pictures = []
    for axis in axes:
        curves = [
            Curve(colour, list(zip(xs, raw, strict=True)), list(zip(xs, smooth, strict=True)))
            for colour, (xs, raw, smooth) in enumerate(zip(axis.xs, found.raw, found.smooth, strict=True))
            if any(v is not None for v in raw)
        ]
        across = axis.scale()
        svg = charts.lines(panel.title, curves, axis.label, across, up)
        ends = f'data-low="{across.low:.9g}" data-high="{across.high:.9g}"'
        pictures.append(f'<div class="by by-{axis.name}" data-axis="{axis.name}" {ends}>{svg}</div>')
    about = f"<span>{escape(panel.about)}</span>" if panel.about else ""
    return (
        f'<figure class="panel" data-panel="{escape(panel.path)}"><figcaption><b>{escape(panel.title)}</b>{about}'
        f'</figcaption>{"".join(pictures)}{_lacking(found, runs)}<p class="readout quiet"></p></figure>'
    )


def _lacking(found: Drawn, runs: Sequence[Run]) -> str:
    """Which runs have no such figure, and at how many steps others have none."""
    said = []
    for run, values in zip(runs, found.raw, strict=True):
        absent = sum(v is None for v in values)
        if values and absent == len(values):
            said.append(f"{html(run.name)} has none")
        elif absent:
            said.append(f"{html(run.name)}: none at {absent:,} of {len(values):,} steps")
    return f'<p class="quiet lacking">{"; ".join(said)}</p>' if said else ""


def readout(found: Sequence[Drawn], axes: Sequence[Axis]) -> dict[str, Any]:
    """What the page reads out at the pointer: x, raw and smoothed values of at most READOUT rows a run."""
    picks = [evenly(len(xs), READOUT) for xs in axes[0].xs]

    def thin(runs: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
        return [[_digits(run[k]) for k in pick] for run, pick in zip(runs, picks, strict=True)]

    return {
        "axes": {axis.name: {"label": axis.label, "xs": thin(axis.xs)} for axis in axes},
        "panels": {one.panel.path: {"raw": thin(one.raw), "smooth": thin(one.smooth)} for one in found},
    }


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly spread, the ends among them."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}") if abs(value) < 1e4 else number(value, 0)


def phases_of(runs: Sequence[Run]) -> list[str]:
    """The phases that any run timed: known ones in the order of a step, then others."""
    there = {path.partition("/")[2] for run in runs for path in paths_of(run.rows) if path.startswith("seconds/")}
    return [p for p in PHASES if p in there] + sorted(there - set(PHASES))


def stacks(runs: Sequence[Run], phases: Sequence[str], beta: float) -> str:
    """Smoothed seconds of a step by phase, one above the other: a <figure> a run, all with the same axes."""
    series: list[list[Points]] = []
    for run in runs:
        steps = [float(row["step"]) for row in run.rows]
        layers = []
        for phase in phases:
            values: list[float | None] = [value_of(row, f"seconds/{phase}") or 0.0 for row in run.rows]
            layers.append(list(zip(steps, smoothed(steps, values, beta), strict=True)))
        series.append([[layer[k] for k in evenly(len(steps), charts.MOST)] for layer in layers])
    tops = [sum(layer[k][1] or 0.0 for layer in layers) for layers in series for k in range(len(layers[0]))]
    ends = [float(row["step"]) for run in runs for row in (run.rows[:1] + run.rows[-1:])]
    across, up = charts.x_scale(min(ends), max(ends)), scale_of([0.0, *tops])
    out = []
    for place, (run, layers) in enumerate(zip(runs, series, strict=True)):
        if not any(map(seconds_of, run.rows)):
            continue
        coloured = [(min(k, COLOURS - 1), layer) for k, layer in enumerate(layers)]
        svg = charts.stack("Seconds of a step by phase", coloured, "step", across, up)
        out.append(
            f'<figure class="run" data-run="{place}"><figcaption><b>{html(run.name)}</b></figcaption>{svg}</figure>'
        )
    return "".join(out)


def seconds_table(runs: Sequence[Run], phases: Sequence[str]) -> list[tuple[str, list[float], float]]:
    """(run, mean seconds of a step in each phase, their sum)."""
    out = []
    for run in runs:
        means = [sum(value_of(row, f"seconds/{p}") or 0.0 for row in run.rows) / max(len(run.rows), 1) for p in phases]
        out.append((run.name, means, sum(means)))
    return out


def overview(run: Run) -> Mapping[str, float | None]:
    """The figures of a run at a glance: sums over it, and means over the last tenth of its steps, LAST at least.

    Returns:
        rollouts, seconds; reward_mean, reward_std, dead_group_share, grad_norm, length, tokens_per_second of the last
        tenth; grad_norm_max of all steps. None: it has no such figure.
    """
    last = run.rows[-max(LAST, len(run.rows) // 10) :]
    names = ("reward_mean", "reward_std", "dead_group_share", "grad_norm", "length", "tokens_per_second")
    found: dict[str, float | None] = {name: _mean([value_of(row, name) for row in last]) for name in names}
    norms = [v for row in run.rows if (v := value_of(row, "grad_norm")) is not None]
    rollouts = [v for row in run.rows if (v := value_of(row, "rollouts")) is not None]
    found["grad_norm_max"] = max(norms, default=None)
    found["rollouts"] = sum(rollouts) if rollouts else None
    found["seconds"] = sum(map(seconds_of, run.rows)) or None
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
