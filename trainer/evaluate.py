"""Evaluation: greedy answers of a policy on cached frames, graded by the same functions that reward training."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.answerer import Answerer, Refused, Request
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.rewards import DEFAULT_RULE, Reward, RewardRule, score
from pipeline.runner import Progress
from pipeline.store import Store
from pipeline.views import View, load_view
from trainer import grading
from trainer.exams import Asked, Exam, exams
from trainer.grading import Graded
from trainer.policy import load_policy
from trainer.predictions import PredictionsFile, prediction, read
from trainer.progress import bar

BATCH = 16  # views answered together
_NO_FRAMES = View(np.empty((0, 1, 1, 3), np.uint8), np.empty(0, np.float64))
_OOPS = (ValueError, IndexError, OSError, UserError)
"""What reading cached frames raises: damaged, fewer than the view knows, unreadable, gone."""


def evaluate(
    store: Store | str | Path,
    *,
    policy: str | Path,
    dataset: str | None = None,
    split: str | None = None,
    view: str = "all",
    limit: int | None = None,
    out: Path | None = None,
    max_tokens: int = 256,
    reward: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
    tag: str | None = None,
    source: str | None = None,
    frames: int | None = None,
    batch: int = BATCH,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Answer every sample once a view, at temperature 0, and report.

    Args:
        dataset, tag, split, source, view, frames, limit: what is asked (`trainer.exams.Asked`).
        out: a file for the predictions, one JSON object a line. What it holds already of the same policy and the same
            questions is not asked again. Default: they are not kept.
        reward: how parts join to the figure `reward`, as `RewardRule.parse` reads it; nothing else depends on it.
        batch: views answered together.

    Returns:
        As `summary`.
    """
    opened = store if isinstance(store, Store) else Store(store)
    asked = Asked(dataset, tag, split, source, view, frames, limit)
    rule = RewardRule.parse(reward)
    with tempfile.TemporaryDirectory() as folder:
        file = out or Path(folder) / "predictions.jsonl"
        found, identity, left_out = ask(
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
        )
    return found.summary(identity) | {"left_out": left_out}


def ask(
    store: Store,
    policy: str | Path,
    asked: Asked,
    file: Path,
    *,
    max_tokens: int,
    rule: RewardRule,
    device: str,
    precision: str,
    batch: int,
    progress: Progress | None,
    cache_vision: Path | None = None,
) -> tuple["Answered", str, dict[str, int]]:
    """Ask one policy everything, into a predictions file, and grade that.

    Args:
        cache_vision: a folder for the features of its vision tower; None: they are not kept.

    Returns:
        What it answered, its fingerprint, and how many exams were left out, by reason.
    """
    reader = FrameReader(store)
    todo = exams(store, reader, asked)
    model = load_policy(policy, device, precision)
    if cache_vision is not None:
        model.keep_features(cache_vision, precision)
    answer(model, reader, todo.todo, file, max_tokens=max_tokens, rule=rule, batch=batch, progress=progress)
    return Answered.of_rows(read(file), file, rule), model.fingerprint, todo.left_out


