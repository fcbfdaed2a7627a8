"""The page of runs: one HTML file that loads nothing, runs only its own script, and shows texts as texts."""

import base64
import hashlib
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.report.page import refuse_place
from pipeline.report.texts import cut, html, script_json
from trainer.live import duration
from trainer.runreport import panels
from trainer.runreport.answers import Compared
from trainer.runreport.runs import Run, differing, said

BETA = 0.9  # smoothing: the weight of a step against the next one
_TEXT = 400  # characters of a name or a setting
_COLUMNS = (
    ("reward_mean", "Reward", "{:.3f}"),
    ("reward_std", "Reward std", "{:.3f}"),
    ("dead_group_share", "Dead groups", "{:.1%}"),
    ("grad_norm", "Gradient norm", "{:,.2f}"),
    ("grad_norm_max", "Largest norm", "{:,.2f}"),
    ("length", "Tokens a response", "{:.0f}"),
    ("tokens_per_second", "Tokens a second", "{:,.0f}"),
)


def write(runs: Sequence[Run], path: Path, beta: float = BETA, answers: Compared | None = None) -> int:
    """Write the page, in one step; returns its bytes. Raises UserError: the file cannot be there."""
    refuse_place(path)
    data = render(runs, beta, answers).encode("utf-8")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)
    return len(data)


