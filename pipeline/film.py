"""What a picture of a sample's views shows: the question, the scores over time, and each view's frames in small."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.stage import literal
from pipeline.store import Store
from pipeline.variants import within
from pipeline.views import load_view

_LONGEST = 320  # pixels of a small frame's longer side


@dataclass(frozen=True)
class Strip:
    """A view: its row of `variants`, and its frames as its policy sees them, made small, uint8 [n, h, w, 3]."""

    row: dict[str, Any]
    frames: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """A sample's row, the times [K] and scores [K] of the frames in its clip (None: not scored), and its views."""

    sample: dict[str, Any]
    times: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64] | None
    scorer: str
    strips: list[Strip]


def find_sample(store: Store, beginning: str | None) -> str:
    """The one sample with views whose id begins so; without a beginning the first of them.

    Raises:
        UserError: there is none, or there are several.
    """
    keys = sorted(set(store.table("variants", ["sample_id"])["sample_id"].to_pylist()))
    if not keys:
        raise UserError(
            f"store {store.location}", "no views yet", f"strive-data build-variants --store {store.location}"
        )
    if beginning is None:
        return str(keys[0])
    found = [key for key in keys if key == beginning] or [key for key in keys if key.startswith(beginning)]
    if len(found) != 1:
        which = f"{len(found)} begin so: {', '.join(found[:3])}, ..." if found else f"none of {len(keys)} begins so"
        look = f"strive-data inspect variants --columns sample_id,variant,kind --store {store.location}"
        raise UserError(f"sample {beginning!r}", f"the id, or its beginning, of one sample with views ({which})", look)
    return str(found[0])


def film_of(store: Store, sample_id: str) -> Film:
    """Read what a picture of a sample shows.

    Raises:
        UserError: its views are of other frames than the cached ones.
    """
    where = f"sample_id = {literal(sample_id)}"
    (sample,) = store.table("samples", filter=where).to_pylist()
    views = store.table("variants", filter=where).sort_by("variant").to_pylist()
    scored = store.table("frame_scores", ["scorer", "scores"], where).to_pylist()
    reader = FrameReader(store)
    times = np.asarray(reader.times(sample["video_id"]))
    shown = within(times, sample["clip"])
    for view in views:
        if max(view["indices"]) >= len(times) or times[view["indices"]].tolist() != view["times"]:
            again = f"strive-data build-variants --store {store.location}"
            raise UserError(f"sample {sample_id}", "its views are of other frames than the cached ones", again)
    scores = np.asarray(scored[0]["scores"], np.float64) if scored else None
    if scores is not None and len(scores) != len(times):
        again = f"strive-data score-frames --store {store.location}"
        raise UserError(f"sample {sample_id}", "its scores are of other frames than the cached ones", again)
    strips = []
    for view in views:
        pictures = load_view(reader, sample["video_id"], view["indices"], view["crop"], view["scale"]).frames
        strips.append(Strip(view, np.stack([_small(picture) for picture in pictures])))
    scorer = scored[0]["scorer"] if scored else ""
    return Film(sample, times[shown], None if scores is None else scores[shown], scorer, strips)


def _small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)