def answer(
    policy: Answerer,
    reader: FrameReader,
    todo: Sequence[Exam],
    file: Path,
    *,
    max_tokens: int,
    rule: RewardRule,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> None:
    """Fill a predictions file with the answers to all exams, in their order; those that it has already stay.

    The frames of the next batch are read while the present one is answered. An exam whose frames cannot be read is a
    failure: a line with its reason, which counts as wrong.
    """
    batches = [todo[i : i + batch] for i in range(0, len(todo), batch)]
    prints = [[exam.fingerprint(policy.fingerprint, max_tokens) for exam in part] for part in batches]
    lines = PredictionsFile(file, prints)
    open_ = [i for i in range(len(batches)) if i not in lines.done]
    with bar(progress, "evaluate", len(todo)) as advance:
        advance(sum(len(batches[i]) for i in lines.done))
        for i, views in zip(open_, _ahead(reader, [batches[i] for i in open_]), strict=True):
            lines.append(_answered(policy, batches[i], views, prints[i], max_tokens, rule))
            advance(len(batches[i]))
    lines.close()


def _ahead(reader: FrameReader, batches: Sequence[Sequence[Exam]]) -> Iterator[list[View | str]]:
    """The views of each batch, the next one read while the present one is used."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(views_of, reader, batches[0]) if batches else None
        for i in range(len(batches)):
            assert ahead is not None
            views = ahead.result()
            ahead = pool.submit(views_of, reader, batches[i + 1]) if i + 1 < len(batches) else None
            yield views


def views_of(reader: FrameReader, part: Sequence[Exam]) -> list[View | str]:
    """The view of each exam, or the message why it cannot be read."""
    out: list[View | str] = []
    for exam in part:
        if exam.view == "blind":
            out.append(_NO_FRAMES)
            continue
        try:
            shown = exam.shown
            out.append(load_view(reader, exam.sample["video_id"], shown.indices, shown.crop, shown.scale))
        except _OOPS as error:
            out.append(f"frames cannot be read: {error}")
    return out


def _answered(
    policy: Answerer,
    part: Sequence[Exam],
    views: Sequence[View | str],
    prints: Sequence[str],
    max_tokens: int,
    rule: RewardRule,
) -> list[dict[str, Any]]:
    """The lines of a batch."""
    requests = [
        Request(view.frames, view.times, s["task"], s["question"], s["options"], [0])
        for s, view in zip((exam.sample for exam in part), views, strict=True)
        if isinstance(view, View)
    ]
    drawn = iter(policy.answer(requests, temperature=0.0, max_tokens=max_tokens) if requests else [])
    rows = []
    for exam, view, print_ in zip(part, views, prints, strict=True):
        text, tokens, failure = None, None, view if isinstance(view, str) else ""
        if isinstance(view, View):
            (response,) = next(drawn)
            if isinstance(response, Refused):
                failure = f"{response.reason}: {response.message}"
            else:
                text, tokens = response.text, response.tokens
        rows.append(prediction(exam, text, tokens, failure, _reward(exam, text or "", rule), print_))
    return rows


def _reward(exam: Exam, text: str, rule: RewardRule) -> Reward | None:
    s = exam.sample
    if grading.is_withheld(s):
        return None
    return score(text, s["task"], s["options"], s["answer"], s["spans"], exam.duration_s, rule)


@dataclass(frozen=True)
class Answered:
    """The graded responses of one checkpoint, and how many have no truth to be graded by, by (dataset, view)."""

    rows: list[Graded]
    withheld: Mapping[tuple[str, str], int]

    @classmethod
    def of_rows(cls, lines: Iterable[Mapping[str, Any]], file: Path, rule: RewardRule = DEFAULT_RULE) -> "Answered":
        """Grade the lines of a predictions file (`trainer.predictions.read`), or what was laid beside annotations.

        Args:
            file: that they come from, for messages.

        Raises:
            UserError: a line cannot be read, or its sample cannot be scored.
        """
        rows: list[Graded] = []
        withheld: Counter[tuple[str, str]] = Counter()
        for number, row in enumerate(lines, 1):
            if grading.is_withheld(row):
                withheld[row["dataset"], row["view"]] += 1
                continue
            try:
                rows.append(grading.grade(row, rule))
            except ValueError as error:
                raise UserError(f"{file} line {number}", str(error), "check its options, answer and spans") from error
        return cls(rows, withheld)

    def summary(self, policy: str) -> dict[str, Any]:
        """What an evaluation reports.

        Returns:
            samples, policy, the general figures of all responses (accuracy, miou, format_rate, ...), the same
            `by_task`, `by_view` and `by_task_and_view`; failed (how many had no response, by reason); withheld (how
            many have no truth); benchmarks (the own figures of each dataset on each view, its breakdowns and counts).
        """
        figures = grading.report(self.rows)
        failed = Counter(row.failure.partition(":")[0] for row in self.rows if row.failure)
        return {
            "samples": len({row.sample_id for row in self.rows}),
            "policy": policy,
            **figures.pop("all"),
            **figures,
            "failed": dict(failed),
            "withheld": sum(self.withheld.values()),
            "benchmarks": grading.benchmarks(self.rows, self.withheld),
        }
