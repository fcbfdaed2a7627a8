"""What a source is: how its files are recognised, how they become one row a question, and a row a draft."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sources.draft import Draft, Rejected
from pipeline.sources.values import Unreadable, shown

Row = Mapping[str, Any]

_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validation|minival|dev|test|eval|evaluation)(?![a-z])")
_SAME = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "minival": "val"}
_EVALUATION = ("val", "valid", "validation", "minival", "dev", "test", "eval", "evaluation", "benchmark")


def list_of_rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """The rows of a file that holds a list of them.

    Raises:
        Rejected: it holds something else.
    """
    if not isinstance(content, list):
        raise Rejected("unexpected layout", "a list of rows is expected")
    return content


def by_video(content: Any) -> dict[str, Any]:
    """The content of a file that is an object keyed by video.

    Raises:
        Rejected: it holds something else.
    """
    if not isinstance(content, dict):
        raise Rejected("unexpected layout", "an object keyed by video is expected")
    return content


def split_in_name(stem: str) -> str | None:
    """The split that a file's name tells ("charades_sta_train" -> train, "eval_mvbench" -> test); None if it does not.

    The last one counts, and names that mean the same become one: train, val or test.
    """
    found: list[str] = _SPLIT.findall(stem.lower())
    if not found:
        return None
    return {"eval": "test", "evaluation": "test"}.get(found[-1], _SAME.get(found[-1], found[-1]))


def is_evaluation(split: str) -> bool:
    """Whether a split is for evaluation by its name: val, dev, test, eval and their like, also "val_1", "test-mini"."""
    first = re.split(r"[^a-z]", split.strip().lower(), maxsplit=1)[0]
    return first in _EVALUATION


def columns(rows: Any) -> set[str]:
    """The columns of the first row; none when there is no row of columns."""
    first = rows[0] if isinstance(rows, list) and rows else None
    return {str(key) for key in first} if isinstance(first, dict) else set()


def first_entry(content: Any) -> Any:
    """The first value of an object that is keyed by video; None when it is no object."""
    return next(iter(content.values()), None) if isinstance(content, dict) else None


def no_dataset(stem: str) -> str | None:
    """A file's name tells nothing that its rows do not."""
    return None


def nothing_beside(file: Path, content: Any) -> dict[str, Path]:
    """The source is one file."""
    return {}


@dataclass(frozen=True)
class Source:
    """An annotation format.

    Attributes:
        name: as `--format` and the card name it.
        title: what it is, in a few words.
        tasks: that its rows become.
        fits: (content of the file, its name in lower case) -> whether this is the format. Exactly one source fits a
            file, or the first of the registry's order.
        draft: (row, its number) -> Draft; raises Rejected or Unreadable.
        rows: (content, contents of the files beside it) -> one row a question; raises Rejected for another layout.
        beside: (file, content) -> further files that belong to it, by role.
        default_split: of files whose name tells none.
        split: (name of the file without its ending) -> split or None.
        paths_count: its rows name files as the user laid them out, so that none being there is a mistake. The files of
            other sources are worth reading before their videos are fetched.
        dataset: (the same) -> the dataset or benchmark that the file belongs to, where its name tells more than a row.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    fits: Callable[[Any, str], bool]
    draft: Callable[[Any, int], Draft]
    rows: Callable[[Any, Mapping[str, Any]], list[Any]] = list_of_rows
    beside: Callable[[Path, Any], dict[str, Path]] = nothing_beside
    default_split: str = "train"
    split: Callable[[str], str | None] = split_in_name
    dataset: Callable[[str], str | None] = no_dataset
    paths_count: bool = False

    def drafts(self, rows: Sequence[Any]) -> list[Draft | Rejected]:
        """Every row as a draft or as the reason why not, in order. Pure."""
        return [self._draft(row, number) for number, row in enumerate(rows)]

    def _draft(self, row: Any, number: int) -> Draft | Rejected:
        if not isinstance(row, dict):
            return Rejected("not an object", f"the row is {shown(row)}")
        try:
            return self.draft(row, number)
        except Rejected as rejection:
            return rejection
        except Unreadable as unreadable:
            return Rejected(f"unreadable {unreadable.what}", str(unreadable))
