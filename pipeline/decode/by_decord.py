"""decord: the fast way, for files without doubts. What it gives is believed only while its FFmpeg has no complaint.

Where a picture is damaged, decord hands out what FFmpeg puts in its place, often the frame before, and says nothing.
FFmpeg itself does say so, in its messages: they are heard here.
"""

import atexit
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av  # noqa: F401 - first: decord's libraries are global, and those of PyAV would bind to them
import decord
import numpy as np

from pipeline.decode.packets import Scan, is_complaint

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Ear:
    """Counts the errors that decord's own FFmpeg reports, from any thread. A count too many only costs time."""

    def __init__(self) -> None:
        self.count = 0
        library = decord._ffi.base._LIB
        self._callback = _Callback(self._hear)  # kept: FFmpeg holds only a pointer to it
        try:
            self._set, default = library.av_log_set_callback, library.av_log_default_callback
        except AttributeError:  # a build that hides its FFmpeg cannot be heard
            self.deaf = True
            return
        self.deaf = False
        self._set.argtypes, self._set.restype = [ctypes.c_void_p], None
        self._set(ctypes.cast(self._callback, ctypes.c_void_p))
        atexit.register(self._set, ctypes.cast(default, ctypes.c_void_p))

    def _hear(self, source: int | None, level: int, text: bytes | None, arguments: int | None) -> None:
        if is_complaint(level, (text or b"").decode("latin-1")):
            self.count += 1


decord.logging.set_level(decord.logging.QUIET)
_EAR = _Ear()


def open_decord(path: Path, scan: Scan, size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray | None] | None:
    """A function that reads frames by index, or None when decord must not read this file or cannot open it.

    The function takes int [k], ascending, and returns uint8 [k, H, W, 3], or None when decord fails, when its own
    timestamps deny that these are the frames asked for, or when its FFmpeg reported an error since the file was opened.
    """
    if scan.doubts or _EAR.deaf:
        return None
    before = _EAR.count
    try:
        # fault_tol: by default decord repeats the last good frame for packets that do not decode.
        reader = decord.VideoReader(os.path.abspath(path), num_threads=1, width=size[0], height=size[1], fault_tol=1e-9)
        if len(reader) != len(scan.pts):
            return None
    except Exception:  # decord raises RuntimeError, DECORDError, IndexError...; PyAV then decides what is wrong
        return None

    def read(indices: np.ndarray) -> np.ndarray | None:
        frames = _batch(reader, scan, indices, size)
        return frames if _EAR.count == before else None

    return read


def _batch(reader: Any, scan: Scan, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    try:
        frames: np.ndarray = reader.get_batch(indices.tolist()).asnumpy()
        starts = reader.get_frame_timestamp(indices)[:, 0] - reader.get_frame_timestamp(0)[0]
    except Exception:  # as above
        return None
    tolerance = 0.5 * float(np.diff(scan.times).min()) if len(scan.times) > 1 else np.inf
    right = frames.shape == (len(indices), size[1], size[0], 3)
    return frames if right and np.abs(starts - scan.times[indices]).max() < tolerance else None
