"""Text of unknown origin in Markdown: nothing in it can break a table, a fence or the yaml head."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

_NEVER = 1_000_000  # characters after which yaml breaks a line
_LONGEST = 300  # characters of a cell
_MARKS = str.maketrans({mark: "\\" + mark for mark in "\\`*[]|"} | {"&": "&amp;", "<": "&lt;"})
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def cell(text: object, longest: int = _LONGEST) -> str:
    """A text as one line of Markdown that shows it as it is: no markup, no link, no HTML.

    Args:
        longest: characters after which it is cut, which shows as " ...".
    """
    line = _SPACE.sub(" ", str(text)).strip()
    cut = line if len(line) <= longest else line[:longest] + " ..."
    return cut.translate(_MARKS)


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A table; every cell is escaped."""
    lines: list[Sequence[object]] = [head, *body]
    rows = ["| " + " | ".join(cell(value) for value in line) + " |\n" for line in lines]
    return "".join([rows[0], "|" + " --- |" * len(head) + "\n", *rows[1:]])


def fence(text: str, language: str = "") -> str:
    """A block of code, with a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{text}\n{marks}\n"


def head(values: Mapping[str, Any]) -> str:
    """The yaml head of a card, between its two lines of dashes; any text comes back as it was."""
    whole = dict(values)
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=_NEVER)
    if yaml.safe_load(text) != whole:  # a few line separators only come back when they are escaped
        text = yaml.safe_dump(whole, sort_keys=False, width=_NEVER)
    return f"---\n{text}---\n"
