"""Several checkpoints on the same questions: each answers, all are graded alike, and stand side by side."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.markdown import table
from pipeline.rewards import RewardRule
from pipeline.runner import Progress
from pipeline.store import Store
from trainer import grading
from trainer.evaluate import BATCH, Answered, ask
from trainer.exams import Asked
from trainer.grading.published import published
from trainer.grading.tables import Table, side_by_side, tables
from trainer.identity import policy_fingerprint
from trainer.predictions import read

_HELP = "strive-train eval --help"


def evaluate_all(
    store: str | Path,
    policies: Sequence[str],
    asked: Asked,
    *,
    out: Path | None = None,
    max_tokens: int = 256,
    reward: str = "",
    device: str = "cpu",
    precision: str = "fp32",
    batch: int = BATCH,
    progress: Progress | None = None,
    cache_vision: Path | None = None,
) -> dict[str, Any]:
    """Evaluate one or several policies on the same questions.

    Args:
        policies: folders or hub ids; each once.
        out: a folder for predictions/NAME.jsonl, summary.json and summary.md. An interrupted command goes on from the
            predictions there. Default: nothing is kept.
        cache_vision: a folder for the features of their one vision tower (`trainer.visioncache`).

    Returns:
        checkpoints: {name: `Answered.summary` with `left_out`}; comparison: `trainer.grading.compared`, empty for one
        policy.

    Raises:
        UserError: a policy is given twice or cannot be loaded, `out` is a file, the features of another tower lie in
            `cache_vision`, or as `trainer.exams.exams`.
    """
    names = labels(policies)
    rule = RewardRule.parse(reward)
    opened = Store(store)
    for policy in policies:
        policy_fingerprint(policy)  # a wrong path is told before the first policy has worked for hours
    checkpoints: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[grading.Graded]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if out is None else _folder(out)
        for name, policy in zip(names, policies, strict=True):
            file = folder / "predictions" / f"{name}.jsonl"
            answered, identity, left_out = ask(
                opened,
                policy,
                asked,
                file,
                max_tokens=max_tokens,
                rule=rule,
                device=device,
                precision=precision,
                batch=batch,
                progress=progress,
                cache_vision=cache_vision,
            )
            checkpoints[name] = answered.summary(identity) | {"left_out": left_out}
            rows[name] = answered.rows
        return _reported(checkpoints, rows, out)


def regrade(
    files: Sequence[Path],
    *,
    annotations: Path | None = None,
    format: str = "auto",
    out: Path | None = None,
    reward: str = "",
) -> dict[str, Any]:
    """Grade predictions that lie there already, without a policy and without a store.

    Args:
        files: predictions that `evaluate_all` kept; or, with `annotations`, as others published them
            (`trainer.grading.published`).
        annotations, format: the questions that they answer, in any layout that is ingested.

    Returns:
        As `evaluate_all`; `left_out` counts rows of the annotations that cannot be graded, and predictions without a
        question.

    Raises:
        UserError: a file cannot be read, or the files answer different questions.
    """
    rule = RewardRule.parse(reward)
    checkpoints: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[grading.Graded]] = {}
    for name, file in zip(labels([str(file.with_suffix("")) for file in files]), files, strict=True):
        found, left_out = (read(file), {}) if annotations is None else published(file, annotations, format)
        answered = Answered.of_rows(found, file, rule)
        checkpoints[name] = answered.summary("") | {"left_out": left_out}
        rows[name] = answered.rows
    return _reported(checkpoints, rows, None if out is None else _folder(out))


def labels(paths: Sequence[str]) -> list[str]:
    """Short names of checkpoints: as many last parts of their paths as tell them apart, joined by "-".

    Raises:
        UserError: none is given, or one twice.
    """
    parts = [[part for part in Path(path).parts if part not in ("/", "..", ".")] or [path] for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["-".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(" ".join(paths) or "no checkpoint", "expected each checkpoint once", _HELP)


def all_tables(found: Mapping[str, Any]) -> list[Table]:
    """The tables of an evaluation: those of each checkpoint, or side by side those of several."""
    names = list(found["checkpoints"])
    if len(names) == 1:
        return tables(found["checkpoints"][names[0]])
    return [side_by_side(names, found["comparison"])]


def _reported(
    checkpoints: dict[str, dict[str, Any]], rows: Mapping[str, list[grading.Graded]], out: Path | None
) -> dict[str, Any]:
    try:
        comparison = grading.compared(rows) if len(rows) > 1 else []
    except ValueError as error:
        raise UserError("side by side", str(error), "compare predictions of one and the same command") from error
    found = {"checkpoints": checkpoints, "comparison": comparison}
    if out is not None:
        _write(out / "summary.json", json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        several = all_tables(found) if len(checkpoints) > 1 else []
        each = [one for name, report in checkpoints.items() for one in tables(report, name)]
        pages = [f"## {one.title}\n\n{table(one.columns, map(_shown, one.rows))}" for one in [*several, *each]]
        _write(out / "summary.md", "\n".join(["# Evaluation\n", *pages]))
    return found


def _shown(row: Sequence[Any]) -> list[str]:
    return ["" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}", "expected a folder", _HELP)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write(file: Path, text: str) -> None:
    """A whole file or none."""
    beside = file.with_name(f"{file.name}.{fingerprint(text)}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
