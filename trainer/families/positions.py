"""Positions of prompts in M-RoPE: time, row and column of every token, from true times.

transformers' own inference of them changed between releases without an error, and assumes frames that are evenly
spaced. These functions are the only source of positions here: tests/test_families_positions.py has golden values.

Legend of shapes: P prompt tokens, F frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

TEXT, VIDEO = 0, 2  # transformers' mm_token_type_ids

_ROUNDING = 1e-6  # of a tick: at 2 ticks a second, 1.9999999999 s is tick 4


def frame_positions(types: Tensor, height: int, width: int) -> Tensor:
    """Positions of a prompt whose frames each stand between text tokens, their times written there.

    Text counts up on all three axes. A frame of height x width merged patches starts at the running position p: time p
    for all of it, p + row and p + column on the other axes; the text behind it goes on at p + max(height, width).

    Args:
        types: long [P], TEXT or VIDEO; every run of VIDEO is height * width long.
        height, width: merged patches of a frame.

    Returns:
        long [3, P].

    Raises:
        ValueError: a run of video tokens is not one frame.
    """
    out = torch.empty(3, len(types), dtype=torch.long)
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    step, i = 0, 0
    flags = (types == VIDEO).tolist()
    while i < len(flags):
        if not flags[i]:
            out[:, i] = step
            step, i = step + 1, i + 1
            continue
        j = i + height * width
        if not all(flags[i:j]) or j > len(flags) or (j < len(flags) and flags[j]):
            raise ValueError(f"video tokens at {i} do not form one frame of {height} x {width}")
        out[0, i:j] = step
        out[1, i:j] = rows + step
        out[2, i:j] = columns + step
        step, i = step + max(height, width), j
    return out


def ticks(times: Sequence[float], per_second: float) -> Tensor:
    """True times as whole steps of the time axis, rounded down, long [F].

    Args:
        times: seconds from the video's first frame. per_second: ticks of one second.

    Raises:
        ValueError: a time is negative or not finite.
    """
    seconds = torch.as_tensor(times, dtype=torch.float64)
    if not bool((seconds.isfinite() & (seconds >= 0)).all()):
        raise ValueError(f"times must be finite and not negative: {list(times)}")
    return (seconds * per_second + _ROUNDING).floor().long()


def clocked_positions(types: Tensor, height: int, width: int, at: Tensor) -> Tensor:
    """Positions of a prompt with one video whose frames carry their times on the time axis.

    Text counts up on all three axes. With the video at position p, frame f has time p + at[f], p + row and p + column.
    The text behind it goes on at 1 + the largest position of the video, time included (Qwen2-VL, arXiv 2409.12191,
    section 2.1; time of Qwen2.5-VL, arXiv 2502.13923).

    Args:
        types: long [P], TEXT or VIDEO; one run of VIDEO, len(at) * height * width long.
        height, width: merged patches of a frame.
        at: long [F], ticks of each frame.

    Returns:
        long [3, P].

    Raises:
        ValueError: the video tokens are not one run of that length.
    """
    patches = height * width
    places = (types == VIDEO).nonzero()[:, 0]
    n = len(at) * patches
    if len(places) != n or n == 0 or int(places[-1] - places[0]) != n - 1:
        raise ValueError(f"{len(places)} video tokens do not form one run of {len(at)} frames of {height} x {width}")
    start = int(places[0])
    video = torch.stack(
        [
            at.repeat_interleave(patches),
            torch.arange(height).repeat_interleave(width).repeat(len(at)),
            torch.arange(width).repeat(height * len(at)),
        ]
    )
    out = torch.arange(len(types)).repeat(3, 1)
    out[:, start : start + n] = video + start
    out[:, start + n :] += int(video.max()) + 1 - n
    return out
