"""The answers of two checkpoints to the same questions, side by side, with the frames that each saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.report.film import film_of
from pipeline.report.samples import FILM_BYTES, RESPONSE_BYTES, ROW_BYTES, size
from pipeline.report.texts import cut, number
from trainer.grading import Graded, grade, is_withheld
from trainer.predictions import read
from trainer.runreport.runs import names_of

NAME, QUESTION, OPTION, RESPONSE = 200, 1500, 400, 2400  # characters that are shown of a text
_OPTIONS, _SPANS = 26, 50
_SAME = 1e-9
_SEEN = ("indices", "crop", "scale", "frames_fingerprint")


@dataclass(frozen=True)
class Answer:
    """A line of a predictions file and what it earned; `graded` is None where the truth is withheld."""

    row: Mapping[str, Any]
    graded: Graded | None

    @property
    def merit(self) -> float | None:
        """0..1: the mean of credit (or accuracy) and IoU, of those that the task has; None without a truth."""
        if self.graded is None:
            return None
        reward = self.graded.reward
        known = [v for v in (reward.accuracy if reward.credit is None else reward.credit, reward.iou) if v is not None]
        return sum(known) / len(known)


@dataclass(frozen=True)
class Pair:
    """Two answers to one question."""

    first: Answer
    second: Answer

    @property
    def gain(self) -> float:
        """Merit of the second less that of the first; 0 where one has none."""
        a, b = self.first.merit, self.second.merit
        return 0.0 if a is None or b is None else b - a


@dataclass
class Compared:
    """What the page shows of two predictions files, and what it leaves out.

    Attributes:
        names: of the two. pairs: how many questions both answered; first_better, second_better: of these.
        alone: answers of one file to what the other was not asked, of each.
        shown: pairs as values for the page's JSON, those that differ most first. films: of these, with frames.
        beyond: pairs that were asked for and are beyond the size of a page.
    """

    names: tuple[str, str]
    pairs: int = 0
    first_better: int = 0
    second_better: int = 0
    alone: tuple[int, int] = (0, 0)
    shown: list[dict[str, Any]] = field(default_factory=list)
    films: int = 0
    beyond: int = 0


def files_of(places: Sequence[Path]) -> tuple[Path, Path]:
    """The two predictions files: given as such, or as the --out of a `strive-train eval` that compared two checkpoints.

    Raises:
        UserError: not two.
    """
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = place / "predictions" if (place / "predictions").is_dir() else place
            files.extend(sorted(inside.glob("*.jsonl")))
        else:
            files.append(place)
    if len(files) != 2:
        raise UserError(
            "--answers " + " ".join(map(str, places)),
            f"expected two predictions files, got {len(files)}",
            "give --answers twice: strive-train eval --out DIR writes DIR/predictions/NAME.jsonl",
        )
    return files[0], files[1]


def compare(
    files: tuple[Path, Path], samples: int, films: int, reader: FrameReader | None, names: Sequence[str] | None = None
) -> Compared:
    """Read two predictions files and choose what to show.

    Args:
        samples: pairs shown at most. films: of these, with film strips at most.
        reader: of the store that the frames are in; None: no film strips.
        names: of the two; by default their files'.

    Raises:
        UserError: a file cannot be read or graded, or the two have no question in common.
    """
    first, second = (answers_of(file) for file in files)
    both = pairs_of(first, second)
    if not both:
        raise UserError(
            f"--answers {files[0]} {files[1]}", "they answer no question in common", "evaluate both on the same samples"
        )
    a, b = names or names_of([file.with_suffix("") for file in files])
    found = Compared((a, b), len(both))
    found.first_better = sum(pair.gain < -_SAME for pair in both)
    found.second_better = sum(pair.gain > _SAME for pair in both)
    used = [{id(pair.first) for pair in both}, {id(pair.second) for pair in both}]
    found.alone = (len(first) - len(used[0]), len(second) - len(used[1]))
    fill(found, ordered(both)[:samples], films, lambda pair: film(reader, pair))
    return found


def answers_of(file: Path) -> list[Answer]:
    """The graded lines of a predictions file.

    Raises:
        UserError: a line cannot be read, or its sample cannot be graded.
    """
    found = []
    for line, row in enumerate(read(file), 1):
        try:
            found.append(Answer(row, None if is_withheld(row) else grade(row)))
        except ValueError as error:
            raise UserError(f"{file} line {line}", str(error), "check its options, answer and spans") from error
    return found


def pairs_of(first: Sequence[Answer], second: Sequence[Answer]) -> list[Pair]:
    """Answers to the same sample on the same view; where no view is common to both, each one's first answer to it."""
    tables: list[dict[str, dict[str, Answer]]] = [{}, {}]
    for table, answers in zip(tables, (first, second), strict=True):
        for answer in answers:
            table.setdefault(answer.row["sample_id"], {}).setdefault(answer.row["view"], answer)
    pairs: list[Pair] = []
    for sample, views in tables[0].items():
        others = tables[1].get(sample)
        if others is None:
            continue
        common = [view for view in views if view in others]
        pairs.extend(Pair(views[view], others[view]) for view in common)
        if not common:
            pairs.append(Pair(next(iter(views.values())), next(iter(others.values()))))
    return pairs


