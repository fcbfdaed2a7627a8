"""The annotations of the toy world, some of them wrong, as those that machines make are.

    python -m toyworld.reproduce.annotations WORLD OUT [--wrong 0.4] [--seed 0]

WORLD is the folder of a toy world (train.json, train_grounding.jsonl); OUT gets the same files. A wrong choice is
another of the options, a wrong number another of 1 to 4, a wrong span one of the same length elsewhere in the clip.
Each wrong row says so, in a key that no reader looks at: "wrong".
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.fingerprint import seed_of
from toyworld.reproduce.words import parser
from toyworld.scenes import SECONDS

WRONG = 0.4
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


def write(world: Path, out: Path, wrong: float, seed: int) -> None:
    """Both annotation files, each row wrong with probability `wrong`."""
    rng = np.random.default_rng(seed_of("toyworld.reproduce annotations", seed))
    out.mkdir(parents=True, exist_ok=True)
    rows = json.loads((world / "train.json").read_text(encoding="utf-8"))
    lines = (world / "train_grounding.jsonl").read_text(encoding="utf-8").splitlines()
    questions, spans = (
        [mislead(row, rng) if rng.random() < wrong else row for row in part]
        for part in (rows, [json.loads(line) for line in lines])
    )
    (out / "train.json").write_text(json.dumps(questions, indent=1), encoding="utf-8")
    (out / "train_grounding.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spans), encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    given = parser("toyworld.reproduce.annotations", __doc__)
    given.add_argument("world", type=Path, help="folder of a toy world")
    given.add_argument("out", type=Path, help="folder to write to")
    given.add_argument("--wrong", type=float, default=WRONG, help=f"share of wrong rows (default: {WRONG})")
    given.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    options = given.parse_args(words)
    write(options.world, options.out, options.wrong, options.seed)


if __name__ == "__main__":
    main()
