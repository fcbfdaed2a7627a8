"""Where the video that a row names lies: below one folder, by path, under another ending, or by its name alone."""

import os
from pathlib import Path

from pipeline.sources import Rejected
from pipeline.sources.values import shown

_LONGEST = 4096  # bytes of a path that the system takes

ENDINGS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".gif"),
    *(".MP4", ".MOV", ".AVI"),
)


class VideoFolder:
    """A folder of videos, read once.

    Args:
        folder: absolute.
        search: also find a file anywhere below the folder by its name alone, when only one has it.
    """

    def __init__(self, folder: Path, search: bool) -> None:
        self.folder = folder
        self._listings: dict[Path, frozenset[str]] = {}
        self._by_stem: dict[str, list[Path]] | None = None if search else {}

    def find(self, name: str) -> Path:
        """The file of a row's video: the path itself, the same name with another ending, or the only file of that name.

        Raises:
            Rejected: there is none, there are several, or the path leads out of the folder.
        """
        if "\0" in name:  # functions of paths cut such a name short
            raise Rejected("unreadable path", f"{shown(name)} cannot name a file")
        if len(name) > _LONGEST:
            raise Rejected("unreadable path", f"{shown(name)} has {len(name)} characters")
        try:
            path = resolve_path(self.folder, name)
        except Rejected:
            if not Path(name).is_absolute():
                raise
            path = None  # an author's own disk: the file may lie here under its name
        if path is not None:
            there = self._names(path.parent)
            stem = path.stem if path.suffix in ENDINGS else path.name
            for candidate in (path.name, *(stem + ending for ending in ENDINGS)):
                if candidate in there:
                    return path.with_name(candidate)
        same = self._named(name)
        if len(same) > 1:
            raise Rejected("several files of that name", f"{name}: {same[0]} and {same[1]}")
        if same:
            return same[0]
        if path is None:
            resolve_path(self.folder, name)
        raise Rejected("missing file", f"{path} does not exist")

    def _names(self, folder: Path) -> frozenset[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # not there, no folder, or a name that no folder can have
                self._listings[folder] = frozenset()
        return self._listings[folder]

    def _named(self, name: str) -> list[Path]:
        if self._by_stem is None:
            self._by_stem = {}
            for place, _, files in os.walk(self.folder):
                for file in sorted(files):
                    stem, ending = os.path.splitext(file)
                    if ending in ENDINGS:
                        self._by_stem.setdefault(stem, []).append(Path(place) / file)
        wanted = Path(name)
        return self._by_stem.get(wanted.stem if wanted.suffix in ENDINGS else wanted.name, [])


def resolve_path(folder: Path, name: str) -> Path:
    """Where a row's video lies. `name` may be absolute, but may not lead out of the folder.

    Raises:
        Rejected: it leads out.
    """
    path = Path(os.path.normpath(folder / name))  # by its text only: a link in the folder is followed
    if folder not in path.parents:
        raise Rejected("path leaves the videos folder", f"{name} is not below {folder}")
    return path
