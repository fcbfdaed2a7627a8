"""The annotations of the toy world, some of them wrong, as those that machines make are.

    python -m toyworld.reproduce.annotations WORLD OUT [--wrong 0.4] [--mixed-up] [--seed 0]

WORLD is the folder of a toy world (train.json, train_grounding.jsonl); OUT gets the same files. A wrong choice is
another of the options, a wrong number another of 1 to 4, a wrong span one of the same length elsewhere in the clip.
With --mixed-up it has the options, the answer and the span of another row of its task, which now and then are right by
chance. Each such row says so, in a key that no reader looks at: "wrong".
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.fingerprint import seed_of
from toyworld.reproduce.words import parser
from toyworld.scenes import SECONDS

WRONG, MIXED_UP = 0.4, 0.75
NUMBERS = ("1", "2", "3", "4")
_OPEN, _CLOSE = "<answer>", "</answer>"


def mislead(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A row of either layout with another answer, another span, or both."""
    row = {**row, "wrong": True}
    if "solution" in row:
        right = row["solution"].removeprefix(_OPEN).removesuffix(_CLOSE)
        choice = row["problem_type"] == "multiple choice"
        row["solution"] = _OPEN + _other([o[0] for o in row["options"]] if choice else NUMBERS, right, rng) + _CLOSE
        return row
    start, end = row["spans"][0]
    row["spans"] = [_elsewhere(start, end, rng)]
    if row["options"]:
        row["answer"] = _other("ABCD"[: len(row["options"])], row["answer"], rng)
    return row


def _other(answers: Sequence[str], right: str, rng: np.random.Generator) -> str:
    wrong = [answer for answer in answers if answer != right]
    return wrong[int(rng.integers(len(wrong)))]


def _elsewhere(start: float, end: float, rng: np.random.Generator) -> list[float]:
    """A span of the same length that does not overlap, on eighths of a second."""
    starts = np.arange(0, SECONDS - (end - start) + 1e-9, 0.125)
    free = starts[(starts + (end - start) <= start) | (starts >= end)]
    at = float(free[int(rng.integers(len(free)))])
    return [at, at + (end - start)]


_RIGHT = ("options", "solution", "answer", "spans")


def mix_up(row: dict[str, Any], rows: Sequence[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """A row of either layout with what counts as right of another row of its task.

    Args:
        rows: those of its file; two of every task at least.
    """
    others = [other for other in rows if _task(other) == _task(row) and other is not row]
    other = others[int(rng.integers(len(others)))]
    return {**row, "wrong": True, **{key: other[key] for key in _RIGHT if key in other}}


def _task(row: dict[str, Any]) -> str:
    task: str = row.get("problem_type") or row["task"]
    return task


def write(world: Path, out: Path, wrong: float, seed: int, mixed_up: bool = False) -> None:
    """Both annotation files, each row wrong with probability `wrong`; mixed_up: with what belongs to other rows."""
    rng = np.random.default_rng(seed_of("toyworld.reproduce annotations", seed))
    out.mkdir(parents=True, exist_ok=True)
    rows = json.loads((world / "train.json").read_text(encoding="utf-8"))
    lines = (world / "train_grounding.jsonl").read_text(encoding="utf-8").splitlines()

    def spoilt(row: dict[str, Any], part: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return mix_up(row, part, rng) if mixed_up else mislead(row, rng)

    questions, spans = (
        [spoilt(row, part) if rng.random() < wrong else row for row in part]
        for part in (rows, [json.loads(line) for line in lines])
    )
    (out / "train.json").write_text(json.dumps(questions, indent=1), encoding="utf-8")
    (out / "train_grounding.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spans), encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    given = parser("toyworld.reproduce.annotations", __doc__)
    given.add_argument("world", type=Path, help="folder of a toy world")
    given.add_argument("out", type=Path, help="folder to write to")
    given.add_argument("--wrong", type=float, default=WRONG, help=f"share of wrong rows (default: {WRONG})")
    given.add_argument("--mixed-up", action="store_true", help="wrong rows have what belongs to other rows")
    given.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    options = given.parse_args(words)
    write(options.world, options.out, options.wrong, options.seed, options.mixed_up)


if __name__ == "__main__":
    main()