def ordered(pairs: Sequence[Pair]) -> list[Pair]:
    """Those whose merits differ most first, both directions in turn; of equal ones those whose texts differ first."""

    def key(pair: Pair) -> tuple[float, bool, str, str]:
        rows = pair.first.row, pair.second.row
        return -abs(pair.gain), rows[0]["response"] == rows[1]["response"], rows[0]["sample_id"], rows[0]["view"]

    better = sorted((p for p in pairs if p.gain > _SAME), key=key)
    worse = sorted((p for p in pairs if p.gain < -_SAME), key=key)
    rest = sorted((p for p in pairs if abs(p.gain) <= _SAME), key=key)
    turns = [(-abs(p.gain), place, side, p) for side, part in ((0, better), (1, worse)) for place, p in enumerate(part)]
    turns.sort(key=lambda turn: turn[:3])
    return [turn[3] for turn in turns] + rest


def fill(found: Compared, pairs: Sequence[Pair], films: int, film: Callable[[Pair], dict[str, Any] | str]) -> None:
    """Add as many of the pairs as a page holds, in their order; `film` is what `film_of` returns."""
    texts, pictures = ROW_BYTES + RESPONSE_BYTES, FILM_BYTES
    for place, pair in enumerate(pairs):
        value = value_of_pair(pair)
        texts -= size(value)
        if texts < 0:
            found.beyond = len(pairs) - place
            return
        if place < films:
            strip = film(pair)
            cost = size(strip)
            if isinstance(strip, str):
                value["no_film"] = cut(strip, QUESTION)
            elif cost > pictures:
                value["no_film"] = "its frames are beyond the size of a page"
            else:
                pictures -= cost
                found.films += 1
                value["film"] = strip
        found.shown.append(value)


def value_of_pair(pair: Pair) -> dict[str, Any]:
    """A pair as the page shows it."""
    row = pair.first.row
    return {
        "sample_id": cut(str(row["sample_id"]), NAME),
        "task": row["task"],
        "dataset": cut(str(row["dataset"]), NAME),
        "question": cut(str(row.get("question", "")), QUESTION),
        "options": [cut(str(text), OPTION) for text in row["options"][:_OPTIONS]],
        "answer": cut(str(row["answer"]), QUESTION),
        "spans": [[number(edge, 3) for edge in span] for span in row["spans"][:_SPANS]],
        "gain": number(pair.gain),
        "sides": [value_of_answer(pair.first), value_of_answer(pair.second)],
    }


def value_of_answer(answer: Answer) -> dict[str, Any]:
    """One side of a pair."""
    row, graded = answer.row, answer.graded
    parts: dict[str, Any] = {"view": cut(str(row["view"]), NAME), "frames": row.get("frames")}
    parts |= {"tokens": row.get("tokens"), "merit": number(answer.merit), "failure": cut(str(row["failure"]), QUESTION)}
    if graded is not None:
        named = ("accuracy", "credit", "iou", "format")
        parts |= {n: v for n in named if (v := number(getattr(graded.reward, n))) is not None}
        parts["error"] = "" if row["failure"] else cut(graded.reward.parse_error, NAME)
        parts["span"] = None if graded.span is None else [number(edge, 3) for edge in graded.span]
    return parts | {"text": cut(row["response"] or "", RESPONSE)}


def film(reader: FrameReader | None, pair: Pair) -> dict[str, Any] | str:
    """The frames that each saw, as `film_of` returns them, strip 0 of the first and strip 1 of the second.

    One strip, variant -1, where both saw the same. A side that saw no frame has no strip. Or why it cannot be shown.
    """
    rows = [pair.first.row, pair.second.row]
    if reader is None:
        return "no --store was given"
    if any(name not in row for row in rows for name in _SEEN):
        return "the predictions do not say which frames were seen"
    video = rows[0]["video_id"]
    if video not in reader:
        return "the frames of its video are not cached"
    if any(row["frames_fingerprint"] != reader.fingerprint(video) for row in rows if row["indices"]):
        return "its views are of other frames than those that are cached now"
    same = all(rows[0][name] == rows[1][name] for name in _SEEN)
    chosen = [(-1, rows[0])] if same else list(enumerate(rows))
    views = []
    for side, row in chosen:
        if row["indices"]:
            times = reader.times(video)
            if max(row["indices"]) >= len(times):
                return "its views are of other frames than those that are cached now"
            views.append(
                {"variant": side, "kind": row["view"], "times": times[list(row["indices"])].tolist()}
                | {name: row[name] for name in ("indices", "crop", "scale")}
            )
    if not views:
        return "neither saw a frame"
    return film_of(reader, {"video_id": video, "spans": rows[0]["spans"], "clip": []}, views, None)
