"""Fingerprints: short hashes of everything that determines a row."""

import hashlib
import json
from pathlib import Path
from typing import Any

LENGTH = 16  # hex digits, 64 bits


def fingerprint(*parts: Any) -> str:
    """Hash JSON-like values into 16 hex digits.

    Args:
        parts: str, int, float, bool, None, and lists, tuples and dicts of them. Dict order does not matter.

    Raises:
        TypeError: a part is not JSON-like (it would have no stable text).
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def folder_fingerprint(folder: Path) -> str:
    """Hash the names and contents of all files directly in a model folder (a checkpoint's identity).

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:LENGTH]


def seed_of(*parts: Any) -> int:
    """A 63-bit seed that is a pure function of its parts, e.g. (seed, sample_id, variant, draw)."""
    return int(fingerprint("seed", *parts), 16) >> 1
