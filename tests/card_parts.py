"""A card's parts, as the tests check them against the adapters: sections, tables of fields, examples."""

import re
from dataclasses import dataclass

SECTIONS = (
    "What it is",
    "Task",
    "Size",
    "Files and fields",
    "Layout on disk",
    "How to get it",
    "What is left out and repaired",
    "Traps",
    "Licence",
    "Use",
    "Citation",
    "Example",
)
"""The headings of every card, in this order."""

SAMPLES = "samples"
"""Title of the block that tells what becomes of an example."""

_FENCE = re.compile(r'^```(\w+) title="([^"\n]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_NAME = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a card's example.

    Attributes:
        language: of the fence: json, jsonl, csv, text or yaml.
        title: the name of the file whose content it is, or `SAMPLES`.
        text: what stands in it, with its last newline.
    """

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class FieldRow:
    """A line of the table of fields.

    Attributes:
        fields: names in the first column.
        becomes: the other columns, as text.
    """

    fields: tuple[str, ...]
    becomes: str


def sections(text: str) -> dict[str, str]:
    """{heading: what stands below it} of a card, in the card's order; what stands before the first is left out."""
    parts = _HEADING.split(text)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def named(section: str) -> list[str]:
    """What a section sets as code: names of tasks, of fields, of files."""
    return _NAME.findall(_FENCE.sub("", section))


def fields(text: str) -> list[FieldRow]:
    """The lines of the tables of fields, the heads left out."""
    found = []
    for line in sections(text)["Files and fields"].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and set(cells[0]) - {"-"} and cells[0] != "field":
            found.append(FieldRow(tuple(named(cells[0])), " | ".join(cells[1:])))
    return found


def examples(text: str) -> list[Block]:
    """The fenced blocks of a card: the example's file, the files beside it, and what becomes of its rows."""
    return [Block(*groups) for groups in _FENCE.findall(text)]
