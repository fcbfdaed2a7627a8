"""The toy policy: a stock Qwen3-VL of 2.5 million parameters, taught to be mid-way good.

Its vision tower starts from the scorer's and learns to name what a frame shows. Then the language model learns to
answer questions on views with the evidence in sight, with a dense caption of every view beside them; it stops when it
is right about half of the time, so that reinforcement learning has something left to teach. Every lesson is about a
fresh scene: a few hundred clips would be learnt by heart.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from pipeline.rewards import score
from pipeline.views import View
from toyworld.lessons import CLASSES, VIEW_FRAMES, attributes, lesson, study_view
from toyworld.questions import Question, ask, in_view
from toyworld.scenes import COLORS, SHAPES, Scene
from toyworld.scorer import fresh_batch
from toyworld.tokenizer import PATCH, build_processor, build_tokenizer
from trainer.policy import Policy, load_policy
from trainer.rollout import rollout
from trainer.sft import learning_rate, lesson_rows, sft_step

Log = Callable[[str], None]

MAX_TOKENS = 24

VISION_STEPS, VISION_LR = 220, 2e-3
EMBEDDING_STD = 0.1
STEPS, BATCH, LR, WARMUP = 700, 20, 2e-3, 40
EXAM_EVERY = 50
STOP_AT, FORMAT_RATE = 0.5, 0.98
"""Held-out accuracy with the evidence in view at which teaching stops, and the format rate that it must have."""


@dataclass(frozen=True)
class Clip:
    """A scene with its decoded frames uint8 [n, 96, 96, 3] and their true times float64 [n]."""

    scene: Scene
    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]


def build_config(tokenizer: Any) -> Qwen3VLConfig:
    """The stock configuration, shrunk: 4 layers of width 128; a 96-pixel frame is 4 tokens."""
    ids = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "initializer_range": 0.05,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_heads": 4,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [1],
            "initializer_range": 0.05,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_policy(seed: int) -> Policy:
    """A policy with random weights."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = Qwen3VLForConditionalGeneration(build_config(tokenizer))
    # Tied embeddings of the default size leave the logits nearly flat at this width.
    nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Policy(model.eval(), build_processor(tokenizer), "untrained")


class Namer(nn.Module):
    """Names what a frame shows from the mean of its tokens; thrown away after the lesson.

    Colour and shape are read by the language model's own word embeddings: a frame of a red square comes to point where
    the words "red" and "square" point, so that matching a question with a frame is matching equal vectors. The other
    attributes, whose words are ambiguous ("left" is a place and a direction), have linear heads.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        words = policy.model.get_input_embeddings().weight.detach()
        ids = policy.processor.tokenizer.convert_tokens_to_ids
        self.named = [words[ids(["nothing", *names])] for names in (list(COLORS), list(SHAPES))]
        self.others = nn.ModuleList([nn.Linear(words.shape[1], n) for n in CLASSES[2:]])

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits of each attribute, [n, classes], from tokens [n, v, H], read as even attention reads normed tokens."""
        mean = F.rms_norm(tokens, tokens.shape[-1:]).mean(1)
        return [mean @ words.T for words in self.named] + [head(mean) for head in self.others]


def loudness(tokens: Tensor) -> Tensor:
    """How far tokens [n, H] are from the size of word embeddings: louder ones drown what attention adds to them."""
    return (tokens.square().mean(-1).sqrt() / EMBEDDING_STD).log().square().mean()


@torch.no_grad()
def adopt_eyes(policy: Policy, scorer: Path) -> None:
    """Start the vision tower from the scorer's: patches, positions and blocks have the same shapes.

    The towers differ in what surrounds the blocks (the scorer has a class token and a norm before them, the policy
    rotates its queries and keys), so this is a start that saves most of the learning, not a copy.
    """
    state = load_file(scorer / "open_clip_model.safetensors")
    eyes = {name.removeprefix("visual."): value.float() for name, value in state.items() if name.startswith("visual.")}
    visual: Any = policy.family.vision(policy.model)
    gain = eyes["ln_pre.weight"] / eyes["conv1.weight"].flatten(1).norm(dim=1)
    patches = eyes["conv1.weight"] * gain[:, None, None, None]
    # A frame is shown twice, to fill a temporal patch: each of the two shares half of the weight.
    visual.patch_embed.proj.weight.copy_(patches[:, :, None].expand(-1, -1, 2, -1, -1) / 2)
    visual.patch_embed.proj.bias.copy_(eyes["ln_pre.bias"])
    visual.pos_embed.weight.copy_(eyes["positional_embedding"][1:] * gain[None])
    for i, block in enumerate(visual.blocks):
        names = {
            "norm1": "ln_1",
            "norm2": "ln_2",
            "attn.proj": "attn.out_proj",
            "mlp.linear_fc1": "mlp.c_fc",
            "mlp.linear_fc2": "mlp.c_proj",
        }
        there = f"transformer.resblocks.{i}."
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                block.get_parameter(f"{ours}.{part}").copy_(eyes[f"{there}{theirs}.{part}"])
        block.attn.qkv.weight.copy_(eyes[f"{there}attn.in_proj_weight"])
        block.attn.qkv.bias.copy_(eyes[f"{there}attn.in_proj_bias"])


