"""Our sides of benchmarks/step.py, each in a process of its own: steps of one way to train, timed from the inside.

python -m benchmarks.step_sides onepass mid 1000 --steps 5
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_models import SIZES, build
from trainer.families import Prompt, VisionFeatures, extend, family_of
from trainer.logits import target_logprobs
from trainer.loss import ppo_clip
from trainer.onepass import lay_out, states_behind
from trainer.packing import Row, Segment, pack
from trainer.patches import as_products
from trainer.rollout import Sampled, decode, prefill

RESPONSES, TOKENS, LR = 8, 64, 1e-5
OURS = ("onepass", "cached", "packed", "plain")
"""One prompt pass for rollout and loss; the same with the frozen tower's features at hand, as a cache of them gives;
prefill once and packed rows; full rows, as most trainers have them."""


class Ours:
    """One group a step on one view: rollout, made-up rewards, loss, AdamW; four ways to the same numbers.

    Attributes:
        processor_seconds: of the latest step.
    """

    def __init__(self, model: Any, family: Any, way: str, frozen: bool) -> None:
        self.model, self.family, self.way, self.frozen = model, family, way, frozen
        self.family.eos_id = -1  # every response has all its tokens
        self.model.model.visual.requires_grad_(not frozen)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.processor_seconds = 0.0
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR)

    def encode(self, prompts: list[Prompt]) -> list[VisionFeatures]:
        with as_products(self.model.model.visual):
            found: list[VisionFeatures] = self.family.encode(self.model, prompts)
        return found

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self, prompt: Callable[[], Prompt], number: int) -> tuple[dict[str, float], float]:
        """`run` from the making of its prompt on."""
        begun, self.processor_seconds = self.now(), -time.process_time()
        one = prompt()
        made = self.now() - begun
        took, difference = self.run(one, number)
        return {"prompt": made, **took}, difference

    def run(self, prompt: Prompt, number: int) -> tuple[dict[str, float], float]:
        """Seconds by phase, and the largest difference between log-probs of rollout and loss."""
        before = time.process_time()
        kept = self.encode([prompt]) if self.way == "cached" else None
        self.processor_seconds -= time.process_time() - before
        marks: list[tuple[str, float]] = [("", self.now())]

        def mark(name: str) -> None:
            marks.append((name, self.now()))

        one = self.way in ("onepass", "cached")
        with torch.set_grad_enabled(one and not self.frozen and kept is None):
            features = kept or self.encode([prompt])
        mark("vision")
        copies = RESPONSES if self.way == "plain" else 1
        if self.way == "plain":
            with torch.no_grad():
                features = self.encode([prompt] * copies)
            mark("vision")
        ready = prefill(self.model, self.family, [prompt] * copies, features, gradient=one, stock=not one)
        mark("prefill")
        seeds = [1000 * number + draw for draw in range(RESPONSES)]
        split = [[s] for s in seeds] if self.way == "plain" else [seeds]
        drawn = decode(self.model, self.family, ready, range(copies), split, temperature=1.0, max_tokens=TOKENS)
        sampled = [s for group in drawn for s in group]
        mark("decode")
        rewards = torch.tensor([random.Random(s).random() for s in seeds])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        old = torch.cat([s.logprobs for s in sampled]).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        logp = self.logprobs(prompt, features, ready, sampled) if one else self.rows(prompt, features, sampled)
        mark("loss")
        each = advantages.repeat_interleave(torch.tensor([len(s.tokens) for s in sampled]))
        ppo_clip(logp, old, each.to(self.device)).mean().backward()
        mark("backward")
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        mark("optimizer")
        self.processor_seconds += time.process_time()
        took: dict[str, float] = {}
        for (_, a), (name, b) in pairwise(marks):
            took[name] = took.get(name, 0.0) + b - a
        return took, float((logp.detach() - old).abs().max())

    def logprobs(self, prompt: Prompt, features: Any, ready: Any, sampled: list[Sampled]) -> Tensor:
        laid = lay_out([[Segment(s.tokens) for s in sampled]], self.family.pad_id, self.device)
        states = states_behind(self.model, ready, laid)
        return target_logprobs(self.model.lm_head, states, laid.targets, self.family.banned_ids, 1.0)

    def rows(self, prompt: Prompt, features: Any, sampled: list[Sampled]) -> Tensor:
        """Packed: all responses in the prompt's row. Plain: a row for each response, its view encoded again."""
        segments = [Segment(s.tokens) for s in sampled]
        rows = [Row(prompt, [s]) for s in segments] if self.way == "plain" else [Row(prompt, segments)]
        packed = pack(rows, self.family.pad_id, self.device)
        if self.way == "plain" or not self.frozen:
            with torch.set_grad_enabled(not self.frozen):
                features = self.encode([prompt] * len(rows))
        out = self.family.hidden(
            self.model,
            features,
            input_ids=packed.ids,
            attention_mask=torch.ones_like(packed.ids) if self.way == "plain" else packed.mask(),
            position_ids=packed.positions,
            use_cache=False,
        )
        states = out.last_hidden_state[packed.rows, packed.sources]
        return target_logprobs(self.model.lm_head, states, packed.targets, self.family.banned_ids, 1.0)


