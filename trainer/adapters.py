"""LoRA through peft (arXiv 2106.09685): small matrices learn, the policy that they adapt stays as it is.

A checkpoint of such a run is an adapter folder (adapter_config.json, adapter_model.safetensors) with the processor's
files: transformers, peft and `load_policy` open it as long as the base lies where the adapter says. `merge` turns it
into a policy that stands alone.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.errors import UserError
from trainer.identity import ADAPTER_FILE, adapted_fingerprint, base_of
from trainer.policy import Policy, load_policy

WEIGHTS_FILE = "adapter_model.safetensors"

SCALE = 2
"""alpha / rank: what the product of the two matrices is multiplied with."""


def add(policy: Policy, rank: int, *, vision: bool = False) -> None:
    """Put LoRA matrices beside the linear layers of a policy's language model, and let nothing else learn.

    They start with a product of 0, so the policy answers as before. No dropout: log-probabilities have to be the same
    in rollout and update.

    Args:
        rank: of the matrices. vision: adapt the vision tower's linear layers too.
    """
    from peft import LoraConfig

    inside, outside = linear_layers(policy)
    adapted = {name.rpartition(".")[2] for name in (inside + outside if vision else inside)}
    kept = [] if vision else [name for name in outside if name.rpartition(".")[2] in adapted]
    chosen = LoraConfig(
        r=rank, lora_alpha=SCALE * rank, target_modules=sorted(adapted), exclude_modules=sorted(kept) or None
    )
    policy.model.add_adapter(chosen)
    policy.model.peft_config["default"].base_model_name_or_path = _place(policy.model.name_or_path)


def linear_layers(policy: Policy) -> tuple[list[str], list[str]]:
    """Full names of the linear layers of the language model (without its output layer), and of the vision tower."""
    parts = policy.family.language(policy.model), policy.family.vision(policy.model)
    names = {id(module): name for name, module in policy.model.named_modules()}
    inside, outside = ([names[id(m)] for m in part.modules() if isinstance(m, nn.Linear)] for part in parts)
    return inside, outside


def learner(name: str, latest: Path | None, rank: int, device: str, *, vision: bool) -> Policy:
    """The policy of a run: what it starts from, or what its newest checkpoint holds.

    Args:
        name: the policy to start from. latest: the checkpoint to go on from; None to start.
        rank: of LoRA; 0 trains all weights. vision: see `add`.

    Raises:
        UserError: no such policy, or it is an adapter itself.
    """
    if base_of(name) is not None:
        raise UserError(
            f"policy {name!r}",
            "is a LoRA adapter, and a run starts from a policy that stands alone",
            f"`strive-train merge {name} --out FOLDER`, then --policy FOLDER",
        )
    if not rank:
        return load_policy(latest or name, device)
    policy = load_policy(name, device)
    if latest:
        return attach(policy, latest)
    add(policy, rank, vision=vision)
    return policy


def attach(policy: Policy, folder: Path) -> Policy:
    """Load the adapter of a folder onto its base; only the adapter learns.

    Raises:
        UserError: the folder holds no adapter that fits the policy, or its weights are no safetensors.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"adapter {str(folder)!r}", f"has no {WEIGHTS_FILE}", "save it as safetensors")
    try:
        policy.model.load_adapter(str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"adapter {str(folder)!r}",
            f"does not fit the policy {policy.model.name_or_path!r} ({str(error).strip().splitlines()[0]})",
            "give the policy that it was trained on",
        ) from error
    policy.fingerprint = adapted_fingerprint(policy.fingerprint, folder)
    return policy


def save(policy: Policy, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write a policy, or its adapter alone when it has one, so that equal weights give equal files.

    Args:
        weights: see `Policy.save`.
    """
    policy.save(folder, weights)
    file = folder / ADAPTER_FILE
    if file.is_file():  # peft writes sets, whose order changes from process to process
        content = json.loads(file.read_text(encoding="utf-8"))
        ordered = {name: sorted(value) if isinstance(value, list) else value for name, value in content.items()}
        file.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


def merge(folder: Path, out: Path) -> None:
    """Write an adapter and its base as one policy of full weights.

    Raises:
        UserError: `folder` is no adapter folder, or `out` holds something already.
    """
    base = base_of(folder)
    if base is None:
        raise UserError(
            str(folder), f"has no {ADAPTER_FILE}, so there is nothing to merge", "pass a checkpoint of a LoRA run"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(str(out), "holds something already", "choose another --out")
    from peft.tuners.lora import LoraLayer

    policy = load_policy(folder)
    plain = load_policy(base)
    merged = {}
    for name, module in policy.model.named_modules():
        if isinstance(module, LoraLayer):
            module.merge()
            merged[name] = module.get_base_layer().state_dict()
    for name, weights in merged.items():
        plain.model.get_submodule(name).load_state_dict(weights)
    plain.save(out)


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """The base policy, for as long as this lasts."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def _place(name: str) -> str:
    """A folder as a path that holds from everywhere; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
