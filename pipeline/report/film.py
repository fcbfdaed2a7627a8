"""The film strips of a sample for a page: small JPEG frames of each view with times and scores, and the score curve."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from pipeline.errors import UserError
from pipeline.evidence import in_spans
from pipeline.framereader import FrameReader
from pipeline.report.texts import number
from pipeline.variants import within
from pipeline.views import load_view

LONGEST = 128  # pixels of a small frame's longer side
QUALITY = 72
A_STRIP = 16  # frames of one view that are shown at most
POINTS = 160  # of the score curve at most

Floats = npt.NDArray[np.float64]


def film_of(
    reader: FrameReader, sample: Mapping[str, Any], views: Sequence[Mapping[str, Any]], scored: Mapping[str, Any] | None
) -> dict[str, Any] | str:
    """What the page draws of a sample's views, or why it cannot.

    Args:
        reader: of the store's frames.
        sample: video_id, spans and clip.
        views: variant, kind, indices, times, crop and scale of each; the anchor first.
        scored: scorer and scores (one a cached frame) of the sample; None: not scored.

    Returns:
        {"images": data URLs, each once, "width", "height", "scorer", "curve": [[time, score]], "strips": [{"variant",
        "kind", "crop", "scale", "left_out", "frames": [[image, time, score or null, 1 inside a true span]]}]}.
    """
    if not views:
        return "no views were drawn for this sample"
    video = sample["video_id"]
    if video not in reader:
        return "the frames of its video are not cached"
    try:
        times = np.asarray(reader.times(video))
    except UserError as error:  # some frames are missing: a matter of the store, not of this page
        return str(error)
    for view in views:
        if max(view["indices"]) >= len(times) or times[list(view["indices"])].tolist() != list(view["times"]):
            return "its views are of other frames than those that are cached now"
    scores = None if scored is None else np.asarray(scored["scores"], np.float64)
    if scores is not None and len(scores) != len(times):
        return "its scores are of other frames than those that are cached now"
    images: dict[str, int] = {}
    try:
        strips = [_strip(reader, sample, view, scores, images) for view in views]
    except ValueError as error:  # bytes that do not match their checksum
        return str(error)
    height, width = _small(np.zeros((*reader.size(video), 3), np.uint8)).shape[:2]
    shown = within(times, sample["clip"])
    return {
        "images": list(images),
        "width": width,
        "height": height,
        "scorer": "" if scored is None else scored["scorer"],
        "from": number(float(times[shown][0]), 3),
        "to": number(float(times[shown][-1]), 3),
        "curve": [] if scores is None else curve(times[shown], scores[shown]),
        "strips": strips,
    }


def curve(times: Floats, scores: Floats, points: int = POINTS) -> list[list[float]]:
    """[[time, score]] of at most `points` finite scores; of many frames each stretch gives its highest one."""
    finite = np.isfinite(scores)
    times, scores = times[finite], scores[finite]
    pieces = np.array_split(np.arange(len(scores)), min(points, max(len(scores), 1)))
    best = [int(piece[np.argmax(scores[piece])]) for piece in pieces if len(piece)]
    return [[round(float(times[k]), 3), round(float(scores[k]), 4)] for k in best]


def _strip(
    reader: FrameReader,
    sample: Mapping[str, Any],
    view: Mapping[str, Any],
    scores: Floats | None,
    images: dict[str, int],
) -> dict[str, Any]:
    """One view; its pictures are added to `images` where they are not there yet."""
    places = np.unique(np.linspace(0, len(view["indices"]) - 1, A_STRIP).round().astype(int)).tolist()
    indices = [int(view["indices"][place]) for place in places]
    seen = load_view(reader, sample["video_id"], indices, view["crop"], view["scale"])
    inside = np.atleast_1d(in_spans(seen.times, sample["spans"]).any(axis=0))
    frames = []
    for pixels, index, time, true in zip(seen.frames, indices, seen.times.tolist(), inside.tolist(), strict=True):
        image = images.setdefault(data_url(pixels), len(images))
        score = None if scores is None else number(float(scores[index]))
        frames.append([image, round(time, 3), score, int(true)])
    return {
        "variant": view["variant"],
        "kind": view["kind"],
        "crop": [round(float(edge), 3) for edge in view["crop"]],
        "scale": number(view["scale"], 3),
        "left_out": len(view["indices"]) - len(indices),
        "frames": frames,
    }


def data_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A frame, uint8 [H, W, 3], as a small JPEG inside an address."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(_small(pixels)), QUALITY, "RGB", "420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _small(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)
