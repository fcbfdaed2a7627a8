"""The picture of a sample's views: each film strip under the curve of the frame scores, with the true span marked."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evidence import in_spans
from pipeline.film import Film, Strip
from pipeline.prompts import LETTERS

INK, GREY, LINE, CHOSEN, TRUE = "#22303c", "#74808c", "#1f6fb2", "#d98032", "#2e9e5b"

_WIDTH, _MARGIN = 13.0, 0.5  # inches, like all lengths here
_ROOM = _WIDTH - 2 * _MARGIN
_A_ROW = 16  # small frames side by side at most
_CURVE, _LABEL, _WIRES, _APART = 0.8, 0.3, 0.3, 0.42  # heights: curve, line of text above it, wires below it, rest
_TALLEST = 1.9  # of a small frame
_CLOCK = 0.2  # below a small frame, for its time
_WORD = 60  # letters after which a word without end is broken


def draw(film: Film, path: Path) -> None:
    """Write the picture as a PNG.

    From above: the question, its options with the true one in green, and what is known of the sample; then for each
    view the scores of all cached frames over time, the true spans shaded, the frames that it shows as dots, and below
    these the frames themselves, cropped as their policy sees them, with their true times. Frames inside a true span
    are framed in green. Without scores there is a line of time instead of a curve.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    head = _head(film)
    head_height = sum(height for _, height, _ in head) + 0.25
    heights = [_strip_height(strip) for strip in film.strips]
    height = _MARGIN + head_height + sum(heights) + 0.1
    figure = plt.figure(figsize=(_WIDTH, height), facecolor="white")
    top = height - _MARGIN
    for texts, line_height, size in head:
        for left, text, colour, weight in texts:
            place = ((_MARGIN + left) / _WIDTH, top / height)
            figure.text(*place, text, color=colour, weight=weight, size=size, va="top", parse_math=False)
        top -= line_height
    top -= 0.25
    for strip, tall in zip(film.strips, heights, strict=True):
        _draw_view(figure, film, strip, top, height)
        top -= tall
    figure.savefig(path, dpi=120)
    plt.close(figure)


Line = tuple[list[tuple[float, str, str, str]], float, float]
"""Pieces of text (left, text, colour, weight) on one line, its height, and the size of its letters in points."""


def _head(film: Film) -> list[Line]:
    sample = film.sample
    head: list[Line] = [
        ([(0.0, text, INK, "bold")], 0.3, 15.0)
        for text in _wrap(sample["question"] or "(no question)", 15.0, "bold", 4)
    ]
    head[-1] = (head[-1][0], 0.38, 15.0)
    head += _options(sample["options"], sample["answer"])
    truths = [f"answer: {sample['answer']}"] if sample["answer"] and not sample["options"] else []
    if sample["spans"]:
        truths.append("true span " + ", ".join(f"{start:.1f} – {end:.1f} s" for start, end in sample["spans"]))
    for truth in truths:
        head += [([(0.0, text, TRUE, "bold")], 0.26, 11.0) for text in _wrap(truth, 11.0, "bold", 2)]
    count = len(film.times)
    length = f"{count} frame{'s' * (count > 1)} from {film.times[0]:.1f} to {film.times[-1]:.1f} s"
    facts = [sample["sample_id"], sample["task"], f"{sample['source']}, {sample['split']}", length]
    facts.append(f"scores: cosines of {film.scorer}" if film.scores is not None else "not scored")
    return [
        *head,
        *(([(0.0, text, GREY, "normal")], 0.24, 9.5) for text in _wrap("  ·  ".join(facts), 9.5, "normal", 2)),
    ]


def _options(options: Sequence[str], answer: str) -> list[Line]:
    """Options side by side where they are short, else one a line, or two."""
    texts = [f"{letter}  {text}" for letter, text in zip(LETTERS, options, strict=False)]
    longest = max((_length(text, 11.0, "bold") for text in texts), default=0.0) + 0.3
    columns = max(1, min(4, int(_ROOM / longest)))
    lines: list[Line] = []
    for start in range(0, len(texts), columns):
        part = list(enumerate(texts[start : start + columns]))
        if columns > 1:
            lines.append(([(k * _ROOM / columns, text, *_ink(text[0] == answer)) for k, text in part], 0.26, 11.0))
        else:
            ink = _ink(part[0][1][0] == answer)
            lines += [([(0.0, text, *ink)], 0.26, 11.0) for text in _wrap(part[0][1], 11.0, "bold", 2)]
    return lines


def _ink(right: bool) -> tuple[str, str]:
    return (TRUE, "bold") if right else (INK, "normal")


