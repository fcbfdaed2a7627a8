"""Frames as an image tower wants them, on tensors, and how many of them one pass may take."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST, MOST = 8, 256
"""Bounds of the frames in one pass."""

MOST_ON_CPU = 32
"""On a CPU a larger pass was measured to be no faster: its activations leave the caches."""

_SHARE = 4  # a pass may take one part in so many of the free memory
_LIVE = 8  # as many tensors of the largest kind live at once in a layer: queries, keys, values, hidden units, sums


def prepare(frames: npt.NDArray[np.uint8], config: dict[str, Any], device: str = "cpu") -> Any:
    """Frames as the model wants them: resized the way its preprocess config says, then normalised.

    Args:
        frames: uint8 [n, H, W, 3].
        config: open_clip's preprocess config: size, interpolation, resize_mode, fill_color, mean, std.
        device: that the work is done on.

    Returns:
        float32 tensor [n, 3, h, w].
    """
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)
    source_height, source_width = pixels.shape[2:]
    if (source_height, source_width) != (height, width):
        mode = InterpolationMode.BILINEAR if config["interpolation"] == "bilinear" else InterpolationMode.BICUBIC
        ratios = (height / source_height, width / source_width)
        if config["resize_mode"] == "squash":
            target = (height, width)
        else:
            longest = config["resize_mode"] == "longest"
            ratio = min(ratios) if longest else max(ratios)
            # open_clip leaves the ordinary case to torchvision, which rounds down, and rounds itself in the others.
            whole = int if height == width and not longest else round
            target = (whole(source_height * ratio), whole(source_width * ratio))
        pixels = tv.resize(pixels, list(target), interpolation=mode, antialias=True)
        missing = (max(0, width - pixels.shape[3]), max(0, height - pixels.shape[2]))
        if any(missing):
            left, top = missing[0] // 2, missing[1] // 2
            pixels = tv.pad(pixels, [left, top, missing[0] - left, missing[1] - top], fill=config["fill_color"])
        pixels = tv.center_crop(pixels, [height, width])
    mean, std = (torch.tensor(config[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    ready = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return ready.mul_(1 / (255 * std)).sub_(mean / std)


def frames_a_pass(largest: int, free: int, on_cpu: bool) -> int:
    """How many frames one pass may take: those whose activations fill a quarter of the free memory, 8 to 256.

    Args:
        largest: bytes of the largest tensor that any layer puts out for one frame; eight such live at once.
        free: bytes of free memory on the device.
        on_cpu: 32 are the most there.
    """
    return max(LEAST, min(MOST_ON_CPU if on_cpu else MOST, free // (_SHARE * _LIVE * max(1, largest))))


def free_bytes(device: str) -> int:
    """Free memory of a device, bytes; on a CPU what the system can give without swapping, in this process's group."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = Path("/proc/meminfo")
    if facts.is_file():
        values = dict(line.split(":", 1) for line in facts.read_text().splitlines())
        free = int(values["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


def largest_output(tower: Any, inputs: Any) -> int:
    """Bytes of the largest tensor that any layer of an image tower puts out, found by running it.

    Args:
        tower: torch module.
        inputs: tensor [1, 3, h, w], on its device, in its precision.
    """
    import torch

    sizes: list[int] = [inputs.nbytes]

    def note(module: Any, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple | list) else (output,)
        sizes.extend(part.nbytes for part in parts if isinstance(part, torch.Tensor))

    hooks = [module.register_forward_hook(note) for module in tower.modules()]
    try:
        with torch.inference_mode():
            tower(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)
