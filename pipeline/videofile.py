"""What a video file is as a file: its identity, its size, and why it cannot be used. No decoder is needed for these."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 1 << 17  # bytes of one block that content_id reads
_BLOCKS = 16


class DecodeError(Exception):
    """A video that cannot be decoded. `reason` is a short class for counting."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodeError, (self.reason, str(self).removeprefix(f"{self.reason}: "))


def content_id(path: Path) -> str:
    """Identity of a file by its content: hash of its size and of 16 blocks spread over it (all of it up to 2 MiB).

    Raises:
        DecodeError: the file is missing, empty or not readable.
    """
    size = file_size(path)
    digest = hashlib.sha256(str(size).encode())
    try:
        with path.open("rb") as stream:
            if size <= _BLOCK * _BLOCKS:
                digest.update(stream.read())
            else:
                for start in np.linspace(0, size - _BLOCK, _BLOCKS).astype(int).tolist():
                    stream.seek(start)
                    digest.update(stream.read(_BLOCK))
    except OSError as error:
        raise DecodeError("unreadable file", f"{path}: {error}") from error
    return digest.hexdigest()[:16]


def file_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        DecodeError: it is missing, empty or not a file.
    """
    try:
        if not path.exists():
            raise DecodeError("missing file", f"{path} does not exist")
        if not path.is_file():
            raise DecodeError("not a file", f"{path} is a folder or a device")
        size = path.stat().st_size
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DecodeError("unreadable file", f"{path}: {error}") from error
    if size == 0:
        raise DecodeError("empty file", f"{path} has 0 bytes")
    return size
