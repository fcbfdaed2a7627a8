"""One side of benchmarks/step.py in a process of its own: steps of one way to train, timed from the inside.

python -m benchmarks.step_sides onepass mid 1000 --steps 5
"""

import argparse
import json
import os
import random
import resource
import time
from importlib.metadata import version
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_world import OPTIONS, SIZES, Case, build, build_processor, cases, conversation
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
    """One group a step on one view: rollout, made-up rewards, loss, AdamW; three ways to the same numbers."""

    def __init__(self, size: str, way: str, frozen: bool) -> None:
        self.processor = build_processor(SIZES[size].vocabulary)
        self.model, self.way, self.frozen = build(SIZES[size], self.processor), way, frozen
        self.family: Any = family_of(self.model, self.processor)
        self.family.eos_id = -1  # every response has all its tokens
        self.model.model.visual.requires_grad_(not frozen)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.processor_seconds = 0.0  # of the latest step
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR)

    def prompt(self, case: Case) -> Prompt:
        [head] = self.family.heads([case.view])
        return extend(head, self.family.tail(case.question, OPTIONS))

    def encode(self, prompts: list[Prompt]) -> list[VisionFeatures]:
        with as_products(self.model.model.visual):
            found: list[VisionFeatures] = self.family.encode(self.model, prompts)
        return found

    def step(self, case: Case, number: int) -> tuple[dict[str, float], float]:
        """`run` from the frames on."""
        begun, self.processor_seconds = time.perf_counter(), -time.process_time()
        prompt = self.prompt(case)
        made = time.perf_counter() - begun
        took, difference = self.run(prompt, number)
        return {"prompt": made, **took}, difference

    def run(self, prompt: Prompt, number: int) -> tuple[dict[str, float], float]:
        """Seconds by phase, and the largest difference between log-probs of rollout and loss."""
        before = time.process_time()
        kept = self.encode([prompt]) if self.way == "cached" else None
        self.processor_seconds -= time.process_time() - before
        marks: list[tuple[str, float]] = [("", time.perf_counter())]

        def mark(name: str) -> None:
            marks.append((name, time.perf_counter()))

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
        old = torch.cat([s.logprobs for s in sampled])
        self.optimizer.zero_grad(set_to_none=True)
        logp = self.logprobs(prompt, features, ready, sampled) if one else self.rows(prompt, features, sampled)
        mark("loss")
        each = advantages.repeat_interleave(torch.tensor([len(s.tokens) for s in sampled]))
        ppo_clip(logp, old, each).mean().backward()
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
        laid = lay_out([[Segment(s.tokens) for s in sampled]], self.family.pad_id)
        states = states_behind(self.model, ready, laid)
        return target_logprobs(self.model.lm_head, states, laid.targets, self.family.banned_ids, 1.0)

    def rows(self, prompt: Prompt, features: Any, sampled: list[Sampled]) -> Tensor:
        """Packed: all responses in the prompt's row. Plain: a row for each response, its view encoded again."""
        segments = [Segment(s.tokens) for s in sampled]
        rows = [Row(prompt, [s]) for s in segments] if self.way == "plain" else [Row(prompt, segments)]
        packed = pack(rows, self.family.pad_id)
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


def ours(size: str, way: str, length: int, frozen: bool, steps: int) -> dict[str, Any]:
    """Steps of our own, and the best one by phase."""
    trainer = Ours(size, way, frozen)
    found, processor = [], []
    for number, case in enumerate(cases(trainer.processor, length, steps)):
        found.append(trainer.step(case, number))
        processor.append(trainer.processor_seconds)
    best = min((phases for phases, _ in found), key=lambda phases: sum(phases.values()))
    return {
        "steps": [round(sum(phases.values()), 3) for phases, _ in found],
        "processor": [round(t, 3) for t in processor],
        "milliseconds": {name: round(1000 * s, 1) for name, s in best.items()},
        "decode_ms_a_token": round(1000 * best["decode"] / TOKENS, 2),
        "prompt": len(trainer.prompt(cases(trainer.processor, length, 1)[0]).ids),
        "largest_difference": max(difference for _, difference in found),
    }


def trl(size: str, length: int, frozen: bool, steps: int) -> dict[str, Any]:
    """Steps of TRL's GRPOTrainer on the same model and prompts, frames as images; from its own callbacks."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRL_EXPERIMENTAL_SILENCE="1")
    import transformers
    from datasets import Dataset  # type: ignore[import-untyped]
    from PIL import Image
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

    transformers.logging.set_verbosity_error()
    processor = build_processor(SIZES[size].vocabulary)
    model = build(SIZES[size], processor)
    model.model.visual.requires_grad_(not frozen)
    widths: set[int] = set()
    plain = model.model.language_model.forward

    def seen(*args: Any, **inputs: Any) -> Any:
        widths.add(inputs["inputs_embeds"].shape[1])
        return plain(*args, **inputs)

    model.model.language_model.forward = seen
    rows = []
    for case in cases(processor, length, steps):
        images = [Image.fromarray(f) for f in case.view.frames]
        messages = conversation(list(case.view.times), case.question)
        rows.append({"prompt": messages, "images": images})
    ticks: list[tuple[float, float]] = []

    def tick() -> None:
        ticks.append((time.perf_counter(), time.process_time()))

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **inputs: Any) -> None:
            tick()

        def on_step_end(self, *args: Any, **inputs: Any) -> None:
            tick()

    chance = random.Random(0)
    with TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=RESPONSES,
            num_generations=RESPONSES,
            max_completion_length=TOKENS,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            beta=0.0,
            learning_rate=LR,
            optim="adamw_torch",
            temperature=1.0,
            generation_kwargs={"min_new_tokens": TOKENS, "top_k": 0},
            max_steps=steps,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            shuffle_dataset=False,
        )
        run = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [chance.random() for _ in completions],
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            callbacks=[Watch()],
        )
        run.train()
    pairs = list(zip(ticks[::2], ticks[1::2], strict=True))
    return {
        "steps": [round(b[0] - a[0], 3) for a, b in pairs],
        "processor": [round(b[1] - a[1], 3) for a, b in pairs],
        "prompt": max(widths) - TOKENS,
        "trl": version("trl"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_sides", description=__doc__, allow_abbrev=False)
    parser.add_argument("side", choices=[*OURS, "trl"])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("length", type=int, help="tokens of the prompt")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-vision", action="store_true", help="train the vision tower too")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    frozen = not a.train_vision
    found = (
        trl(a.size, a.length, frozen, a.steps) if a.side == "trl" else ours(a.size, a.side, a.length, frozen, a.steps)
    )
    found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
