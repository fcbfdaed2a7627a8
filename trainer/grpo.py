"""GRPO-STRIVE: for each question G responses for each of M views, advantages over the whole G x M pool, one update.

    strive-train run --variants 4 --responses 4         STRIVE
    strive-train run --variants 1 --responses 16        GRPO on the anchor view, the same code and the same budget

A step reads top to bottom in `Trainer.step`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.fingerprint import seed_of
from pipeline.rewards import RewardRule, score
from trainer import checkpoint
from trainer.advantage import joint_advantages
from trainer.config import RunConfig
from trainer.families import Prompt, VisionFeatures
from trainer.loss import approx_kl, clip_fraction, ppo_clip, token_mean
from trainer.metrics import pool_metrics
from trainer.packing import Row, Segment, micro_batches, pack
from trainer.policy import Policy
from trainer.rollout import Sampled, rollout
from trainer.stream import Group


@dataclass
class Clock:
    """Seconds by phase of one step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class LiveRow:
    """A view's prompt with the responses of a live pool behind it, their advantages [G] and rollout log-probs."""

    row: Row
    advantages: Tensor
    old_logprobs: list[Tensor]
    features: VisionFeatures


class Trainer:
    """Policy, optimizer and schedule of one run."""

    def __init__(self, config: RunConfig, policy: Policy, accelerator: Accelerator) -> None:
        self.config, self.policy, self.accelerator = config, policy, accelerator
        self.rule = RewardRule.parse(config.reward)
        if config.freeze_vision:
            policy.family.vision(policy.model).requires_grad_(False)
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup))
        )

    def step(self, step: int, groups: Sequence[Group]) -> dict[str, Any]:
        """One optimisation step on a batch of groups; returns its metrics."""
        clock = Clock()
        with clock.phase("prompts"):
            prompts = self.prompts(groups)
        with clock.phase("vision"):
            features = self.encode(prompts)
        with clock.phase("rollout"):
            sampled = self.sample(step, groups, prompts, features)
        with clock.phase("reward"):
            rewards = self.rewards(groups, sampled)
        advantages = joint_advantages(rewards)
        live = live_rows(prompts, features, sampled, advantages)
        with clock.phase("update"):
            update = self.update(live)
        return step_metrics(rewards, sampled, update, clock)

    def prompts(self, groups: Sequence[Group]) -> list[Prompt]:
        """One prompt a view, group after group: Q x M."""
        views = [view for g in groups for view in g.views]
        texts = [(g.sample["question"], g.sample["options"]) for g in groups for _ in g.views]
        return self.policy.prompts(views, texts)

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Each view through the vision tower once; a frozen tower's features serve the update too."""
        with self.accelerator.autocast():
            return self.policy.encode(prompts)

    def sample(
        self, step: int, groups: Sequence[Group], prompts: Sequence[Prompt], features: Sequence[VisionFeatures]
    ) -> list[list[Sampled]]:
        """G responses for each prompt, seeded by (seed, step, sample, place of the view, draw)."""
        c = self.config
        seeds = [
            [seed_of(c.seed, "train", step, g.sample["sample_id"], place, draw) for draw in range(c.responses)]
            for g in groups
            for place in range(len(g.views))
        ]
        out: list[list[Sampled]] = []
        size = max(1, c.rollout_batch // c.responses)
        for i in range(0, len(prompts), size):
            part = slice(i, i + size)
            with self.accelerator.autocast():
                out += rollout(
                    self.policy.model,
                    self.policy.family,
                    prompts[part],
                    features[part],
                    seeds[part],
                    temperature=c.temperature,
                    max_tokens=c.max_tokens,
                )
        return out

    def rewards(self, groups: Sequence[Group], sampled: Sequence[Sequence[Sampled]]) -> list[Tensor]:
        """Rewards of each group's pool, float64 [M, G]: what the rule of the settings joins, format by its weight."""
        views = iter(sampled)
        return [
            torch.tensor([[self.reward(g, x) for x in next(views)] for _ in g.views], dtype=torch.float64)
            for g in groups
        ]

    def reward(self, group: Group, sampled: Sampled) -> float:
        """What one response earns."""
        s = group.sample
        truth = s["task"], s["options"], s["answer"], s["spans"]
        return score(self.policy.text(sampled), *truth, group.duration_s, self.rule).total

    def update(self, live: Sequence[LiveRow]) -> dict[str, float | None]:
        """PPO-clip over all live response tokens; a step without a live pool changes nothing and measures nothing."""
        if not live:
            return dict.fromkeys(("loss", "grad_norm", "clip_fraction", "approx_kl"))
        c = self.config
        total = sum(len(t) for r in live for t in r.old_logprobs)
        sums = {"loss": 0.0, "clip_fraction": 0.0, "approx_kl": 0.0}
        self.optimizer.zero_grad(set_to_none=True)
        for batch in micro_batches([r.row for r in live], c.micro_tokens):
            part = [live[i] for i in batch]
            packed = pack([r.row for r in part], self.policy.family.pad_id, self.policy.device)
            advantages = torch.cat([r.advantages for r in part]).to(self.policy.device)[packed.owners].float()
            old = torch.cat([t for r in part for t in r.old_logprobs]).to(self.policy.device)
            with self.accelerator.autocast():
                features = (
                    [r.features for r in part] if c.freeze_vision else self.policy.encode([r.row.prompt for r in part])
                )
                logp = self.policy.logprobs(packed, features, c.temperature)
            loss = token_mean(ppo_clip(logp, old, advantages, c.clip_low, c.clip_high), total)
            self.accelerator.backward(loss)
            share = len(logp) / total
            sums["loss"] += loss.item()
            sums["clip_fraction"] += share * clip_fraction(logp, old, advantages, c.clip_low, c.clip_high)
            sums["approx_kl"] += share * approx_kl(logp, old)
        norm = self.accelerator.clip_grad_norm_(self.parameters, c.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        return {**sums, "grad_norm": float(norm)}

    def state(self) -> dict[str, Any]:
        """Everything beside the weights that the next step depends on; the stream's place is the step itself."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        checkpoint.restore_rng(state["rng"])


def live_rows(
    prompts: Sequence[Prompt],
    features: Sequence[VisionFeatures],
    sampled: Sequence[Sequence[Sampled]],
    advantages: Sequence[Tensor],
) -> list[LiveRow]:
    """The rows that carry gradient: pools whose advantages are all 0 are dropped before any log-prob is computed.

    Args:
        prompts, features, sampled: Q x M entries, group after group. advantages: Q pools [M, G].
    """
    flat = [(a, bool(pool.any())) for pool in advantages for a in pool]
    return [
        LiveRow(Row(p, [Segment(s.tokens) for s in group]), a, [s.logprobs for s in group], f)
        for p, f, group, (a, alive) in zip(prompts, features, sampled, flat, strict=True)
        if alive
    ]


def step_metrics(
    rewards: Sequence[Tensor], sampled: Sequence[Sequence[Sampled]], update: dict[str, float | None], clock: Clock
) -> dict[str, Any]:
    """A row of metrics.jsonl: STRIVE's three curves (reward std, dead groups, gradient norm) and what explains them."""
    lengths = [len(s.tokens) for group in sampled for s in group]
    return {
        **pool_metrics([r.numpy() for r in rewards]),
        **update,
        "rollouts": len(lengths),
        "tokens": sum(lengths),
        "seconds": {name: round(value, 4) for name, value in clock.seconds.items()},
    }
