"""The image-text model that judges frames against questions: open_clip, from a folder, the hub or a known name.

Any other model serves as well: an object with the methods of `Encoder`, behind a `Loader`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, folder_fingerprint
from pipeline.pixels import frames_a_pass, free_bytes, largest_output, prepare
from pipeline.windows import cut_tokens, split_text

PRECISIONS = ("fp32", "bf16")
_TEXTS_A_PASS = 32
_NEXT = "strive-data score-frames --model FOLDER"


class Encoder(Protocol):
    """A model that puts pictures and texts into one space, where a cosine says how well they fit."""

    @property
    def context(self) -> int:
        """The most tokens that one text may have, special tokens included."""
        ...

    @property
    def frames_a_pass(self) -> int:
        """How many frames it is best given at once."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its special tokens, without any limit."""
        ...

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Frames uint8 [n, H, W, 3] to embeddings float32 [n, dim] of unit length."""
        ...

    def encode_windows(self, windows: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts that fit the context to embeddings float32 [n, dim] of unit length."""
        ...


@dataclass(frozen=True)
class Loader:
    """How a stage gets its encoder. It is pickled to workers, so `load` is a function of a module, or a partial of one.

    load: device -> encoder. label: what the tables call it. fingerprint: of everything that its embeddings depend on.
    """

    load: Callable[[str], Encoder]
    label: str
    fingerprint: str


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
        if not (folder / "open_clip_config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise UserError(model, "a scorer folder holds open_clip_config.json and its weights as .safetensors", _NEXT)
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


def open_clip_loader(model: str, precision: str = "fp32", batch: int | None = None) -> Loader:
    """A loader of an open_clip model.

    Args:
        model: as for `resolve`.
        precision: fp32, or bf16 (three times faster on CPUs that have it, cosines equal to 5e-5).
        batch: frames in one pass; None: as many as memory suggests. It moves no more than the last digits.

    Raises:
        UserError: there is no such model, or another value is not among its choices.
    """
    if precision not in PRECISIONS:
        raise UserError(precision, f"the precision is one of {', '.join(PRECISIONS)}", "strive-data score-frames")
    if batch is not None and batch < 1:
        raise UserError(f"--batch {batch}", "at least one frame a pass", "strive-data score-frames")
    spec = resolve(model)
    load = partial(_load, spec=spec, precision=precision, batch=batch)
    return Loader(load, spec.label, fingerprint(spec.fingerprint, precision))


def _load(device: str, spec: ScorerSpec, precision: str, batch: int | None) -> "Scorer":
    return Scorer(spec, device, precision, batch)


def _tokenizer(name: str) -> Any:
    """A model's tokenizer. What a model says of itself may ask for code that comes with it: that is never run."""
    import open_clip

    try:
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    except TypeError as error:  # open_clip's own tokenizer, which has no code of others to run, does not know the word
        if "trust_remote_code" not in str(error):
            raise
    return open_clip.get_tokenizer(name)


class Scorer:
    """A loaded open_clip model, an `Encoder`. A product of its embeddings is a cosine.

    Args:
        batch: frames in one pass; None: as many as memory suggests (`pipeline.pixels.frames_a_pass`).
    """

    def __init__(self, spec: ScorerSpec, device: str, precision: str, batch: int | None = None) -> None:
        import open_clip
        import torch

        self.device = device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            self.model: Any = open_clip.create_model(
                spec.name, pretrained=spec.pretrained, device=device, require_pretrained=True
            )
            self.tokenizer: Any = _tokenizer(spec.name)
        except Exception as error:  # whatever a folder or download holds, open_clip says it in its own classes
            reason = f"{type(error).__name__}: " + " ".join(str(error).split())[:200]
            raise UserError(spec.label, f"open_clip cannot load this scorer ({reason})", _NEXT) from error
        # Weights in bf16, not autocast: autocast leaves open_clip's fast attention path and is four times slower.
        self.model.eval().to(self.dtype)
        self.preprocess: dict[str, Any] = dict(self.model.visual.preprocess_cfg)
        self.context: int = self.tokenizer.context_length
        self._batch = batch

    @property
    def frames_a_pass(self) -> int:
        """Frames in one pass."""
        if self._batch is None:
            inputs = self._prepare(np.zeros((1, 8, 8, 3), np.uint8))
            largest = largest_output(self.model.visual, inputs)
            self._batch = frames_a_pass(largest, free_bytes(self.device), not self.device.startswith("cuda"))
        return self._batch

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
            for start in range(0, len(frames), self.frames_a_pass):
                pixels = self._prepare(frames[start : start + self.frames_a_pass])
                parts.append(self._unit(self.model.encode_image(pixels)))
        return np.concatenate(parts)

    def encode_windows(self, windows: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts that fit the context.

        Returns:
            float32 [n, dim], unit length.
        """
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(windows), _TEXTS_A_PASS):
                tokens = self.tokenizer(list(windows[start : start + _TEXTS_A_PASS]))
                parts.append(self._unit(self.model.encode_text(tokens.to(self.device))))
        return np.concatenate(parts)

    def encode_texts(self, texts: Sequence[str]) -> list[tuple[npt.NDArray[np.float32], int]]:
        """Embed texts of any length, each as one or more windows of the model's context.

        Returns:
            For each text the embeddings of its windows, float32 [windows, dim], and its tokens that no window holds.
        """
        split = [split_text(text, self.count_tokens, self.context) for text in texts]
        windows = list(dict.fromkeys(window for parts in split for window in parts))
        vectors = dict(zip(windows, self.encode_windows(windows), strict=True)) if windows else {}
        return [
            (np.stack([vectors[window] for window in parts]), cut_tokens(parts, self.count_tokens, self.context))
            for parts in split
        ]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its special tokens, without any limit."""
        if hasattr(self.tokenizer, "encode"):  # open_clip's own tokenizer adds a start and an end
            return len(self.tokenizer.encode(text)) + 2
        inner, clean = self.tokenizer.tokenizer, getattr(self.tokenizer, "clean_fn", str)
        if getattr(self.tokenizer, "tokenizer_mode", None) == "clips":  # adds a start, an end and a class token
            return len(inner(clean(text), add_special_tokens=False, truncation=False, verbose=False).input_ids) + 3
        return len(inner(clean(text), truncation=False, verbose=False).input_ids)

    def _prepare(self, frames: npt.NDArray[np.uint8]) -> Any:
        return prepare(frames, self.preprocess, self.device).to(self.dtype)

    def _unit(self, vectors: Any) -> npt.NDArray[np.float32]:
        import torch

        unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return unit
