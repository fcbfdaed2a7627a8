"""Spatial transforms of a view that keep the answer: which tasks allow them, and how a crop is drawn and applied.

A box is (left, top, right, bottom) in shares of the frame. Flips, reversal and shuffles change answers and do not exist
here. A crop is centred, since one off the centre may turn "left" into "the middle"; it keeps at least 0.9 of each side.
A resized view shows all of the frame with fewer pixels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MIN_SIDE = 0.9
ZOOM_TASKS = frozenset({"choice"})
"""A crop changes counts and sizes (number) and may cut off what a span is about, so only plain choices are zoomed."""

RESIZE_TASKS = frozenset({"choice", "grounding", "grounded_choice"})
"""Fewer pixels move nothing, but small things are lost: what is counted (number) or read (open) stays sharp."""

_STEPS = 64  # insets are multiples of 1/64: exact in the float32 that the table stores, whole pixels apart from 64 on


def centred_box(inset: float) -> Box:
    """The box that leaves out `inset` (share of the side) at each border."""
    return (inset, inset, 1.0 - inset, 1.0 - inset)


def draw_box(task: str, seed: int) -> Box:
    """A box that keeps the answer: the whole frame, or for ZOOM_TASKS a centred crop of at least 0.9 of each side."""
    if task not in ZOOM_TASKS:
        return WHOLE
    most = int((1.0 - MIN_SIDE) / 2 * _STEPS)
    return centred_box(int(np.random.default_rng(seed).integers(0, most + 1)) / _STEPS)


def draw_scale(task: str, seed: int, least: float) -> float:
    """The share of the resolution that a view keeps, from `least` to 1 in 64ths; 1 for tasks not in RESIZE_TASKS."""
    steps = round((1.0 - least) * _STEPS)
    if task not in RESIZE_TASKS or not steps:
        return 1.0
    return 1.0 - int(np.random.default_rng([seed, 1]).integers(0, steps + 1)) / _STEPS


def apply_scale(frames: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """Frames at a share of their resolution, brought back to their size: what a smaller picture would show.

    Args:
        frames: uint8 [n, H, W, 3].
        scale: above 0, at most 1; 1 returns them as they are.

    Raises:
        ValueError: scale is outside that.
    """
    if not 0.0 < scale <= 1.0:
        raise ValueError(f"scale {scale} must be above 0 and at most 1")
    if scale == 1.0:
        return frames
    height, width = frames.shape[1:3]
    small = _resized(frames, max(1, round(height * scale)), max(1, round(width * scale)))
    return _resized(small, height, width)


def apply_crop(frames: npt.NDArray[np.uint8], box: Sequence[float]) -> npt.NDArray[np.uint8]:
    """Cut a box out of frames and scale it back to their size (bilinear, antialiased); the whole frame stays as it is.

    Args:
        frames: uint8 [n, H, W, 3].
        box: left, top, right, bottom as shares of the frame; rounded to pixels.

    Raises:
        ValueError: the box is empty or leaves the frame.
    """
    left, top, right, bottom = (float(side) for side in box)
    if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
        raise ValueError(f"crop {tuple(box)} must be left < right and top < bottom within 0..1")
    if (left, top, right, bottom) == WHOLE:
        return frames
    height, width = frames.shape[1:3]
    x0, y0 = round(left * width), round(top * height)
    x1, y1 = max(round(right * width), x0 + 1), max(round(bottom * height), y0 + 1)
    return _resized(frames[:, y0:y1, x0:x1], height, width)


def _resized(frames: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    import torch  # here, since stages that only draw boxes start faster without it

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    result: npt.NDArray[np.uint8] = np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())
    return result
