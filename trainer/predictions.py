"""The predictions file: one JSON object a line, on disk as soon as its batch is answered: a killed run goes on."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.rewards import Reward
from trainer.exams import NUMBERS, Exam

NEEDED = ("task", "view", "options", "answer", "spans", "response")
"""What a line must have to be graded."""

_TRUTH = ("dataset", "source", "split", "video_id", "task", "question", "options", "answer", "spans", "origin")
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("sample_id", "dataset", "source", "video_id", "failure"), ""),
    "origin": "{}",
    "duration_s": None,
}


def prediction(
    exam: Exam, text: str | None, tokens: int | None, failure: str, reward: Reward | None, print_: str
) -> dict[str, Any]:
    """One line: the truth, which cached frames were seen, the response, and what it earned (None: truth withheld).

    Args:
        text, tokens: the response; None with a `failure`, the reason why there is none.
        print_: identity of the answer (`Exam.fingerprint`).
    """
    row: dict[str, Any] = {"sample_id": exam.sample["sample_id"]}
    row |= {name: exam.sample[name] for name in _TRUTH}
    row |= {"view": exam.view, "variant": NUMBERS[exam.view], "frames": len(exam.shown.indices)}
    row |= {"indices": list(exam.shown.indices), "crop": list(exam.shown.crop), "scale": exam.shown.scale}
    row |= {"frames_fingerprint": exam.frames}
    row |= {"duration_s": exam.duration_s, "response": text, "tokens": tokens, "failure": failure}
    for name in ("accuracy", "credit", "iou", "boundary_iou", "format", "parse_error"):
        row[name] = None if reward is None else getattr(reward, name)
    return row | {"fingerprint": print_}


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a predictions file, with what may be left out filled in.

    Raises:
        UserError: no such file, or a line that cannot be graded.
    """
    try:
        stream = file.open(encoding="utf-8")
    except OSError as error:
        raise UserError(str(file), f"expected a predictions file ({error.strerror})", "check the path") from error
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _unreadable(file, number, "is not JSON") from error
            lacking = [name for name in NEEDED if not isinstance(row, dict) or name not in row]
            if lacking:
                raise _unreadable(file, number, f"has no {', '.join(lacking)}")
            yield {**_DEFAULTS, **row}


class PredictionsFile:
    """Lines that are appended batch by batch.

    Opening drops what is not wanted (the lines of other settings, a torn last line, failures) and keeps the rest.

    Args:
        path: of the file; its folder is made.
        batches: fingerprints of what is to be answered, batch by batch. A batch that is not whole is answered again, so
            that an interrupted run computes what an uninterrupted one does.
    """

    def __init__(self, path: Path, batches: Sequence[Sequence[str]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._order = [print_ for batch in batches for print_ in batch]
        places = _places(path)
        self.done = {i for i, batch in enumerate(batches) if all(print_ in places for print_ in batch)}
        kept = [print_ for i in sorted(self.done) for print_ in batches[i]]
        _rewrite(path, [places[print_] for print_ in kept])
        self._stream = path.open("ab")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch; it is on disk when this returns."""
        self._stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Put the lines in the order of the batches, which an interrupted run may have changed."""
        self._stream.close()
        places = _places(self.path, failed=True)
        _rewrite(self.path, [places[print_] for print_ in self._order])


def _places(path: Path, failed: bool = False) -> dict[str, tuple[int, int]]:
    """Where the line of each fingerprint lies: (start, length), bytes. A line without one, or torn, has no place.

    Args:
        failed: lines of failures too.
    """
    if not path.exists():
        return {}
    out: dict[str, tuple[int, int]] = {}
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            row = _loaded(line) if line.endswith(b"\n") else None
            if row is not None and (failed or not row.get("failure")):
                out[str(row.get("fingerprint"))] = (start, len(line))
            start += len(line)
    return out


def _loaded(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # the rest of a line that a kill tore
        return None
    return row if isinstance(row, dict) else None


def _rewrite(path: Path, places: Sequence[tuple[int, int]]) -> None:
    """Keep the lines at these places, in their order; the file is replaced at once, or left when it is so already."""
    if path.exists():
        ends = [start + length for start, length in places]
        if [start for start, _ in places] == [0, *ends[:-1]][: len(places)] and path.stat().st_size == sum(ends[-1:]):
            return
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as new:
        if places:
            with path.open("rb") as old:
                for start, length in places:
                    old.seek(start)
                    new.write(old.read(length))
        new.flush()
        os.fsync(new.fileno())
    beside.replace(path)


def _unreadable(file: Path, number: int, why: str) -> UserError:
    return UserError(
        f"{file} line {number}",
        f"{why}; expected an object with {', '.join(NEEDED)}",
        "give a file that strive-train eval wrote, or the file it belongs to as --annotations",
    )
