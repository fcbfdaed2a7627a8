"""The image-text model that judges frames against questions: open_clip, from a folder, the hub or a known name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, folder_fingerprint

PRECISIONS = ("fp32", "bf16")
_FRAMES_A_PASS = 32
_NEXT = "strive-data score-frames --model FOLDER"


@dataclass(frozen=True)
class ScorerSpec:
    """Which model: what open_clip calls it, its weights' tag (None: they come with the name), and its identity."""

    name: str
    pretrained: str | None
    label: str
    fingerprint: str


def resolve(model: str) -> ScorerSpec:
    """Find out which model a user means, without loading it.

    A folder's fingerprint is that of its files. `hf-hub:` and `name:pretrained` models are known by name only.

    Args:
        model: a folder in open_clip's layout, "hf-hub:owner/repo", or "name:pretrained".

    Raises:
        UserError: there is no such folder or name.
    """
    folder = Path(model.removeprefix("local-dir:"))
    if folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            raise UserError(model, "a scorer folder holds open_clip_config.json and its weights", _NEXT)
        identity = folder_fingerprint(folder)
        return ScorerSpec(f"local-dir:{folder.resolve()}", None, f"{folder.resolve().name}@{identity}", identity)
    if model.startswith("hf-hub:") and model != "hf-hub:":
        return ScorerSpec(model, None, model, fingerprint(model))
    name, colon, pretrained = model.partition(":")
    if colon and name != "local-dir":
        import open_clip

        if name in open_clip.list_models():
            tags = open_clip.list_pretrained_tags_by_model(name)
            if pretrained in tags:
                return ScorerSpec(name, pretrained, model, fingerprint(model))
            raise UserError(model, f"weights of {name} are one of {', '.join(tags) or 'none'}", _NEXT)
    raise UserError(model, "no such scorer: a folder, hf-hub:owner/repo or name:pretrained is expected", _NEXT)


def split_text(text: str, count: Callable[[str], int], context: int) -> tuple[list[str], int]:
    """Split a text into windows that fit a model's context, at sentences and, in a long sentence, at words.

    Args:
        text: any text.
        count: tokens of a text, special tokens included.
        context: the most tokens that one window may have.

    Returns:
        The windows, at least one, and how many tokens no window holds: 0 unless one word is longer than the context.
    """
    windows: list[str] = []
    current = ""
    for sentence in re.split(r"(?<=[.!?;:])\s+|\n+", text.strip()):
        pieces = [sentence] if count(sentence) <= context else sentence.split()
        for piece in pieces:
            joined = f"{current} {piece}".strip()
            if current and count(joined) > context:
                windows.append(current)
                joined = piece
            current = joined
    windows.append(current)
    return windows, sum(max(0, count(window) - context) for window in windows)


class Scorer:
    """A loaded image-text model. Embeddings are float32 and of unit length, so that a product is a cosine."""

    def __init__(self, spec: ScorerSpec, device: str, precision: str) -> None:
        import open_clip
        import torch

        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            self.model: Any = open_clip.create_model(
                spec.name, pretrained=spec.pretrained, device=device, require_pretrained=True
            )
            self.tokenizer: Any = open_clip.get_tokenizer(spec.name)
        except Exception as error:  # whatever a folder or download holds, open_clip says it in its own classes
            reason = f"{type(error).__name__}: " + " ".join(str(error).split())[:200]
            raise UserError(spec.label, f"open_clip cannot load this scorer ({reason})", _NEXT) from error
        # Weights in bf16, not autocast: autocast leaves open_clip's fast attention path and is four times slower.
        self.model.eval().to(self.dtype)
        self.preprocess: dict[str, Any] = dict(self.model.visual.preprocess_cfg)
        self.context: int = self.tokenizer.context_length

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed frames.

        Args:
            frames: uint8 [n, H, W, 3].

        Returns:
            float32 [n, dim], unit length.
        """
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(frames), _FRAMES_A_PASS):
                pixels = prepare(frames[start : start + _FRAMES_A_PASS], self.preprocess)
                parts.append(self._unit(self.model.encode_image(pixels.to(self.device, self.dtype))))
        return np.concatenate(parts)

    def encode_texts(self, texts: Sequence[str]) -> list[tuple[npt.NDArray[np.float32], int]]:
        """Embed texts, each as one or more windows of the model's context.

        Returns:
            For each text the embeddings of its windows, float32 [windows, dim], and its tokens that no window holds.
        """
        import torch

        split = [split_text(text, self.count_tokens, self.context) for text in texts]
        windows = list(dict.fromkeys(window for parts, _ in split for window in parts))
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        with torch.inference_mode():
            for start in range(0, len(windows), _FRAMES_A_PASS):
                some = windows[start : start + _FRAMES_A_PASS]
                encoded = self._unit(self.model.encode_text(self.tokenizer(some).to(self.device)))
                vectors.update(zip(some, encoded, strict=True))
        return [(np.stack([vectors[window] for window in parts]), cut) for parts, cut in split]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its special tokens, without any limit."""
        if hasattr(self.tokenizer, "encode"):  # open_clip's own tokenizer adds a start and an end
            return len(self.tokenizer.encode(text)) + 2
        inner, clean = self.tokenizer.tokenizer, getattr(self.tokenizer, "clean_fn", str)
        return len(inner(clean(text), truncation=False, verbose=False).input_ids)

    def _unit(self, vectors: Any) -> npt.NDArray[np.float32]:
        import torch

        unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return unit


def prepare(frames: npt.NDArray[np.uint8], config: dict[str, Any]) -> Any:
    """Frames as the model wants them, on tensors: resized the way its preprocess config says, then normalised.

    Args:
        frames: uint8 [n, H, W, 3].
        config: open_clip's preprocess config: size, interpolation, resize_mode, fill_color, mean, std.

    Returns:
        float32 tensor [n, 3, h, w].
    """
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
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
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (pixels.float() / 255 - mean) / std