def teach_vision(policy: Policy, seed: int, log: Log) -> None:
    """Teach the vision tower to name a frame's attributes, after the merger and after each deepstack merger."""
    rng = np.random.default_rng(seed)
    visual: Any = policy.family.vision(policy.model)
    namers = nn.ModuleList([Namer(policy) for _ in range(1 + len(visual.config.deepstack_visual_indexes))])
    optimizer = torch.optim.AdamW([*visual.parameters(), *namers.parameters()], betas=(0.9, 0.98), weight_decay=0.02)
    for step in range(VISION_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, VISION_STEPS, VISION_LR, 30, 0.05)
        frames, shown = fresh_batch(rng)
        batch, truth = len(frames), torch.tensor([attributes(event) for event in shown])
        with torch.autocast("cpu", torch.bfloat16):
            features = policy.encode(policy.family.heads([View(frames, np.zeros(batch))]))[0]
        losses, right = [], []
        for namer, tokens in zip(
            namers, [features.pooled.float(), *(d.float() for d in features.deepstack)], strict=True
        ):
            logits = namer(tokens.view(batch, -1, tokens.shape[-1]))
            losses += [F.cross_entropy(x, truth[:, i]) for i, x in enumerate(logits)]
            losses.append(loudness(tokens))
            right += [(x.argmax(1) == truth[:, i]).float().mean().item() for i, x in enumerate(logits)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(visual.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            log(
                f"vision {step + 1}/{VISION_STEPS}: loss {loss.item():.2f}, right "
                + " ".join(f"{r:.2f}" for r in right)
            )


def teach_answers(policy: Policy, held_out: Sequence[Clip], seed: int, log: Log, most: int = STEPS) -> int:
    """Teach the language model to answer, until STOP_AT is reached with the evidence in view.

    The vision tower stays as it is: noisy first gradients would undo what it has learnt.

    Args:
        held_out: clips of the exams; none: no exams. most: steps after which teaching ends in any case.

    Returns:
        The number of steps taken.
    """
    rng = np.random.default_rng(seed)
    policy.family.vision(policy.model).requires_grad_(False)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.02)
    losses: list[float] = []
    for step in range(most):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, LR, WARMUP)
        rows = lesson_rows(policy, [lesson(rng) for _ in range(BATCH)])
        losses.append(sft_step(policy, optimizer, rows, max_grad_norm=1.0, autocast=True)["loss"])
        if held_out and (step + 1) % EXAM_EVERY == 0:
            reached = examine(policy, held_out, seed)
            log(f"answers {step + 1}/{STEPS}: loss {np.mean(losses[-EXAM_EVERY:]):.3f}, {json.dumps(reached)}")
            if reached["accuracy_in_view"] >= STOP_AT and reached["format_rate"] >= FORMAT_RATE:
                return step + 1
    return most


def train(out: Path, scorer: Path, held_out: Sequence[Clip], seed: int, log: Log) -> dict[str, Any]:
    """Teach a policy and save it as float16 safetensors in transformers' layout.

    Returns:
        What the saved policy reaches on held-out clips (`examine`), and the steps taken.
    """
    policy = build_policy(seed)
    adopt_eyes(policy, scorer)
    teach_vision(policy, seed, log)
    taken = teach_answers(policy, held_out, seed, log)
    policy.model.half()
    policy.save(out)
    return {"steps": taken, **examine(load_policy(out), held_out, seed + 1)}


def examine(policy: Policy, clips: Sequence[Clip], seed: int, per_clip: int = 5) -> dict[str, Any]:
    """Greedy answers to held-out questions, half of the views with the evidence in sight, half sampled uniformly."""
    rng = np.random.default_rng(seed)
    views: list[View] = []
    questions: list[Question] = []
    hits: list[bool] = []
    for clip in clips:
        pool = ask(clip.scene, rng)
        for i in rng.permutation(len(pool))[:per_clip]:
            q = pool[int(i)]
            uniform = (np.arange(VIEW_FRAMES) + 0.5) * len(clip.times) / VIEW_FRAMES
            for indices in (study_view(clip.scene, rng), uniform.astype(int)):
                views.append(View(clip.frames[indices], clip.times[indices]))
                questions.append(q)
                hits.append(in_view(q.evidence, list(clip.times[indices])))
    rewards = []
    for i in range(0, len(views), 60):
        part = slice(i, i + 60)
        prompts = policy.prompts(views[part], [(q.question, q.options) for q in questions[part]])
        with torch.no_grad():
            features = policy.encode(prompts)
        out = rollout(
            policy.model, policy.family, prompts, features, [[0]] * len(prompts), temperature=0, max_tokens=MAX_TOKENS
        )
        rewards += [
            score(policy.text(s[0]), q.task, q.options, q.answer, q.spans)
            for s, q in zip(out, questions[part], strict=True)
        ]
    by_kind: dict[str, list[float]] = {}
    for r, q, hit in zip(rewards, questions, hits, strict=True):
        if hit:
            by_kind.setdefault(q.kind, []).append(r.reward)
    seen = [r.reward for r, hit in zip(rewards, hits, strict=True) if hit]
    missed = [r.reward for r, hit in zip(rewards, hits, strict=True) if not hit]
    return {
        "format_rate": float(np.mean([r.format for r in rewards])),
        "accuracy_in_view": float(np.mean(seen)),
        "accuracy_out_of_view": float(np.mean(missed)),
        "by_kind_in_view": {k: round(float(np.mean(v)), 3) for k, v in sorted(by_kind.items())},
        "answers": len(rewards),
    }
