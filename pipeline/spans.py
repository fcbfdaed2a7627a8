"""The moments of a draft in the time of its video's file: in seconds, inside the file, with what was put right."""

import math
from dataclasses import dataclass

from pipeline.sources.draft import Draft, Rejected
from pipeline.sources.values import Span

ROUNDING_S = 0.01
"""Annotations are rounded to hundredths: an end this little outside the video is its end, and no repair."""

OUT_OF_RANGE = 2.0
"""A span that ends later than this many lengths of the video counts in another unit, or belongs to another video."""

_CUT_S = 1.0  # a cut may begin and end at frames, and the file around it may be a little shorter than was written down


@dataclass(frozen=True)
class Placed:
    """spans: seconds of the file, ascending. clip: the part that the question is about; None: all of the file."""

    spans: tuple[Span, ...]
    clip: Span | None
    repairs: tuple[str, ...]


def place(draft: Draft, duration_s: float | None) -> Placed:
    """Put a draft's spans into the time of its file.

    Args:
        duration_s: of the file; None where there is no file yet: then the annotation's own length holds.

    Raises:
        Rejected: no span lies in the video, or the part that the row is about does not.
    """
    offset, length, clip = 0.0, duration_s if duration_s is not None else draft.length_s, None
    if draft.cut is not None and duration_s is not None:
        clip = _clip(draft.cut, duration_s)
        if clip is not None:
            offset, length = clip[0], clip[1] - clip[0]
    spans = draft.spans
    if draft.shares and spans:
        if length is None:
            raise Rejected("no video length", "spans are shares of a length that neither row nor video gives")
        spans = tuple((start * length, end * length) for start, end in spans)
    spans, repairs = clip_spans(spans, length)
    return Placed(tuple((start + offset, end + offset) for start, end in spans), clip, repairs)


def clip_spans(spans: tuple[Span, ...], length_s: float | None) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Spans cut to a video's length in seconds (None: unknown), and what was repaired.

    Raises:
        Rejected: none of the spans begins inside the video and ends near it.
    """
    length_s = math.inf if length_s is None else length_s
    if not spans:
        return (), ()
    reasons = [_out_of_range(span, length_s) for span in spans]
    inside = [span for span, reason in zip(spans, reasons, strict=True) if not reason]
    if not inside:
        first = next(reason for reason in reasons if reason)
        raise Rejected(first, f"{[list(span) for span in spans]} in a video of {length_s:.3f} s")
    repairs = ["span out of range dropped"] * (len(inside) < len(spans))
    if any(start < -ROUNDING_S for start, _ in inside):
        repairs.append("span cut to the video's start")
    if any(end > length_s + ROUNDING_S for _, end in inside):
        repairs.append("span cut to the video's end")
    return tuple((max(start, 0.0), min(end, length_s)) for start, end in inside), tuple(repairs)


def _out_of_range(span: Span, length_s: float) -> str:
    if span[1] <= 0:
        return "span before the video's start"
    if span[0] >= length_s:
        return "span past the video's end"
    return "span out of range" if span[1] > OUT_OF_RANGE * length_s else ""


def _clip(cut: Span, duration_s: float) -> Span | None:
    """The part of a file that is the cut; None when the file is the cut itself, saved on its own.

    Raises:
        Rejected: the file is neither as long as the cut nor long enough to hold it.
    """
    start, end = cut
    if abs(duration_s - (end - start)) <= _CUT_S:
        return None
    if end <= duration_s + _CUT_S:
        return (start, min(end, duration_s))
    raise Rejected("cut outside the video", f"[{start}, {end}] of a video of {duration_s:.3f} s")
