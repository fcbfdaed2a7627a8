"""Checkpoints: a folder that transformers opens, with the trainer's state in a sub-folder.

    <out>/checkpoint-00000040/            config.json, model.safetensors, tokenizer and processor files; of a LoRA run
                                          adapter_config.json and adapter_model.safetensors in place of the first two
    <out>/checkpoint-00000040/trainer/    state.pt: optimizer, schedule, random states, task scales, place in the stream

A checkpoint becomes visible by one rename after everything in it is on disk, so a folder of this name is whole. The
state lies in a sub-folder because a policy's fingerprint is taken of the files directly in its folder: equal weights
have an equal fingerprint, whatever the optimizer holds.
"""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pipeline.errors import UserError

STATE_FILE = Path("trainer") / "state.pt"
STATE_VERSION = 2
_NAME = re.compile(r"checkpoint-(\d{8})")
_ASIDE = ".unfinished-"


def save(
    out: Path, step: int, save_model: Callable[[Path], None], state: dict[str, Any], keep: int | None = None
) -> Path:
    """Write the checkpoint of `step` and make it visible in one rename, then remove all but the newest `keep`.

    Args:
        out: the run's folder.
        step: updates done so far.
        save_model: writes weights, config and processor files into the folder it is given.
        state: tensors, numbers, strings, and dicts and lists of them (what `torch.load(weights_only=True)` reads).
        keep: how many checkpoints stay; None: all.

    Returns:
        The checkpoint's folder.

    Raises:
        FileExistsError: there is a checkpoint of this step already.
        UserError: the disk is full, or does not let itself be written; older checkpoints stay as they are.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"checkpoint-{step:08d}"
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    remove_unfinished(out)
    aside = out / f"{_ASIDE}{target.name}"
    try:
        (aside / STATE_FILE).parent.mkdir(parents=True)
        save_model(aside)
        _save_state({"version": STATE_VERSION, "step": step, "state": state}, aside / STATE_FILE)
        _sync(aside)
        aside.rename(target)
        _sync_one(out)
    except (OSError, SafetensorError) as error:
        raise _not_written(out, step, error) from error
    for old in whole(out)[:-keep] if keep else []:
        # Renamed first: a kill in the middle of the removal must not leave half a checkpoint under a whole one's name.
        old.rename(out / f"{_ASIDE}{old.name}")
        remove_unfinished(out)
    return target


def _save_state(content: dict[str, Any], file: Path) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:  # what torch makes of a write that fails
        raise OSError(str(error)) from error


def _not_written(out: Path, step: int, error: Exception) -> UserError:
    """What to tell the user; the unfinished folder goes, since it fills the disk and helps nobody."""
    remove_unfinished(out)
    newest = newest_whole(out)
    kept = f"{newest.name} is whole" if newest else "there is none before it"
    return UserError(
        f"checkpoint of step {step} in {out}",
        f"could not be written ({str(error).strip().splitlines()[0]}; {shutil.disk_usage(out).free / 1e9:.1f} GB free)",
        f"make room, then the same command with --resume ({kept})",
    )


def whole(out: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted(folder for folder in out.glob("checkpoint-*") if _NAME.fullmatch(folder.name) and folder.is_dir())


def newest_whole(out: Path) -> Path | None:
    """The newest checkpoint of a run; None when there is none."""
    checkpoints = whole(out)
    return checkpoints[-1] if checkpoints else None


def load(checkpoint: Path, device: str | torch.device = "cpu") -> tuple[int, dict[str, Any]]:
    """The number of updates done and the state that `save` was given.

    Raises:
        UserError: the folder has no trainer state, or one that this version does not read.
    """
    file = checkpoint / STATE_FILE
    if not file.is_file():
        raise UserError(str(checkpoint), f"has no {STATE_FILE}, so it cannot be resumed", "pass it as --policy instead")
    try:
        content = torch.load(file, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(str(file), f"cannot be read ({error.__class__.__name__})", "remove it and --resume") from error
    if content.get("version") != STATE_VERSION:
        raise UserError(
            str(file),
            f"expected state version {STATE_VERSION}, got {content.get('version')}",
            "start again in another --out",
        )
    return int(content["step"]), content["state"]


def open_run(out: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; None to start from the beginning.

    Raises:
        UserError: the folder holds a run already and `resume` is false.
    """
    checkpoint = newest_whole(out)
    if checkpoint and not resume:
        raise UserError(str(out), f"holds a run already ({checkpoint.name})", "add --resume, or choose another --out")
    return checkpoint


def rng_state() -> dict[str, Any]:
    """The states of torch's random generators (CPU and every CUDA device)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_rng(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned. CUDA states are put back where as many devices are present."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def remove_unfinished(out: Path) -> None:
    """Remove what a kill left of checkpoints that were being written or removed."""
    for folder in out.glob(f"{_ASIDE}*"):
        shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    """Force all files and folders below `folder` to disk."""
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync_one(Path(parent) / name)
        _sync_one(Path(parent))


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