def figures_of(side: Ours, prompts: list[Callable[[], Prompt]]) -> dict[str, Any]:
    """A step on each prompt, and the best one by phase."""
    found, processor = [], []
    for number, prompt in enumerate(prompts):
        found.append(side.step(prompt, number))
        processor.append(side.processor_seconds)
    best = min((phases for phases, _ in found), key=lambda phases: sum(phases.values()))
    return {
        "steps": [round(sum(phases.values()), 3) for phases, _ in found],
        "processor": [round(t, 3) for t in processor],
        "milliseconds": {name: round(1000 * s, 1) for name, s in best.items()},
        "decode_ms_a_token": round(1000 * best["decode"] / TOKENS, 2),
        "prompt": len(prompts[0]().ids),
        "largest_difference": max(difference for _, difference in found),
    }


def with_processor(
    size: str, way: str, frozen: bool, length: int, steps: int
) -> tuple[Ours, list[Callable[[], Prompt]]]:
    """A side on a CPU, and prompts that its family makes of frames."""
    from benchmarks.step_world import OPTIONS, build_processor, cases

    processor = build_processor(SIZES[size].vocabulary)
    model = build(SIZES[size], processor.tokenizer.convert_tokens_to_ids)
    family = family_of(model, processor)

    def prompt(case: Any) -> Prompt:
        [head] = family.heads([case.view])
        return extend(head, family.tail(case.question, OPTIONS))

    some = cases(processor, length, steps)
    return Ours(model, family, way, frozen), [lambda case=case: prompt(case) for case in some]  # type: ignore[misc]


def ours(size: str, way: str, length: int, frozen: bool, steps: int) -> dict[str, Any]:
    """Steps of our own on a CPU."""
    return figures_of(*with_processor(size, way, frozen, length, steps))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_sides", description=__doc__, allow_abbrev=False)
    parser.add_argument("side", choices=[*OURS, "trl"])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("length", type=int, help="tokens of the prompt")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bare", action="store_true", help="prompts from memory, without a processor; always on cuda")
    parser.add_argument("--train-vision", action="store_true", help="train the vision tower too")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    frozen = not a.train_vision
    cuda = a.device == "cuda"
    if a.side == "trl":
        from benchmarks.step_trl import trl

        found = trl(a.size, a.length, frozen, a.steps, a.device)
    elif a.bare or cuda:
        from benchmarks.step_bare import bare

        found = bare(a.size, a.side, a.length, frozen, a.steps, a.device)
    else:
        found = ours(a.size, a.side, a.length, frozen, a.steps)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    found["peak_mib"] = round(peak)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
