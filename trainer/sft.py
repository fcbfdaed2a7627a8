"""Supervised fine-tuning on the same packing as the RL update: the questions about one view share its prompt.

`sft_step` is one update; `run` feeds it a curated dataset, the toy world's builder feeds it scenes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.views import View
from trainer import checkpoint, loop
from trainer.clock import Clock
from trainer.config import SftConfig
from trainer.families import VisionFeatures
from trainer.feed import Feed
from trainer.halt import NotFiniteError, is_finite
from trainer.live import LiveLine
from trainer.metrics import read_rows
from trainer.optimizer import optimizer_of, scheduler_of
from trainer.packing import Row, Segment, micro_batches, pack
from trainer.policy import Policy
from trainer.ranks import ALONE, Ranks
from trainer.stream import Group, Stream
from trainer.weights import Weights, weights_of


@dataclass(frozen=True)
class Turn:
    """A question about a view and the response to learn, without end token."""

    question: str
    options: Sequence[str]
    response: str


@dataclass(frozen=True)
class Lesson:
    """One view and what is asked about it."""

    view: View
    turns: Sequence[Turn]


def lesson_rows(policy: Policy, lessons: Sequence[Lesson]) -> list[Row]:
    """One packed row a lesson: the view, then each question with its response; only responses carry loss."""
    family = policy.family
    heads = family.heads([lesson.view for lesson in lessons])
    rows = []
    for head, lesson in zip(heads, lessons, strict=True):
        segments = []
        for turn in lesson.turns:
            tail = family.tail(turn.question, turn.options, seen=len(lesson.view.frames) > 0)
            tokens = torch.cat([tail, family.response(turn.response)])
            segments.append(Segment(tokens, skip=len(tail)))
        rows.append(Row(head, segments))
    return rows


def learning_rate(step: int, steps: int, peak: float, warmup: int, floor: float = 0.1) -> float:
    """Linear warm-up over `warmup` steps, then linear decay to `floor * peak` at the last step.

    Args:
        step: from 0. steps: of the whole run.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 - (1 - floor) * (step - warmup) / max(1, steps - warmup))


def sft_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    features: Sequence[VisionFeatures] | None = None,
    *,
    max_grad_norm: float,
    token_budget: int = 1 << 20,
    autocast: bool = False,
    weights: Weights | None = None,
) -> dict[str, float]:
    """One optimizer step on the mean token loss over all response tokens of `rows`, of all processes together.

    Args:
        features: vision features of each row, of a frozen tower. None: encoded here, with gradient where it learns.
        token_budget: padded tokens of a micro-batch. autocast: bfloat16 arithmetic on float32 weights.
        weights: of the policy, and the processes that share the step, each with rows of its own; one may have none.
            Default: this process alone.

    Returns:
        loss (nats a token), grad_norm (before clipping), tokens. When one is not finite nothing was changed.
    """
    weights = weights or Weights(policy)
    ranks = weights.ranks
    total = sum(ranks.gathered(sum(len(s.tokens) - s.skip for r in rows for s in r.segments)))
    loss_sum = 0.0
    optimizer.zero_grad(set_to_none=True)
    for batch in micro_batches(rows, token_budget):
        part = [rows[i] for i in batch]
        with torch.autocast(policy.device.type, torch.bfloat16, enabled=autocast):
            seen = policy.encode([r.prompt for r in part]) if features is None else [features[i] for i in batch]
            logp = policy.logprobs(pack(part, policy.family.pad_id, policy.device), seen, 1.0)
        loss = -logp.sum() / total
        loss.backward()
        loss_sum += loss.item()
    weights.sum_gradients()
    norm = weights.clip(max_grad_norm)
    found = {**ranks.summed({"loss": loss_sum}), "grad_norm": norm, "tokens": float(total)}
    if is_finite(found):
        optimizer.step()
    return found


