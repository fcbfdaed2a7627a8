"""Annotation formats: one small adapter each, found by name or recognised from the file.

An adapter turns the content of a file into one row a question, and each row into a draft of a sample or a reason why it
cannot be one. Both steps are pure; only `files` opens anything.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.sources import (
    activitynet,
    charades_sta,
    egoschema,
    generic,
    mmvu,
    mvbench,
    nextgqa,
    nextqa,
    perception_test,
    qvhighlights,
    tacos,
    tempcompass,
    temporal_r1,
    time_r1,
    video_mme,
    video_mmmu,
    video_r1,
    vsi_bench,
)
from pipeline.sources.draft import Draft, Rejected
from pipeline.sources.files import read_content
from pipeline.sources.source import Source, is_evaluation

__all__ = ["SOURCES", "Draft", "Rejected", "Source", "find", "is_evaluation", "read", "recognise"]

SOURCES: tuple[Source, ...] = (
    video_r1.SOURCE,
    temporal_r1.SOURCE,
    time_r1.SOURCE,
    time_r1.TVGBENCH,
    nextgqa.SOURCE,
    nextqa.SOURCE,
    charades_sta.SOURCE,
    activitynet.SOURCE,
    tacos.SOURCE,
    qvhighlights.SOURCE,
    video_mme.SOURCE,
    tempcompass.SOURCE,
    mmvu.SOURCE,
    video_mmmu.SOURCE,
    vsi_bench.SOURCE,
    perception_test.SOURCE,
    mvbench.SOURCE,
    egoschema.SOURCE,
    generic.SOURCE,  # the last: it takes any list
)


def find(name: str) -> Source:
    """A source by its name.

    Raises:
        UserError: there is none of this name.
    """
    for source in SOURCES:
        if source.name == name:
            return source
    known = ", ".join(source.name for source in SOURCES)
    raise UserError(f"--format {name}", f"one of auto, {known}", "strive-data sources")


def recognise(content: Any, name: str) -> Source:
    """The source whose layout a file's content has.

    Args:
        name: of the file.

    Raises:
        UserError: no layout fits.
    """
    for source in SOURCES:
        if source.fits(content, name.lower()):
            return source
    raise UserError(name, "its layout is that of no known source", "strive-data sources, or --format NAME")


def read(file: Path, format: str = "auto", mapping: Mapping[str, str] | None = None) -> tuple[Source, list[Any]]:
    """Read an annotation file, and the files that belong to it: its source, and one row a question.

    Raises:
        UserError: a file is missing or unreadable, the format is unknown or does not fit, or there is no row.
    """
    content = read_content(file)
    if mapping and format not in ("auto", "generic"):
        raise UserError(f"--format {format}", "a column mapping is for generic files", "leave out --map")
    if mapping:
        source = generic.mapped(mapping, content if isinstance(content, list) else [])
    else:
        source = recognise(content, file.name) if format == "auto" else find(format)
    beside = {role: read_content(path) for role, path in source.beside(file, content).items()}
    try:
        rows = source.rows(content, beside)
    except Rejected as error:
        raise UserError(
            str(file), f"not a file of {source.name}: {error}", f"strive-data sources {source.name}"
        ) from error
    if not rows:
        raise UserError(str(file), "the file holds no rows", "check the path of the annotation file")
    return source, rows
