"""A view as a policy sees it: its frames, cropped and resized, with their true times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.transforms import apply_crop, apply_scale

if TYPE_CHECKING:
    from pipeline.framereader import FrameReader

ANCHOR, BLIND, ONE_FRAME = 0, -1, -2
"""Variant numbers of the ledger beside the views' own: the anchor view, no frame at all, one frame."""


@dataclass(frozen=True)
class View:
    """Frames uint8 [n, H, W, 3] and their true times, float64 [n], seconds from the video's first frame."""

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]


def load_view(
    reader: "FrameReader", video_id: str, indices: Sequence[int], crop: Sequence[float], scale: float = 1.0
) -> View:
    """Read a view's frames from the cache, and apply its crop and its scale.

    Args:
        reader: of the store that holds the frames.
        video_id: the video.
        indices: cached frames, in the order they are shown.
        crop: left, top, right, bottom as shares of the frame.
        scale: share of the resolution that is kept; the size stays.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    frames = apply_scale(apply_crop(reader.read(video_id, indices), crop), scale)
    return View(frames, np.asarray(reader.times(video_id))[chosen])
