"""Charts of runs as inline SVG, made of strings. Colours come from the page; every text in them is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.report.charts import short
from trainer.runreport.curves import Points, Scale, linear, thinned

WIDTH, HEIGHT = 400, 230  # of a chart, in units of its picture
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36
MOST = 400  # stretches of a curve; see `thinned`


@dataclass(frozen=True)
class Curve:
    """One run in one chart: its colour's number, and raw and smoothed values over the same x."""

    colour: int
    raw: Points
    smooth: Points


def lines(title: str, curves: Sequence[Curve], x_label: str, across: Scale, up: Scale) -> str:
    """Raw values faint, smoothed ones bold, a group a run, as an <svg> that stands alone.

    Args:
        title: what a screen reader says first.
        across, up: the axes.
    """
    parts = [axes(x_label, across, up)]
    for curve in curves:
        raw = path(thinned(curve.raw, MOST), across, up)
        bold = path([p for p in thinned(curve.smooth, MOST) if p[1] is not None], across, up)
        parts.append(
            f'<g class="run c{curve.colour}" data-run="{curve.colour}">'
            f'<path class="raw" d="{raw}"/><path class="smooth" d="{bold}"/></g>'
        )
    count = f"{len(curves)} run{'s' if len(curves) != 1 else ''}"
    return _svg(f"{title} by {x_label}, {count}{', logarithmic' if up.log else ''}", parts)


def stack(title: str, layers: Sequence[tuple[int, Points]], x_label: str, across: Scale, up: Scale) -> str:
    """Areas one above the other: (colour's number, heights over a common x without gaps), from below."""
    parts = [axes(x_label, across, up)]
    if layers:
        below = [0.0] * len(layers[0][1])
        for colour, points in layers:
            above = [b + (y or 0.0) for b, (_, y) in zip(below, points, strict=True)]
            xs = [x for x, _ in points]
            there = [_at(x, y, across, up) for x, y in zip(xs, above, strict=True)]
            back = [_at(x, y, across, up) for x, y in zip(reversed(xs), reversed(below), strict=True)]
            parts.append(f'<path class="area p{colour}" d="M{"L".join([*there, *back])}Z"/>')
            below = above
    return _svg(f"{title} by {x_label}", parts)


def path(points: Points, across: Scale, up: Scale) -> str:
    """The `d` of a line through the points, broken at gaps; a value between two gaps is a dot of no length."""
    out: list[str] = []
    pen_down = False
    for place, (x, y) in enumerate(points):
        if y is None:
            pen_down = False
            continue
        alone = not pen_down and (place + 1 == len(points) or points[place + 1][1] is None)
        out.append(f"{'L' if pen_down else 'M'}{_at(x, y, across, up)}{'h0' if alone else ''}")
        pen_down = True
    return "".join(out)


def axes(x_label: str, across: Scale, up: Scale) -> str:
    """Grid, ticks and the label of the x axis."""
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in up.ticks:
        y = base - (base - TOP) * up.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{figure(tick)}</text>')
    for tick in across.ticks:
        x = LEFT + (right - LEFT) * across.place(tick)
        parts.append(f'<text class="tick middle" x="{x:.1f}" y="{base + 14}">{figure(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    label = f"{x_label}{'; logarithmic axis' if up.log else ''}"
    parts.append(f'<text class="label middle" x="{(LEFT + right) / 2:.1f}" y="{HEIGHT - 7}">{escape(label)}</text>')
    return "".join(parts)


def x_scale(low: float, high: float) -> Scale:
    """The axis of x: it ends where the data end, with round ticks inside."""
    high = high if high > low else low + 1.0
    ticks = tuple(tick for tick in linear(low, high).ticks if low <= tick <= high)
    return Scale(low, high, ticks)


def figure(value: float) -> str:
    """A tick: 0.25, 950, 12k, 2.5e-4."""
    rounded = float(f"{value:.4g}")
    if rounded == 0 or 1e-3 <= abs(rounded) < 1e9:
        return ("-" if rounded < 0 else "") + short(abs(rounded))
    mantissa, power = f"{rounded:.3e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


def _at(x: float, y: float, across: Scale, up: Scale) -> str:
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    return f"{LEFT + (right - LEFT) * across.place(x):.1f} {base - (base - TOP) * up.place(y):.1f}"


def _svg(said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="histogram chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        + "".join(parts)
        + "</svg>"
    )
