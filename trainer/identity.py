"""What a policy is known by: its files, without loading them."""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, folder_fingerprint


def policy_fingerprint(name: str | Path) -> str:
    """Identity of a policy: the contents of its folder; for a hub id, the id.

    Raises:
        UserError: neither a folder with a config.json nor of the form of a hub id.
    """
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder_fingerprint(folder)
    if folder.exists() or folder.is_absolute() or str(name).startswith(".") or str(name).count("/") != 1:
        raise UserError(
            f"policy {str(name)!r}",
            "expected a folder with a config.json, or a hub id like Qwen/Qwen3-VL-8B-Instruct",
            "check the path given as --policy",
        )
    return fingerprint("hub", str(name))
