"""The page itself: one HTML file that loads nothing, runs only its own script, and shows texts as texts."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import UserError
from pipeline.report.charts import bar, histogram
from pipeline.report.choice import HOW
from pipeline.report.data import Content, max_blind, thresholds
from pipeline.report.texts import cut, html, script_json

MOST_GROUPS = 8  # sources with a funnel of their own; the rest is joined
_FACT = 800  # characters of a setting
_BINS = 25
_BLIND = 0.5  # mean reward without frames above which a sample counts as answered blind where the tag sets no bound
_SETTINGS = {
    "rule": "rule",
    "policy": "policy",
    "views": "views asked about",
    "draws": "draws a sample",
    "drawing": "drawing",
    "temperature": "temperature",
    "max_tokens": "longest response, tokens",
    "seed": "seed",
    "reward": "reward",
    "options": "options",
    "scorers": "frame scores by",
    "fingerprint": "fingerprint",
    "made": "made",
    "command": "command",
}


def refuse_place(path: Path) -> None:
    """Raises UserError when a page cannot be written there."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}", "its folder does not exist", f"mkdir -p {path.absolute().parent}")
    if path.is_dir():
        raise UserError(f"--out {path}", "it is a folder", f"--out {path / 'report.html'}")


def write(content: Content, path: Path) -> int:
    """Write the page, in one step; returns its bytes. Raises UserError: the file cannot be there."""
    refuse_place(path)
    data = render(content).encode("utf-8")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)
    return len(data)


