"""Supervised fine-tuning on the same packing as the RL update: the questions about one view share its prompt.

`sft_step` is one update; `run` feeds it a curated dataset, the toy world's builder feeds it scenes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.runner import Progress
from pipeline.store import Store
from pipeline.views import View
from trainer import checkpoint
from trainer.config import SftConfig
from trainer.config import write as write_settings
from trainer.families import VisionFeatures
from trainer.metrics import MetricsLog
from trainer.packing import Row, Segment, micro_batches, pack
from trainer.policy import Policy, load_policy
from trainer.progress import bar
from trainer.stream import Group, Stream
from trainer.train import one_process


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
            tail = family.tail(turn.question, turn.options)
            response = policy.processor.tokenizer(turn.response, add_special_tokens=False).input_ids
            tokens = torch.cat([tail, torch.tensor([*response, family.eos_id])])
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
) -> dict[str, float]:
    """One optimizer step on the mean token loss over all response tokens of `rows`.

    Args:
        features: vision features of each row, of a frozen tower. None: encoded here, with gradient where it learns.
        token_budget: padded tokens of a micro-batch. autocast: bfloat16 arithmetic on float32 weights.

    Returns:
        loss (nats a token), grad_norm (before clipping), tokens.
    """
    total = sum(len(s.tokens) - s.skip for r in rows for s in r.segments)
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
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    return {"loss": loss_sum, "grad_norm": float(norm), "tokens": float(total)}


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


def run(config: SftConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Imitate the right answers of a curated dataset on its anchor views.

    Returns:
        steps, the mean loss of the first and of the last tenth of the steps, seconds, checkpoint.

    Raises:
        UserError: no such dataset, frames missing from the cache, or a run in `out` already.
    """
    start = time.perf_counter()
    checkpoint.open_run(config.out, resume=False)
    stream = Stream(
        Store(config.store),
        config.dataset,
        config.tag,
        count=1,
        view="anchor",
        groups=config.groups,
        seed=config.seed,
        allow_eval=config.allow_eval,
    )
    accelerator = one_process(config)
    torch.manual_seed(config.seed)
    policy = load_policy(config.policy, str(accelerator.device))
    if config.freeze_vision:
        policy.family.vision(policy.model).requires_grad_(False)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    write_settings(config, config.out / "config.json")
    losses = []
    with MetricsLog(config.out / "metrics.jsonl") as log, bar(progress, "sft", config.steps) as advance:
        for step, groups in stream.batches(0, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
            row = sft_step(
                policy,
                optimizer,
                lesson_rows(policy, lessons_of(groups)),
                max_grad_norm=config.max_grad_norm,
                token_budget=config.micro_tokens,
                autocast=config.precision == "bf16",
            )
            losses.append(row["loss"])
            log.write({"step": step + 1, **row})
            advance(1)
    saved = checkpoint.save(config.out, config.steps, policy.save, {"optimizer": optimizer.state_dict()})
    tenth = max(1, len(losses) // 10)
    return {
        "steps": config.steps,
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "seconds": round(time.perf_counter() - start, 2),
        "checkpoint": str(saved),
    }
