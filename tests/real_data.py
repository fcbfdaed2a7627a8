"""Real clips and annotations for local checks. They are not part of the project; tests skip where there are none."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def real_data() -> Path | None:
    """A folder with `annotations/` and `videos/`: $STRIVE_REAL_DATA, or ../shared/real beside the project."""
    folder = Path(os.environ.get("STRIVE_REAL_DATA", ROOT.parent / "shared" / "real"))
    return folder if folder.is_dir() else None


def real_folder(name: str) -> Path:
    """One of its folders; skips the test when it is not there."""
    folder = real_data()
    if folder is None or not (folder / name).is_dir():
        pytest.skip(f"no real {name} here (STRIVE_REAL_DATA)")
    return folder / name