def target(task: str, answer: str, spans: Sequence[Sequence[float]]) -> str:
    """The right response to a curated sample, in the format that the parser reads; its thought is empty.

    Several true spans: the first one stands in the response.
    """
    span = f"{spans[0][0]:.1f} - {spans[0][1]:.1f}" if spans else ""
    words = {"grounding": span, "grounded_choice": f"{answer} {span}"}.get(task, answer)
    return f"<think> </think> <answer> {words.strip()} </answer>"


def lessons_of(groups: Sequence[Group]) -> list[Lesson]:
    """One lesson a group: its view with the sample's question and right answer."""
    lessons = []
    for g in groups:
        s = g.sample
        turn = Turn(s["question"], s["options"], target(s["task"], s["answer"], s["spans"]))
        lessons.append(Lesson(g.views[0], [turn]))
    return lessons


class Student:
    """Policy, optimizer and schedule of one run of `sft`; a `trainer.loop.Learner`."""

    def __init__(self, config: SftConfig, policy: Policy, ranks: Ranks = ALONE) -> None:
        self.config, self.policy, self.ranks = config, policy, ranks
        if config.freeze_vision:
            policy.family.vision(policy.model).requires_grad_(False)
        self.weights = weights_of(policy, ranks)
        self.optimizer = optimizer_of(self.weights.trained, config)
        self.scheduler = scheduler_of(self.optimizer, config)

    def step(self, step: int, feed: Feed) -> dict[str, Any]:
        """One update on the right answers of the next groups."""
        clock = Clock()
        self.weights.gather()
        with clock.phase("stream"):
            groups = feed.take(self.config.groups)
        with clock.phase("prompts"):
            rows = lesson_rows(self.policy, lessons_of(groups)) if groups else []
        with clock.phase("update"):
            found = sft_step(
                self.policy,
                self.optimizer,
                rows,
                max_grad_norm=self.config.max_grad_norm,
                token_budget=self.config.micro_tokens,
                autocast=self.config.precision == "bf16",
                weights=self.weights,
            )
        if not is_finite(found):
            batch = [{"sample_id": g.sample["sample_id"]} | lesson_record(g) for g in groups]
            raise NotFiniteError(step + 1, found, self.ranks.joined(batch))
        self.scheduler.step()
        return {**found, "seconds": {name: round(value, 4) for name, value in clock.seconds.items()}}

    def state(self) -> dict[str, Any]:
        """Everything beside the weights and the place in the stream that the next step depends on."""
        return {
            "optimizer": self.weights.optimizer_state(self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.weights.load_optimizer(self.optimizer, state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        checkpoint.restore_rng(state["rng"])


def lesson_record(group: Group) -> dict[str, Any]:
    """Question and right answer of a sample, for the record of a broken step."""
    return {name: group.sample[name] for name in ("question", "answer", "spans")}


def run(
    config: SftConfig,
    live: LiveLine | None = None,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Imitate the right answers of a curated dataset on its anchor views.

    Args:
        live: shows the steps as they are taken. resume: go on from the newest whole checkpoint in `config.out`.

    Returns:
        steps, the mean loss of the first and of the last tenth of the steps, seconds, checkpoint, and the name of the
        signal that stopped it (None: it ended by itself). Beside the main process this last one alone.

    Raises:
        UserError: see `trainer.loop.train`.
    """
    start = time.perf_counter()
    ended = loop.train(
        config,
        lambda store: Stream(
            store,
            config.dataset,
            config.tag,
            count=1,
            view="anchor",
            groups=1,
            seed=config.seed,
            allow_eval=config.allow_eval,
        ),
        lambda policy, accelerator, ranks: Student(config, policy, ranks),
        resume=resume,
        live=live,
    )
    stopped = ended.stop.signal.name if ended.stop.signal else None
    if not ended.main:
        return {"stopped": stopped}
    losses = [row["loss"] for row in read_rows(config.out / loop.METRICS_FILE)]
    tenth = max(1, len(losses) // 10)
    return {
        "steps": len(losses),
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "seconds": round(time.perf_counter() - start, 2),
        "checkpoint": str(ended.latest) if ended.latest else None,
        "stopped": stopped,
    }