def render(content: Content) -> str:
    """The page as text. Its policy names the hash of the one script and the one style that it may use."""
    facts, verdicts, least = content.facts, content.verdicts, thresholds(content.facts)
    tasks, sources = groups(verdicts, "task"), groups(verdicts, "source")
    style, script = _asset("page.css"), _asset("page.js")
    parts = {
        "CSP": (
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "STYLE": style,
        "SCRIPT": script,
        "NAME": html(cut(facts["name"], _FACT)),
        "TITLE": _title(facts),
        "TAG": html(cut(facts["tag"], _FACT)),
        "SUMMARY": html(cut(facts["rule"], _FACT)),
        "SETTINGS": settings(facts),
        "TILES": tiles(verdicts, facts),
        "FUNNEL": funnel(verdicts, "all samples"),
        "BY_TASK": "".join(funnel(part, name) for name, part in tasks),
        "BY_SOURCE": "".join(funnel(part, name) for name, part in sources),
        "HISTOGRAMS": "".join(histograms(part, name, least.get(name)) for name, part in tasks),
        "SHOWN": shown_note(content),
        "DATA": script_json({"thresholds": least, "samples": content.shown.samples}),
    }
    pieces = _asset("page.html").split("%%")  # text, name, text, name, ..., text
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def settings(facts: Mapping[str, str]) -> str:
    """The settings of a tag as a list of terms; what is not among its facts is left out."""
    rows = ((label, facts[key]) for key, label in _SETTINGS.items() if facts.get(key))
    return "".join(f"<div><dt>{label}</dt><dd>{html(cut(_plain(value), _FACT))}</dd></div>" for label, value in rows)


def tiles(verdicts: pl.DataFrame, facts: Mapping[str, str]) -> str:
    """The figures of a tag at a glance: pool, kept, mean variance, dead share, blind share."""
    kept = verdicts.filter(pl.col("reason") == "")
    measured = verdicts.filter(pl.col("reward_var").is_not_null())
    blind = verdicts.filter(pl.col("blind_mean").is_not_null())
    bound = max_blind(facts)
    bound = _BLIND if bound is None else bound
    dead = measured.filter(pl.col("reward_var") == 0).height
    above = blind.filter(pl.col("blind_mean") > bound + 1e-9).height
    cells = [
        ("pool", f"{verdicts.height:,}", f"{measured.height:,} of them measured"),
        ("kept", f"{kept.height:,}", f"{share(kept.height, verdicts.height)} of the pool"),
        ("mean variance", _mean(kept), f"of those kept; {_mean(measured)} of all measured"),
        ("dead", share(dead, measured.height), f"{dead:,} of {measured.height:,} measured: all rewards equal"),
        ("answered blind", share(above, blind.height), f"{above:,} of {blind.height:,} asked: reward above {bound:g}"),
    ]
    return "".join(
        f'<div class="tile"><dt>{name}</dt><dd><b>{value}</b><span>{note}</span></dd></div>'
        for name, value, note in cells
    )


def funnel(verdicts: pl.DataFrame, name: str) -> str:
    """A table with a bar a line: the pool, what each reason took from it, most first, and what was kept."""
    pool = verdicts.height
    counts = verdicts["reason"].value_counts().sort(["count", "reason"], descending=[True, False]).rows()
    lines = [_funnel_line("pool", pool, pool, bar(0.0, 1.0, "pool"))]
    left = pool
    for reason, count in counts:
        if reason:
            left -= count
            lines.append(_funnel_line(reason, count, pool, bar(left / pool, count / pool, "out")))
    lines.append(_funnel_line("kept", left, pool, bar(0.0, left / pool, "kept")))
    return f'<table class="funnel"><caption>{html(cut(name, 80))}</caption><tbody>{"".join(lines)}</tbody></table>'


def groups(verdicts: pl.DataFrame, column: str, most: int = MOST_GROUPS) -> list[tuple[str, pl.DataFrame]]:
    """Parts of the pool by a column, largest first; with more than `most` the smallest ones as one."""
    names = verdicts[column].value_counts().sort(["count", column], descending=[True, False])[column].to_list()
    alone = names if len(names) <= most else names[: most - 1]
    parts = [(name, verdicts.filter(pl.col(column) == name)) for name in alone]
    rest = len(names) - len(alone)
    if rest:
        parts.append((f"{rest} others", verdicts.filter(~pl.col(column).is_in(alone))))
    return parts


def histograms(verdicts: pl.DataFrame, task: str, threshold: float | None) -> str:
    """Two histograms of a task: the variance of the reward, with the threshold, and its mean."""
    measured = verdicts.filter(pl.col("reward_var").is_not_null())
    if not measured.height:
        return f'<div><h3>{html(task)}</h3><p class="quiet">No sample was measured.</p></div>'
    is_kept = (measured["reason"] == "").to_numpy()
    out = []
    for column, top, label, line in (
        ("reward_var", 0.25, "variance of the reward", threshold),
        ("reward_mean", 1.0, "mean reward", None),
    ):
        values = measured[column].to_numpy()
        out.append(
            histogram(
                counts(values[is_kept], top), counts(values[~is_kept], top), top, cut(task, 40), label, line or None
            )
        )
    return f'<div><h3>{html(task)}</h3><div class="pair">{"".join(out)}</div></div>'


def counts(values: Sequence[float] | np.ndarray, top: float, bins: int = _BINS) -> list[int]:
    """How many values lie in each of `bins` equal bins of 0..top; the last one holds `top` itself."""
    found: list[int] = np.histogram(np.clip(values, 0.0, top), bins=bins, range=(0.0, top))[0].tolist()
    return found


def shown_note(content: Content) -> str:
    """How many of how many samples the page has, how they were chosen, and what its size left out."""
    shown, pool = content.shown, content.verdicts.height
    count = len(shown.samples)
    parts = [f"<b>{count:,} of {pool:,}</b> samples of the pool are in this page."]
    if count < pool:
        parts.append(f"Chosen: {HOW}.")
    if count < shown.asked:
        parts.append(f"{shown.asked - count:,} more were asked for and are beyond the size of a page.")
    parts.append(f"{shown.films:,} have film strips.")
    if shown.beyond_films:
        parts.append(f"The strips of {shown.beyond_films:,} more are beyond the size of a page.")
    if shown.without_responses:
        parts.append(f"The responses of {shown.without_responses:,} are beyond the size of a page.")
    return " ".join(parts)


def share(count: int, of: int) -> str:
    """A share in per cent; a dash when there is nothing to share."""
    return f"{100 * count / of:.1f} %" if of else "–"


def _funnel_line(name: str, count: int, pool: int, picture: str) -> str:
    return (
        f'<tr><th scope="row">{html(cut(name, 80))}</th><td class="picture">{picture}</td>'
        f'<td class="count">{count:,}</td><td class="share">{share(count, pool)}</td></tr>'
    )


def _mean(verdicts: pl.DataFrame) -> str:
    value = verdicts["reward_var"].mean()
    return f"{value:.3f}" if isinstance(value, float) else "–"


def _plain(value: str) -> str:
    """A setting as people read it: of an object in JSON only what is set."""
    try:
        found = json.loads(value)
    except ValueError:
        return value
    if not isinstance(found, dict):
        return value
    return ", ".join(f"{key} {item}" for key, item in found.items() if item not in (None, "", [], {})) or "none"


def _title(facts: Mapping[str, str]) -> str:
    from html import escape

    return escape(cut(f"{facts['name']} {facts['tag']}", 120))


def _asset(name: str) -> str:
    return files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
