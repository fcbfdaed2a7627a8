"""The cards of the sources: which there are, and their texts."""

import re
from importlib.resources import files
from typing import Any

from pipeline.errors import UserError
from pipeline.sources import SOURCES, is_evaluation

PACKAGE = "data_cards"

LICENCES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
}
"""Licences as the cards name them, and as the Hub does."""

_WHOLE = re.compile(rf"(?:Annotations and videos: )?({'|'.join(map(re.escape, LICENCES))})\b")
_LICENCE = re.compile(r"^(?:## Licence\n|\*\*Licence\.\*\* )(.+?)(?=\n\n|\n## |\Z)", re.MULTILINE | re.DOTALL)
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


def licence(dataset: str) -> str | None:
    """What a dataset's card says of its licences, on one line; None when there is no card of this name.

    Args:
        dataset: as samples name it; any text.
    """
    known = {file.name for file in files(PACKAGE).iterdir()} - {"TEMPLATE.md"}
    if f"{dataset}.md" not in known:
        return None
    found = _LICENCE.search(files(PACKAGE).joinpath(f"{dataset}.md").read_text(encoding="utf-8"))
    return " ".join(found[1].split()) if found else None


def hub_licence(text: str | None) -> str | None:
    """The Hub's id of the one licence that covers annotations and videos alike; None when there is no such licence.

    Args:
        text: see `licence`.
    """
    found = _WHOLE.match(text or "")
    return LICENCES[found[1]] if found else None


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
