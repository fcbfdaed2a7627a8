"""An evaluation as tables for people: the figures of each benchmark, its breakdowns, and checkpoints side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METHOD = "95 %: Wilson intervals of rates; else, and for differences, a bootstrap over videos, paired"
_COLUMNS = 5  # figures of a breakdown that are shown


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, and rows of texts and numbers; None is left empty."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def tables(report: Mapping[str, Any], name: str = "") -> list[Table]:
    """The tables of one checkpoint.

    Args:
        report: `trainer.evaluate.Answered.summary`.
        name: of the checkpoint; shown in titles when given.
    """
    ahead = f"{name}: " if name else ""
    out = [_general(report, f"{ahead}{report['samples']} samples; {METHOD}")]
    for part in report["benchmarks"]:
        if not part["benchmark"]:
            continue
        title = f"{ahead}{part['benchmark']} ({part['dataset']}), {part['view']} view"
        figures = [
            [figure, one["value"], ends(one["low"], one["high"]), one["n"]] for figure, one in part["figures"].items()
        ]
        counts = {what: count for what, count in part["counts"].items() if count and what != "n"}
        rows = figures + [[what, _told(count), "", ""] for what, count in counts.items()]
        out.append(Table(title + (f". {part['note']}" if part["note"] else ""), ["figure", "value", "95 %", "n"], rows))
        out += [_breakdown(f"{title}, by {axis}", groups) for axis, groups in part["by"].items()]
    return out


def side_by_side(names: Sequence[str], comparison: Sequence[Mapping[str, Any]]) -> Table:
    """The same figures of several checkpoints, one column each; behind the first, how much it differs from the first.

    Args:
        comparison: `trainer.grading.compared`.
    """
    rows = []
    for one in comparison:
        head = " ".join(text for text in (one["dataset"], one["view"], one["figure"]) if text)
        cells = [f"{one['values'][0]:.4g}"]
        for value, gap in zip(one["values"][1:], one["differences"], strict=True):
            between = ends(gap["low"], gap["high"], sign=True)
            cells.append(f"{value:.4g} ({gap['difference']:+.3g}{', ' + between if between else ''})")
        rows.append([head, one["n"], *cells])
    return Table(f"side by side; differences from {names[0]}; {METHOD}", ["figure", "n", *names], rows)


def ends(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval as text; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"{low:+.3g} to {high:+.3g}" if sign else f"{low:.3g} - {high:.3g}"


def _general(report: Mapping[str, Any], title: str) -> Table:
    views = {f"{name} view": part for name, part in report["by_view"].items()}
    groups = {"all": report, **report["by_task"], **views}
    columns = ["", "n", "accuracy", "95 %", "mIoU", "R1@0.5", "format"]
    rows = [
        [
            name,
            part["n"],
            part.get("accuracy"),
            ends(part.get("accuracy_low"), part.get("accuracy_high")),
            part.get("miou"),
            part.get("r1@0.5"),
            part.get("format_rate"),
        ]
        for name, part in groups.items()
    ]
    return Table(title, columns, rows)


def _breakdown(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for figures in groups.values() for name in figures))[:_COLUMNS]
    rows = []
    for group, figures in groups.items():
        n = max((one["n"] for one in figures.values()), default=0)
        rows.append([group, n, *(figures[name]["value"] if name in figures else None for name in names)])
    return Table(title, ["", "n", *names], rows)


def _told(count: int | Mapping[str, int]) -> Any:
    if isinstance(count, int):
        return count
    return ", ".join(f"{number} {reason}" for reason, number in count.items())
