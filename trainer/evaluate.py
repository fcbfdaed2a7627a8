"""Evaluation: greedy answers of a policy on prebuilt views, graded by the same functions that reward training."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.rewards import Reward, RewardRule, duration_of, score
from pipeline.runner import Progress
from pipeline.store import Store
from pipeline.views import View, load_view
from trainer.grading import Graded, report
from trainer.policy import Policy, load_policy
from trainer.progress import bar
from trainer.rollout import rollout
from trainer.stream import ANCHOR, FIRST_IMPORTANCE, video_durations

VIEWS = {"anchor": (ANCHOR,), "importance": (FIRST_IMPORTANCE,), "all": (ANCHOR, FIRST_IMPORTANCE)}
BATCH = 64  # views answered together


@dataclass(frozen=True)
class Exam:
    """One sample with one of its variants, and the length of what its question is about."""

    sample: dict[str, Any]
    variant: dict[str, Any]
    duration_s: float | None


def exams(store: Store, dataset: str | None, split: str | None, view: str, limit: int | None) -> list[Exam]:
    """What to ask: the samples of a curated dataset or of a split, each with the variants of `view`.

    Raises:
        UserError: neither or both given, an unknown view, or nothing to ask.
    """
    if view not in VIEWS:
        raise UserError(f"--view {view}", f"expected one of {', '.join(VIEWS)}", "strive-train eval --help")
    if (dataset is None) == (split is None):
        raise UserError("strive-train eval", "expected either --dataset or --split", "strive-train eval --help")
    if dataset is not None:
        rows = store.curated(dataset).to_pylist()
        variants = {(r["sample_id"], v["variant"]): v for r in rows for v in r["variants"]}
    else:
        rows = [r for r in store.table("samples").to_pylist() if r["split"] == split]
        variants = {(v["sample_id"], v["variant"]): v for v in store.table("variants").to_pylist()}
    rows = sorted(rows, key=lambda r: str(r["sample_id"]))[:limit]
    durations = video_durations(store)
    found = [
        Exam(r, variants[r["sample_id"], k], duration_of(r, durations))
        for r in rows
        for k in VIEWS[view]
        if (r["sample_id"], k) in variants
    ]
    if not found:
        raise UserError(
            f"--dataset {dataset}" if dataset is not None else f"--split {split}",
            f"no sample with a view of kind {view!r} in the store",
            "strive-data status shows the samples; build-variants makes their views",
        )
    return found


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
) -> dict[str, Any]:
    """Answer every sample once a view, at temperature 0.

    Args:
        out: a file for the predictions, one JSON object a line.
        reward: how parts join to the figure `reward`, as `RewardRule.parse` reads it; nothing else depends on it.

    Returns:
        The figures of all answers (accuracy, miou, format_rate, ...); by task and by view; `samples` counts samples.
    """
    rule = RewardRule.parse(reward)
    opened = store if isinstance(store, Store) else Store(store)
    todo = exams(opened, dataset, split, view, limit)
    model = load_policy(policy, device)
    rows: list[dict[str, Any]] = []
    graded: list[Graded] = []
    with bar(progress, "evaluate", len(todo)) as advance:
        for exam, text, earned in answers(model, FrameReader(opened), todo, max_tokens, rule):
            kind = "anchor" if exam.variant["variant"] == ANCHOR else "importance"
            graded.append(Graded(exam.sample["task"], kind, earned))
            rows.append(prediction(exam, kind, text, earned))
            advance(1)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    figures = report(graded)
    return {
        "samples": len({e.sample["sample_id"] for e in todo}),
        "policy": model.fingerprint,
        **figures.pop("all"),
        **figures,
    }


def answers(
    policy: Policy, reader: FrameReader, todo: Sequence[Exam], max_tokens: int, rule: RewardRule
) -> Iterator[tuple[Exam, str, Reward]]:
    """Each exam with its response and reward, in order."""
    for i in range(0, len(todo), BATCH):
        part = todo[i : i + BATCH]
        views: list[View] = [
            load_view(reader, e.sample["video_id"], *(e.variant[name] for name in ("indices", "crop", "scale")))
            for e in part
        ]
        prompts = policy.prompts(views, [(e.sample["question"], e.sample["options"]) for e in part])
        with torch.no_grad():
            features = policy.encode(prompts)
        sampled = rollout(
            policy.model, policy.family, prompts, features, [[0]] * len(part), temperature=0, max_tokens=max_tokens
        )
        for exam, one in zip(part, sampled, strict=True):
            s, text = exam.sample, policy.text(one[0])
            truth = s["task"], s["options"], s["answer"], s["spans"]
            yield exam, text, score(text, *truth, exam.duration_s, rule)


def prediction(exam: Exam, view: str, text: str, reward: Reward) -> dict[str, Any]:
    """One line of the predictions file."""
    s = exam.sample
    return {
        "sample_id": s["sample_id"],
        "task": s["task"],
        "view": view,
        "question": s["question"],
        "answer": s["answer"],
        "spans": s["spans"],
        "response": text,
        "accuracy": reward.accuracy,
        "credit": reward.credit,
        "iou": reward.iou,
        "boundary_iou": reward.boundary_iou,
        "format": reward.format,
        "parse_error": reward.parse_error,
    }
