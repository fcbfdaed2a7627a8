"""Charts as inline SVG, made of strings: a bar of a funnel, and a histogram. Colours come from the page."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 280, 170  # of a histogram, in units of its picture
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 8, 36
_LEAST = 0.6  # per cent of the width: a count above zero is seen


def bar(start: float, length: float, kind: str) -> str:
    """A bar of a funnel: shares of the pool, 0..1, where it starts and how long it is; `kind` is its class.

    It stretches with its cell, so it holds no text.
    """
    left, width = 100 * start, 100 * length
    if 0 < width < _LEAST:
        left, width = min(left, 100 - _LEAST), _LEAST
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="rail" width="100" height="10"/>'
        f'<rect class="{kind}" x="{left:.3f}" width="{width:.3f}" height="10"/></svg>'
    )


def ticks(top: float, most: int = 4) -> list[float]:
    """Round values from 0 to the first one that is not below `top` (above 0), `most` steps at most."""
    rough = top / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10, 20) if unit * k >= rough * (1 - 1e-9))
    return [step * k for k in range(math.ceil(top / step - 1e-9) + 1)]


def histogram(
    kept: Sequence[int], left_out: Sequence[int], top: float, title: str, x_label: str, line: float | None = None
) -> str:
    """Counts of samples in equal bins of 0..top, those kept below those left out, as an <svg> that stands alone.

    Args:
        kept, left_out: samples a bin, of one length.
        top: upper end of the last bin.
        title: what a screen reader says first.
        x_label: what is counted, below the axis.
        line: a value to be marked, e.g. a threshold; outside 0..top it is not drawn.

    Raises:
        ValueError: the two have different lengths, or none.
    """
    if not kept or len(kept) != len(left_out):
        raise ValueError(f"{len(kept)} and {len(left_out)} bins")
    tallest = max(a + b for a, b in zip(kept, left_out, strict=True))
    marks = [tick for tick in ticks(max(tallest, 1)) if tick == round(tick)]
    room, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    base = HEIGHT - _BOTTOM
    parts = []
    for mark in marks:
        y = base - high * mark / marks[-1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y + 3.5:.1f}">{short(mark)}</text>')
    step = room / len(kept)
    for place, (below, above) in enumerate(zip(kept, left_out, strict=True)):
        if below or above:
            parts.append(_column(place, step, below, above, high / marks[-1], top / len(kept)))
    for k in range(6):
        x = _LEFT + room * k / 5
        parts.append(f'<text class="tick middle" x="{x:.1f}" y="{base + 14}">{top * k / 5:g}</text>')
    if line is not None and 0 <= line <= top:
        parts.append(_marked(_LEFT + room * line / top, line))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text class="label middle" x="{_LEFT + room / 2:.1f}" y="{HEIGHT - 8}">{escape(x_label)}</text>')
    turned = f"rotate(-90 9 {_TOP + high / 2:.1f})"
    parts.append(f'<text class="label middle" x="9" y="{_TOP + high / 2:.1f}" transform="{turned}">samples</text>')
    said = f"{title}: {x_label}, {sum(kept)} kept and {sum(left_out)} left out samples"
    said += "" if line is None else f", threshold {line:g}"
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        + "".join(parts)
        + "</svg>"
    )


def short(count: float) -> str:
    """A count as an axis says it: 950, 12k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def _column(place: int, step: float, below: int, above: int, scale: float, width: float) -> str:
    """One bin: a bar of what was kept and, on it, one of what was left out; hovering tells the numbers."""
    base = HEIGHT - _BOTTOM
    x, wide = _LEFT + place * step + 0.5, step - 1
    said = f"{place * width:g} to {(place + 1) * width:g}: {below} kept, {above} left out"
    rects, y = "", float(base)
    for kind, count in (("kept", below), ("out", above)):
        if count:
            tall = max(count * scale, 1.0)
            y -= tall
            rects += f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{tall:.2f}"/>'
    return f"<g><title>{escape(said)}</title>{rects}</g>"


def _marked(x: float, value: float) -> str:
    """A dashed line with its value, written on the side where there is room."""
    side, shift = ("end", -4) if x > WIDTH / 2 else ("start", 4)
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 2}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="marked {side}" x="{x + shift:.1f}" y="{_TOP + 7}">threshold {value:g}</text>'
    )