def render(runs: Sequence[Run], beta: float = BETA, answers: Compared | None = None) -> str:
    """The page as text. Its policy names the hash of the one script and the one style that it may use."""
    style = _asset("pipeline.report", "page.css") + _asset("trainer.runreport", "page.css")
    script = _asset("trainer.runreport", "page.js")
    axes = panels.axes_of(runs)
    data, sections = curves(runs, axes, beta)
    parts = {
        "CSP": (
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "STYLE": style,
        "SCRIPT": script,
        "TITLE": escape(cut(", ".join(run.name for run in runs), 120)),
        "NAMES": ", ".join(html(cut(run.name, _TEXT)) for run in runs),
        "OVERVIEW": overview(runs),
        "NOTES": notes(runs),
        "LEGEND": legend(runs),
        "AXES": "".join(f'<option value="{a.name}">{escape(a.label)}</option>' for a in axes),
        "SMOOTH": f"{beta:g}",
        "CURVES": sections,
        "SECONDS": seconds(runs, beta),
        "SETTINGS": settings(runs),
        "ANSWERS": "" if answers is None else answers_note(answers),
        "HIDDEN": "hidden" if answers is None else "",
        "DATA": script_json({"runs": [cut(run.name, _TEXT) for run in runs], **data, "answers": pairs(answers)}),
    }
    pieces = _asset("trainer.runreport", "page.html").split("%%")  # text, name, text, name, ..., text
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def curves(runs: Sequence[Run], axes: Sequence[panels.Axis], beta: float) -> tuple[dict[str, Any], str]:
    """What the page reads out at the pointer, and a section for each group of charts."""
    groups = [(name, [panels.drawn(p, runs, beta) for p in group]) for name, group in panels.groups_of(runs)]
    if not axes:
        return {"axes": {}, "panels": {}}, '<section><p class="quiet">There is no step yet.</p></section>'
    sections = [
        f'<section><h2>{escape(name)}</h2><div class="charts">'
        f"{''.join(panels.figure(one, runs, axes) for one in group)}</div></section>"
        for name, group in groups
    ]
    return panels.readout([one for _, group in groups for one in group], axes), "".join(sections)


def overview(runs: Sequence[Run]) -> str:
    """A table with a line a run: how far it is, and its figures over the last tenth of its steps."""
    head = ["Run", "Steps", "Rollouts", "Time", *(label for _, label, _ in _COLUMNS)]
    lines = []
    for place, run in enumerate(runs):
        found = panels.overview(run)
        of = f" of {run.planned:,}" if run.planned is not None and run.planned != run.steps else ""
        rollouts, spent = found["rollouts"], found["seconds"]
        cells = [
            f"{run.steps:,}{of}",
            "–" if rollouts is None else f"{rollouts:,.0f}",
            "–" if spent is None else duration(spent),
            *("–" if (value := found[name]) is None else form.format(value) for name, _, form in _COLUMNS),
        ]
        name = f'<span class="key c{place}"></span>{html(cut(run.name, _TEXT))}'
        lines.append(_line(name, cells, head[1:]))
    return _table("overview", head, lines)


def notes(runs: Sequence[Run]) -> str:
    """What a reader has to know about single runs."""
    said = [f"<li>{html(cut(run.name, _TEXT))}: {escape(note)}</li>" for run in runs for note in run.notes]
    return f'<ul class="notes">{"".join(said)}</ul>' if said else ""


def legend(runs: Sequence[Run]) -> str:
    """A box to tick for each run."""
    return "".join(
        f'<label class="check"><input type="checkbox" class="toggle" value="{place}" checked autocomplete="off">'
        f'<span class="key c{place}"></span>{html(cut(run.name, _TEXT))}</label>'
        for place, run in enumerate(runs)
    )


def seconds(runs: Sequence[Run], beta: float) -> str:
    """The section about time by phase; empty where none was measured."""
    phases = panels.phases_of(runs)
    if not phases:
        return ""
    colours = [min(k, panels.COLOURS - 1) for k in range(len(phases))]
    keys = "".join(
        f'<span class="keyed"><span class="key p{colour}"></span>{escape(phase)}</span> '
        for colour, phase in zip(colours, phases, strict=True)
    )
    lines = []
    for name, means, total in panels.seconds_table(runs, phases):
        cells = [f"{mean:.3g} s, {mean / total:.1%}" if total else "–" for mean in means]
        lines.append(_line(html(cut(name, _TEXT)), [*cells, f"{total:.3g} s"], [*phases, "a step"]))
    table = _table("seconds", ["Run", *phases, "a step"], lines)
    return (
        f'<section><h2>Where the time goes</h2><p class="legend">Seconds of a step by phase, smoothed: {keys}</p>'
        f'<div class="charts">{panels.stacks(runs, phases, beta)}</div>{table}'
        '<p class="quiet">Means over all steps, and the share of a step.</p></section>'
    )


def settings(runs: Sequence[Run]) -> str:
    """The section about settings in which the runs differ; for one run all of its settings."""
    if len(runs) == 1:
        values = {**runs[0].settings, **runs[0].origin}
        rows = "".join(
            f"<div><dt>{html(cut(name, _TEXT))}</dt><dd>{html(cut(said(value), _TEXT))}</dd></div>"
            for name, value in values.items()
        )
        inside = f'<details><summary>{len(values)} settings</summary><dl class="terms">{rows}</dl></details>'
        return f"<section><h2>Settings</h2>{inside}</section>"
    found, agree = differing(runs)
    names = [run.name for run in runs]
    lines = [
        _line(html(cut(name, _TEXT)), ["–" if v is None else html(cut(v, _TEXT)) for v in values], names)
        for name, values in found
    ]
    table = _table("settings-table", ["", *names], lines) if lines else ""
    return (
        f'<section><h2>Settings that differ</h2>{table}<p class="quiet">{len(found)} differ, {agree} are equal in all '
        "runs where they are known. Folders and devices are left out.</p></section>"
    )


def answers_note(answers: Compared) -> str:
    """How the two did on the questions that both answered, and what the page has of it."""
    first, second = (html(cut(name, _TEXT)) for name in answers.names)
    equal = answers.pairs - answers.first_better - answers.second_better
    parts = [
        f"<b>{answers.pairs:,}</b> questions were answered by both {first} and {second}: "
        f"<b>{answers.second_better:,}</b> better by {second}, <b>{answers.first_better:,}</b> better by {first}, "
        f"<b>{equal:,}</b> alike.",
        f"{len(answers.shown):,} of them are in this page, those that differ most first, both directions in turn; "
        f"{answers.films:,} with the frames that were seen.",
    ]
    if answers.beyond:
        parts.append(f"{answers.beyond:,} more were asked for and are beyond the size of a page.")
    for count, name in zip(answers.alone, (first, second), strict=True):
        if count:
            parts.append(f"{count:,} answers of {name} have no counterpart.")
    return " ".join(parts)


def pairs(answers: Compared | None) -> dict[str, Any] | None:
    """The answers for the page's script."""
    return None if answers is None else {"names": [cut(n, _TEXT) for n in answers.names], "pairs": answers.shown}


def _table(kind: str, head: Sequence[str], lines: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{html(cut(name, _TEXT)) if name else ""}</th>' for name in head)
    return f'<table class="figures {kind}"><thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _line(name: str, cells: Sequence[str], labels: Sequence[str]) -> str:
    """A line of a table; `name` and `cells` are markup, `labels` are texts that a phone shows before each cell."""
    tds = (
        f'<td data-label="{escape(cut(label, _TEXT))}">{cell}</td>' for label, cell in zip(labels, cells, strict=True)
    )
    return f'<tr><th scope="row">{name}</th>{"".join(tds)}</tr>'


def _asset(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
