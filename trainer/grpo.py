"""GRPO-STRIVE: for each question G responses for each of M views, advantages over the whole G x M pool, one update.

    strive-train run --variants 4 --responses 4         STRIVE
    strive-train run --variants 1 --responses 16        GRPO on the anchor view, the same code and the same budget

A step reads top to bottom in `Trainer.step`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.rewards import Reward, RewardRule, score
from trainer import advantage, checkpoint
from trainer.clock import Clock
from trainer.config import RunConfig
from trainer.families import Prompt, VisionFeatures
from trainer.feed import Feed
from trainer.halt import NotFiniteError, is_finite
from trainer.loss import Objective, Size, approx_kl, k3
from trainer.optimizer import optimizer_of, scheduler_of
from trainer.packing import pack
from trainer.passes import Passes
from trainer.policy import Policy
from trainer.pools import Drawn, LiveRow, Pool, old_logprobs, rows_on_anchors, rows_on_own_views, waves
from trainer.ranks import ALONE, Ranks
from trainer.record import describe_batch, step_metrics, tally
from trainer.reference import reference_of
from trainer.rollout import Sampled
from trainer.stream import Group
from trainer.taskscale import TaskScale
from trainer.weights import weights_of


class Trainer:
    """Policy, optimizer and schedule of one run, and what its algorithm remembers; `ranks` share its steps."""

    def __init__(self, config: RunConfig, policy: Policy, accelerator: Accelerator, ranks: Ranks = ALONE) -> None:
        self.config, self.policy, self.accelerator, self.ranks = config, policy, accelerator, ranks
        self.rule = RewardRule.parse(config.reward)
        self.objective = Objective(*config.clip, config.loss, config.ratio, config.kl, config.max_tokens)
        self.reference = reference_of(config, policy)
        self.scales = TaskScale()
        # Of the present step; turns count how often a sample was drawn.
        self.clock, self.turns = Clock(), Counter[str]()
        if config.freeze_vision:
            policy.family.vision(policy.model).requires_grad_(False)
        self.weights = weights_of(policy, ranks)
        self.optimizer = optimizer_of(self.weights.trained, config)
        self.scheduler = scheduler_of(self.optimizer, config)
        self.passes = Passes(policy, config.micro_tokens, config.freeze_vision, accelerator.autocast)
        self.context = policy.model.config.get_text_config().max_position_embeddings
        self.check_context(1)

    def step(self, step: int, feed: Feed) -> dict[str, Any]:
        """One optimisation step on the next groups of the stream; returns its metrics.

        Raises:
            NotFiniteError: the loss or its gradient is no number; the policy is as it was before the step.
        """
        groups = self.begin(feed)
        pools = self.draw(step, groups)
        pools, replaced = self.refill(step, pools, feed)
        kept = self.subsets(step, pools)
        advantages = self.advantages(kept)
        live = self.live(kept, advantages)
        with self.clock.phase("update"):
            update = self.update(live)
        self.stop_if_broken(step, kept, advantages, update)
        gone, there = (self.ranks.joined([tally(pool, self.cut) for pool in some]) for some in (replaced, pools))
        return step_metrics([*gone, *there], update, self.clock.seconds) | {"replaced": len(gone)}

    def begin(self, feed: Feed) -> list[Group]:
        """This process's groups of a step, taken from the stream, and all weights to look at them with."""
        self.clock, self.turns = Clock(), Counter()
        self.passes.clear()
        self.weights.gather()
        with self.clock.phase("stream"):
            return feed.take(self.config.groups)

    def draw(self, step: int, groups: Sequence[Group]) -> list[Pool]:
        """A pool of rollouts for each group; in two waves, those that live after the first are left at that."""
        c = self.config
        turns = self.turns_of(groups)
        if not c.two_wave:
            return self.wave(step, groups, turns, [c.responses] * c.variants)
        first, second = waves(c.variants, c.responses)
        pools = self.wave(step, groups, turns, first)
        dead = [place for place, pool in enumerate(pools) if pool.dead]
        more = self.wave(step, [groups[i] for i in dead], [turns[i] for i in dead], second)
        joined = {i: pools[i].joined(other) for i, other in zip(dead, more, strict=True)}
        return [joined.get(place, pool) for place, pool in enumerate(pools)]

    def turns_of(self, groups: Sequence[Group]) -> list[int]:
        """How often each sample was drawn before in the present step, by any process; they count this time."""
        found = []
        for sample in self.ranks.joined([group.sample["sample_id"] for group in groups]):
            found.append(self.turns[sample])
            self.turns[sample] += 1
        return self.ranks.mine(found)

    def wave(self, step: int, groups: Sequence[Group], turns: Sequence[int], counts: Sequence[int]) -> list[Pool]:
        """Draw `counts` [M] responses on the views of each group; a view without any is not looked at.

        Seeded by (seed, step, sample, place of the view, draw); a sample that stands in a step again (its turn is not
        0) is drawn anew.
        """
        if not groups:
            return []
        chosen = [place for place, count in enumerate(counts) if count]
        with self.clock.phase("prompts"):
            prompts = self.prompts(groups, chosen)
        with self.clock.phase("vision"):
            features = self.encode(prompts)
        seeds = [
            [seed_of(self.config.seed, "train", step, g.sample["sample_id"], place, draw, *([turn] if turn else []))
             for draw in range(counts[place])]
            for g, turn in zip(groups, turns, strict=True) for place in chosen
        ]  # fmt: skip
        with self.clock.phase("rollout"):
            sampled = self.sample(prompts, features, seeds, len(chosen))
        with self.clock.phase("reward"):
            flat = [
                Drawn(p, f, s, [self.score(g, one) for one in s])
                for p, f, s, g in zip(prompts, features, sampled, [g for g in groups for _ in chosen], strict=True)
            ]
        rows = [flat[i : i + len(chosen)] for i in range(0, len(flat), len(chosen))]
        return [Pool(g, row, row[0]) for g, row in zip(groups, rows, strict=True)]

    def prompts(self, groups: Sequence[Group], places: Sequence[int]) -> list[Prompt]:
        """One prompt for each of these views, group after group.

        Raises:
            UserError: prompt and response together are longer than the model's context.
        """
        texts = [(g.sample["question"], g.sample["options"]) for g in groups for _ in places]
        prompts = self.policy.prompts([g.views[place] for g in groups for place in places], texts)
        self.check_context(max(len(p.ids) for p in prompts))
        return prompts

    def check_context(self, prompt: int) -> None:
        """Raises UserError when a prompt of so many tokens and the longest response are more than the model's context.

        The model would go on beyond it, and answer nonsense.
        """
        if prompt + self.config.max_tokens > self.context:
            raise UserError(
                f"--max-tokens {self.config.max_tokens} behind a prompt of {prompt} tokens",
                f"the policy's context is {self.context} tokens",
                f"set max_tokens to {max(1, self.context - prompt)} or less, or build variants of fewer frames",
            )

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Each view through the vision tower once; a frozen tower's features serve the update too."""
        with self.accelerator.autocast():
            return self.policy.encode(prompts)

    def sample(
        self, prompts: Sequence[Prompt], features: Sequence[VisionFeatures], seeds: Sequence[Sequence[int]], views: int
    ) -> list[list[Sampled]]:
        """Responses for each prompt, one a seed; `views` prompts make a pool."""
        c = self.config
        return self.passes.draw(
            prompts,
            features,
            seeds,
            together=views,
            side_by_side=c.rollout_batch,
            temperature=c.temperature,
            max_tokens=c.max_tokens,
            top_p=c.truncate[0],
            top_k=c.truncate[1],
        )

    def score(self, group: Group, sampled: Sampled) -> Reward:
        """What one response earns, by the rule of the settings."""
        s = group.sample
        truth = s["task"], s["options"], s["answer"], s["spans"]
        return score(self.policy.text(sampled), *truth, group.duration_s, self.rule)

    def cut(self, sampled: Sampled) -> bool:
        """Whether a response was cut off before its end."""
        return int(sampled.tokens[-1]) != self.policy.family.eos_id

    def refill(self, step: int, pools: Sequence[Pool], feed: Feed) -> tuple[list[Pool], list[Pool]]:
        """Replace dead pools by those of the next samples of the stream, each place at most `refill` times.

        DAPO's dynamic sampling (arXiv 2503.14476) with a bound. What replaces the dead pools of all processes is dealt
        anew, so that one whose pools all died draws no more than the others; all go through as many rounds.

        Returns:
            (the pools to train on, those that were replaced).
        """
        kept, replaced = list(pools), list[Pool]()
        for _ in range(self.config.refill):
            dead = [pool for pool in kept if pool.dead]
            with self.clock.phase("stream"):
                groups = feed.take(sum(self.ranks.gathered(len(dead))))
            fresh = self.draw(step, groups)
            replaced += dead
            kept = Pool.filled(kept, fresh)
        return kept, replaced

    def subsets(self, step: int, pools: Sequence[Pool]) -> list[Pool]:
        """The rollouts to train on: all, or of each pool those of greatest variance."""
        size, seed = self.config.train_subset, self.config.seed
        if not size:
            return list(pools)
        return [pool.subset(size, seed_of(seed, "subset", step, pool.group.sample["sample_id"])) for pool in pools]

    def advantages(self, pools: Sequence[Pool]) -> list[list[Tensor]]:
        """Advantages of each pool, float64 [G] for each of its views."""
        c = self.config
        rewards, tasks = [pool.rewards for pool in pools], [pool.group.sample["task"] for pool in pools]
        if c.scale == "task-ema":
            seen = self.ranks.joined(list(zip(tasks, rewards, strict=True)))
            self.scales.observe([t for t, _ in seen], [r for _, r in seen], c.advantage)
            found = [self.scales.advantages(t, r, c.advantage) for t, r in zip(tasks, rewards, strict=True)]
        else:
            found = [advantage.advantages(r, c.advantage, 1.0 if c.scale == "none" else None) for r in rewards]
        return [[torch.tensor(view, dtype=torch.float64) for view in pool] for pool in found]

    def live(self, pools: Sequence[Pool], advantages: Sequence[Sequence[Tensor]]) -> list[LiveRow]:
        """The rows to update on: live pools only, behind the view that the settings say."""
        return (rows_on_anchors if self.config.update_on == "anchor" else rows_on_own_views)(pools, advantages)

    def update(self, live: Sequence[LiveRow]) -> dict[str, float | None]:
        """The objective over all processes' live responses; without any, nothing is changed and nothing measured."""
        names = ("loss", "clip_fraction", "approx_kl", *(["kl"] if self.reference else []))
        counts = self.ranks.gathered((sum(sum(r.lengths) for r in live), sum(len(r.lengths) for r in live)))
        if not any(tokens for tokens, _ in counts):
            return dict.fromkeys((*names, "grad_norm"))
        c, objective = self.config, self.objective
        size = Size(sum(tokens for tokens, _ in counts), sum(responses for _, responses in counts))
        sums = dict.fromkeys(names, 0.0)
        self.optimizer.zero_grad(set_to_none=True)
        for part, logp, owners in self.passes.logprobs(live, c.micro_tokens, c.temperature):
            advantages = torch.cat([r.advantages for r in part]).to(self.policy.device)[owners].float()
            start = self.start(part)
            old = old_logprobs(part, logp)
            loss = objective.loss(logp, old, advantages, owners, size, start)
            self.accelerator.backward(loss)
            share = len(logp) / size.tokens
            sums["loss"] += loss.item()
            sums["clip_fraction"] += share * objective.clipped(logp.detach(), old, advantages, owners)
            sums["approx_kl"] += share * approx_kl(logp, old)
            if start is not None:
                sums["kl"] += share * k3(logp.detach(), start).mean().item()
        self.weights.sum_gradients()
        norm = self.weights.clip(c.max_grad_norm)
        found: dict[str, float | None] = {**self.ranks.summed(sums), "grad_norm": norm}
        if is_finite(found):
            self.optimizer.step()
            self.scheduler.step()
        return found

    def start(self, rows: Sequence[LiveRow]) -> Tensor | None:
        """Log-probs [R] of these rows under the policy that the run started from; None without a penalty."""
        if self.reference is None:
            return None
        packed = pack([r.row for r in rows], self.policy.family.pad_id, self.policy.device)
        with self.accelerator.autocast():
            return self.reference.logprobs(packed, rows, self.config.temperature)

    def stop_if_broken(
        self, step: int, pools: Sequence[Pool], advantages: Sequence[Sequence[Tensor]], update: dict[str, float | None]
    ) -> None:
        """Raises NotFiniteError when log-probs, loss or gradient are no numbers; the policy was not changed then."""
        drawn = [s.logprobs.double().sum().item() for pool in pools for view in pool.views for s in view.responses]
        found = {name: update[name] or 0.0 for name in ("loss", "grad_norm")}
        found |= self.ranks.summed({"log-probabilities": sum(drawn)})
        if not all(map(math.isfinite, found.values())):
            batch = self.ranks.joined(describe_batch(pools, advantages, self.policy.text))
            raise NotFiniteError(step + 1, found, batch)

    def state(self) -> dict[str, Any]:
        """Everything beside the weights and the place in the stream that the next step depends on."""
        return {
            "optimizer": self.weights.optimizer_state(self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "scales": self.scales.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.weights.load_optimizer(self.optimizer, state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scales.load_state_dict(state["scales"])
        checkpoint.restore_rng(state["rng"])
