"""Features of a frozen vision tower, kept on disk: a view is encoded once in all steps, epochs and runs.

    <folder>/manifest.json           whose features these are: family, the tower's weights, arithmetic, device, versions
    <folder>/3f/3f9c...safetensors   features of one view, named by a hash of what the tower was given: its pixels

A folder belongs to one tower in one arithmetic, and says so; another one is refused. A file becomes visible by one
rename, so several processes may fill one folder. Each view passes through the tower alone: what is kept does not depend
on what else was in its batch, so a run gives the same numbers whatever the folder holds already.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import transformers
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import UserError
from trainer.families import Prompt, VisionFeatures

VERSION = 1
MANIFEST = "manifest.json"
STALE_S = 3600.0

Encode = Callable[[Sequence[Prompt]], list[VisionFeatures]]


class VisionCache:
    """The features in a folder that belongs to one tower.

    Args:
        identity: of whose features they are, JSON-like (`identity_of`); it is written into a new folder.

    Attributes:
        found, encoded: views that were read, and that had to be encoded, so far.

    Raises:
        UserError: the folder belongs to another tower, is no such folder, or cannot be written.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder, self.found, self.encoded = folder, 0, 0
        _claim(folder, {"version": str(VERSION), **identity})
        _sweep(folder)

    def features(self, prompts: Sequence[Prompt], encode: Encode, device: torch.device) -> list[VisionFeatures]:
        """Features of each prompt: those on disk, and else those of `encode`, which are kept. Prompts have a video.

        Args:
            encode: runs the tower. device: where the features are wanted.

        Raises:
            UserError: the disk is full.
        """
        return [self._one(prompt, encode, device) for prompt in prompts]

    def place(self, prompt: Prompt) -> Path:
        """Where the features of a prompt's video lie, or will."""
        name = view_name(prompt)
        return self.folder / name[:2] / f"{name}.safetensors"

    def _one(self, prompt: Prompt, encode: Encode, device: torch.device) -> VisionFeatures:
        file = self.place(prompt)
        kept = _read(file, device)
        if kept is not None:
            self.found += 1
            return kept
        with torch.no_grad():
            [fresh] = encode([prompt])
        self.encoded += 1
        _write(file, fresh)
        return fresh

    def room(self, one: Prompt, views: int) -> tuple[int, int]:
        """Bytes that `views` views take, judged by one of them that is kept already; and bytes that are free.

        Raises:
            UserError: what is not there yet does not fit on the disk.
        """
        size = self.place(one).stat().st_size
        there = sum(1 for _ in self.folder.glob("*/*.safetensors"))
        free = shutil.disk_usage(self.folder).free
        if size * max(0, views - there) > free:
            raise UserError(
                f"--cache-vision {self.folder}",
                f"features of {views} views take about {views * size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                "choose a folder on a larger disk, or leave the option out",
            )
        return views * size, free


def view_name(prompt: Prompt) -> str:
    """A hash of what the tower is given: pixels and grid, with their types and shapes; 32 hex digits."""
    digest = xxhash.xxh3_128()
    for tensor in (prompt.pixels, prompt.grid):
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def identity_of(model: Any, tower: nn.Module, arithmetic: str) -> dict[str, str]:
    """Everything beside the pixels that features are determined by.

    Args:
        model: the policy's. tower: its vision tower. arithmetic: fp32 or bf16, in which the tower computes.
    """
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return {
        "family": str(model.config.model_type),
        "tower": digest.hexdigest(),
        "arithmetic": arithmetic,
        "device": next(tower.parameters()).device.type,
        "attention": str(model.config._attn_implementation),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor, as numpy gives them to a hash."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _aside(file: Path) -> Path:
    """Where a file is written before it is whole; no other process or thread writes there."""
    return file.with_name(f".{file.name}.{uuid4().hex}.tmp")


def _claim(folder: Path, identity: dict[str, str]) -> None:
    """Write the manifest of a new folder, or compare that of an old one."""
    manifest = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Looked for before the manifest: what another process puts here comes after its manifest.
        taken = any(not entry.name.startswith(".") for entry in folder.iterdir())
        if not manifest.exists():
            if taken:
                raise UserError(
                    f"--cache-vision {folder}",
                    f"holds something else (no {MANIFEST})",
                    "give a folder that is empty or new",
                )
            aside = _aside(manifest)
            aside.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
            with suppress(FileExistsError):  # another process was first: its manifest holds
                os.link(aside, manifest)
            aside.unlink()
        there = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--cache-vision {folder}", f"expected a folder for features ({error})", "give a new folder"
        ) from error
    names = [name for name in {**identity, **there} if identity.get(name) != there.get(name)]
    if names:
        told = ", ".join(f"{name} {there.get(name)}, this run has {identity.get(name)}" for name in names)
        raise UserError(
            f"--cache-vision {folder}", f"holds the features of another vision tower ({told})", "give another folder"
        )


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written; nobody writes a file for as long as STALE_S."""
    for aside in folder.rglob(".*.tmp"):
        with suppress(FileNotFoundError):  # it has become whole, or another process sweeps too
            if time.time() - aside.stat().st_mtime > STALE_S:
                aside.unlink()


def _read(file: Path, device: torch.device) -> VisionFeatures | None:
    """The features in a file; None when there is none, or when it is not whole (a machine that lost power)."""
    try:
        with safe_open(file, framework="pt") as stream:
            told = (stream.metadata() or {}).get("checksum")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError):
        return None
    layers = [tensors[str(place)] for place in range(len(tensors))]
    if told != _checksum(layers):
        return None
    pooled, *deep = (layer.to(device) for layer in layers)
    return VisionFeatures(pooled, tuple(deep))


def _write(file: Path, features: VisionFeatures) -> None:
    layers = [layer.detach().cpu().contiguous() for layer in (features.pooled, *features.deepstack)]
    aside = _aside(file)
    try:
        file.parent.mkdir(exist_ok=True)
        save_file({str(i): layer for i, layer in enumerate(layers)}, aside, {"checksum": _checksum(layers)})
        aside.replace(file)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise UserError(
            f"--cache-vision {file.parent.parent}",
            f"features could not be written ({str(error).strip().splitlines()[0]})",
            "make room, or give a folder on a larger disk; what is kept stays",
        ) from error


def _checksum(layers: Sequence[Tensor]) -> str:
    digest = xxhash.xxh3_64()
    for layer in layers:
        digest.update(_bytes(layer))
    return digest.hexdigest()
