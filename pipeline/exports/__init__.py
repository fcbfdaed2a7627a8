"""Curated datasets in the documented layouts of other trainers: one file a format, found by name."""

from pipeline.errors import UserError
from pipeline.exports import easyr1, hf, jsonl, ms_swift, temporal_r1, trl, video_r1
from pipeline.exports.common import CLIPS, FRAMES, Format

__all__ = ["CLIPS", "FORMATS", "FRAMES", "Format", "find"]

FORMATS: tuple[Format, ...] = (
    video_r1.FORMAT,
    temporal_r1.FORMAT,
    trl.FORMAT,
    ms_swift.FORMAT,
    easyr1.FORMAT,
    hf.FORMAT,
    jsonl.FORMAT,
)


def find(name: str) -> Format:
    """A format by its name.

    Raises:
        UserError: there is none of this name.
    """
    for format in FORMATS:
        if format.name == name:
            return format
    known = ", ".join(format.name for format in FORMATS)
    raise UserError(f"--format {name}", f"one of {known}", "strive-data export --help")
