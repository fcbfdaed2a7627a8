"""What a policy is known by: its files, without loading them."""

import json
from pathlib import Path

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, folder_fingerprint

ADAPTER_FILE = "adapter_config.json"
"""What peft writes into an adapter's folder, in place of config.json."""


def policy_fingerprint(name: str | Path) -> str:
    """Identity of a policy: the contents of its folder, and of its base if it is an adapter; for a hub id, the id.

    Raises:
        UserError: neither a folder with a config.json or an adapter nor of the form of a hub id.
    """
    folder, base = Path(name), base_of(name)
    if base is not None:
        return adapted_fingerprint(policy_fingerprint(base), folder)
    if (folder / "config.json").is_file():
        return folder_fingerprint(folder)
    if folder.exists() or folder.is_absolute() or str(name).startswith(".") or str(name).count("/") != 1:
        raise UserError(
            f"policy {str(name)!r}",
            "expected a folder with a config.json, or a hub id like Qwen/Qwen3-VL-8B-Instruct",
            "check the path given as --policy",
        )
    return fingerprint("hub", str(name))


def adapted_fingerprint(base: str, folder: Path) -> str:
    """Identity of a policy (its own is `base`) with the adapter of a folder on it."""
    return fingerprint("adapter", base, folder_fingerprint(folder))


def base_of(name: str | Path) -> str | None:
    """The policy that a LoRA adapter's folder adapts; None when `name` is no such folder.

    Raises:
        UserError: the adapter's file does not say what it adapts.
    """
    file = Path(name) / ADAPTER_FILE
    if not file.is_file():
        return None
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise UserError(str(file), "is not a JSON object", "copy the adapter's folder anew") from error
    if not base:
        raise UserError(str(file), "names no base policy", "train the adapter again, or write base_model_name_or_path")
    return str(base)
