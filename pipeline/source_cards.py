"""The cards of the sources: which there are, and their texts."""

import re
from importlib.resources import files
from typing import Any

from pipeline.errors import UserError
from pipeline.sources import SOURCES, is_evaluation

PACKAGE = "data_cards"

_OPENING = re.compile(r'^```(\w+) title="([^"\n]+)"$', re.MULTILINE)


def names() -> list[str]:
    """The sources that have a card, in the order of the registry."""
    return [source.name for source in SOURCES]


def card(name: str) -> str:
    """The text of a source's card, in Markdown.

    Raises:
        UserError: there is no source of this name.
    """
    if name not in names():
        raise UserError(f"sources {name}", f"one of {', '.join(names())}", "strive-data sources")
    return files(PACKAGE).joinpath(f"{name}.md").read_text(encoding="utf-8")


def summary() -> list[dict[str, Any]]:
    """What there is to know of each source at a glance: name, title, tasks, split, evaluation.

    `split` is that of a file whose name and rows tell none; `evaluation` says whether that one is for evaluation only.
    """
    return [
        {
            "name": source.name,
            "title": source.title,
            "tasks": list(source.tasks),
            "split": source.default_split,
            "evaluation": is_evaluation(source.default_split),
        }
        for source in SOURCES
    ]


def titled(text: str) -> str:
    """A card whose blocks stand below their titles, for readers who see no fences."""
    return _OPENING.sub(r"`\2`:\n\n```\1", text)