def _length(text: str, size: float, weight: str) -> float:
    """Length of a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(weight=weight, size=size), False)
    return float(points) / 72


def _wrap(text: str, size: float, weight: str, lines: int) -> list[str]:
    """Lines that fit the width of the picture, as many as there may be; the last tells that more was there."""
    words = [part for word in text.split(" ") for part in textwrap.wrap(word, _WORD) or [""]]
    wrapped = [""]
    for word in words:
        longer = f"{wrapped[-1]} {word}" if wrapped[-1] else word
        if _length(longer + " …", size, weight) <= _ROOM:
            wrapped[-1] = longer
        elif len(wrapped) == lines:
            wrapped[-1] += " …"
            break
        else:
            wrapped.append(word)
    return wrapped


def _grid(strip: Strip) -> tuple[int, int, float, float]:
    """Rows and columns of small frames, and the width and height of one."""
    count, tall, wide = strip.frames.shape[:3]
    rows = -(-count // _A_ROW)
    columns = max(-(-count // rows), 4)
    width = _ROOM / columns
    height = min(0.94 * width * tall / wide, _TALLEST)
    return rows, columns, width, height


def _strip_height(strip: Strip) -> float:
    rows, _, _, height = _grid(strip)
    return _LABEL + _CURVE + _WIRES + rows * (height + _CLOCK) + _APART


def _draw_view(figure: Any, film: Film, strip: Strip, top: float, height: float) -> None:
    """One view, its upper edge at `top` of a figure of `height`."""
    row, width = strip.row, _ROOM
    inside = in_spans(row["times"], film.sample["spans"]).any(axis=0)

    def axes(upper: float, tall: float) -> Any:
        return figure.add_axes((_MARGIN / _WIDTH, (upper - tall) / height, width / _WIDTH, tall / height))

    name = f"{row['variant']}  {row['kind']}"
    figure.text(_MARGIN / _WIDTH, top / height, name, color=INK, weight="bold", size=12, va="top")
    left = (_MARGIN + _length(name, 12.0, "bold") + 0.15) / _WIDTH
    figure.text(left, (top - 0.02) / height, _facts(row, film, inside), color=GREY, size=9.5, va="top")
    curve = axes(top - _LABEL, _CURVE)
    _draw_curve(curve, film, row, inside)
    strip_axes = axes(top - _LABEL - _CURVE, _WIRES + _grid(strip)[0] * (_grid(strip)[3] + _CLOCK))
    _draw_frames(strip_axes, curve, strip, inside)


def _facts(row: dict[str, Any], film: Film, inside: Any) -> str:
    inset = row["crop"][0]
    facts = ["whole frame" if inset == 0 else f"cropped by {inset:.1%} at each border"]
    if row["scale"] < 1:
        facts.append(f"at {row['scale']:.0%} of its resolution")
    facts.append(f"largest gap {row['coverage']:.0%} of the time")
    if row["variant"]:
        facts.append(f"overlap {row['overlap']:.0%} with the views before it")
    if film.sample["spans"]:
        facts.append(f"{int(inside.sum())} of {len(inside)} frames show the moment")
    return "  ·  ".join(facts)


def _draw_curve(axis: Any, film: Film, row: dict[str, Any], inside: Any) -> None:
    chosen = np.searchsorted(film.times, row["times"])
    values = np.zeros(len(film.times)) if film.scores is None else film.scores
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) and finite.max() > finite.min() else (-1.0, 1.0)
    floor = low - 0.12 * (high - low)
    axis.plot(film.times, values, color=LINE, linewidth=1.4, zorder=2)
    if film.scores is not None:
        axis.fill_between(film.times, values, floor, color=LINE, alpha=0.10, linewidth=0, zorder=1)
    for start, end in film.sample["spans"]:
        axis.axvspan(start, end, color=TRUE, alpha=0.20, linewidth=0, zorder=0)
    size = 5.5 if len(chosen) <= _A_ROW else 4.0
    for k, place in enumerate(chosen):
        colour = TRUE if inside[k] else CHOSEN
        time, value = film.times[place], values[place] if np.isfinite(values[place]) else floor
        axis.vlines(time, floor, value, color=colour, linewidth=0.9, zorder=2)
        axis.plot(time, value, "o", color=colour, markersize=size, markeredgecolor="white", zorder=3, clip_on=False)
    if film.scores is not None:
        for value in {float(low), float(high)} if len(finite) and finite.max() > finite.min() else ():
            axis.text(
                -0.004,
                value,
                f"{value:.2f}",
                color=GREY,
                size=7,
                ha="right",
                va="center",
                transform=axis.get_yaxis_transform(),
            )
    beside = 0.02 * max(film.times[-1] - film.times[0], 1e-3)
    axis.set(xlim=(film.times[0] - beside, film.times[-1] + beside), ylim=(floor, high + 0.18 * (high - low)))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#c9d1da")
    axis.set_yticks([])
    axis.tick_params(axis="x", bottom=False, labelbottom=False)


def _draw_frames(axis: Any, curve: Any, strip: Strip, inside: Any) -> None:
    """Small frames in rows, in inches from the upper left corner, with wires up to their place on the curve."""
    from matplotlib.patches import Rectangle

    rows, columns, width, height = _grid(strip)
    wide = min(0.94 * width, height * strip.frames.shape[2] / strip.frames.shape[1])
    start, end = curve.get_xlim()
    tall = _WIRES + rows * (height + _CLOCK)
    aside = (columns - min(columns, len(strip.frames))) * width / 2  # few frames stand in the middle
    axis.axis("off")
    for k, (frame, time) in enumerate(zip(strip.frames, strip.row["times"], strict=True)):
        middle = aside + (k % columns + 0.5) * width
        upper = _WIRES + k // columns * (height + _CLOCK)
        colour = TRUE if inside[k] else CHOSEN
        box = (middle - wide / 2, middle + wide / 2, upper + height, upper)
        axis.imshow(frame, extent=box, aspect="auto", interpolation="antialiased", zorder=2)
        edge = TRUE if inside[k] else "#c9d1da"
        thick = 2.6 if inside[k] else 0.8
        axis.add_patch(Rectangle((box[0], upper), wide, height, fill=False, edgecolor=edge, linewidth=thick, zorder=3))
        weight = "bold" if inside[k] else "normal"
        text = {"ha": "center", "va": "top", "size": 8.5 if columns <= 12 else 7.5, "weight": weight}
        axis.text(middle, upper + height + 0.045, f"{time:.2f} s", color=TRUE if inside[k] else GREY, **text)
        if rows == 1:  # wires to a second row would cross the first
            at = (time - start) / (end - start) * columns * width
            axis.plot([at, middle], [0, upper], color=colour, linewidth=0.7, alpha=0.7, zorder=1, clip_on=False)
    axis.set(xlim=(0, columns * width), ylim=(tall, 0))  # last: imshow sets limits of its own
