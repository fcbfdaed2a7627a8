"""torchcodec, where it is installed: for frames that PyAV cannot give, though nothing says that they are damaged.

It is imported at its first use only: with PyTorch it costs 700 MB. It is never asked for damaged frames, which it would
hand out as FFmpeg pieces them together, without a word.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.decode.by_pyav import Missing
from pipeline.decode.packets import Scan


def has_torchcodec() -> bool:
    """Whether it is installed; does not import it."""
    return importlib.util.find_spec("torchcodec") is not None


def open_torchcodec(path: Path, scan: Scan, size: tuple[int, int]) -> Callable[[int], np.ndarray | Missing]:
    """A function that takes a frame's index and returns uint8 [H, W, 3], checked against its timestamp, or why not.

    Args:
        size: (width, height) of the frames.
    """
    decoder, why = _open(path, scan)
    return lambda index: _frame(decoder, scan, index, size) if decoder is not None else Missing(why, damaged=False)


def _open(path: Path, scan: Scan) -> tuple[Any, str]:
    """(decoder, "") or (None, why there is none)."""
    if scan.counted:
        return None, "its timestamps name no frames"
    try:
        decoder = importlib.import_module("torchcodec.decoders").VideoDecoder(
            os.path.abspath(path),
            stream_index=scan.stream,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            seek_mode="exact",
        )
    except (RuntimeError, ValueError, OSError, ImportError) as error:  # ImportError: its FFmpeg is not there
        return None, _line(error)
    count = decoder.metadata.num_frames
    return (decoder, "") if count == len(scan.pts) else (None, f"it counts {count} frames, not {len(scan.pts)}")


def _frame(decoder: Any, scan: Scan, index: int, size: tuple[int, int]) -> np.ndarray | Missing:
    try:
        found = decoder.get_frame_at(index)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        return Missing(_line(error), damaged=False)
    if abs(found.pts_seconds - float(scan.pts[index]) * scan.tick_s) > 0.5 * scan.tick_s:
        return Missing(f"it gives the frame of {found.pts_seconds:.3f} s", damaged=False)
    picture = av.VideoFrame.from_ndarray(found.data.numpy(), format="rgb24")  # its rotation is applied already
    scaled = picture.reformat(width=size[0], height=size[1], format="rgb24", interpolation="BILINEAR")
    return np.ascontiguousarray(scaled.to_ndarray())


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
