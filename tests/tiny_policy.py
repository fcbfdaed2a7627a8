"""Policies for tests: stock models of random weights, one of each family, their real processors, and a small tokenizer.

`full_row` is the plain way to log-probs: one full row for each response, pixels in, all logits; with the model's own
positions, but for Qwen2.5-VL, whose own are wrong for views that are not uniform in time.
"""

import string
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from pipeline.views import View
from trainer.families import Prompt
from trainer.policy import Policy

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PICTURE = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<row_2_col_1>"]
UTTERANCE = "<end_of_utterance>"
PATCH, MERGE, TEMPORAL = 16, 2, 2
SIDE = 64  # of a frame as the SmolVLM tower sees it: 4 tokens
QUESTION = ("what is it ?", ["red", "blue"])
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def characters(special: list[str]) -> Tokenizer:
    """A token is a character."""
    letters = ["?", *string.printable.replace("?", "")]
    backend = Tokenizer(WordLevel({c: i for i, c in enumerate(letters)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return backend


def byte_pairs(special: list[str], *texts: str) -> Tokenizer:
    """Byte pairs as those of published models, learned from texts: white space and words share tokens."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([t for t in texts for _ in range(4)], trainer)
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return backend


def wrapped(backend: Tokenizer, end: str, special: list[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=end,
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )


def qwen_parts(texts: tuple[str, ...]) -> tuple[PreTrainedTokenizerFast, dict[str, Any]]:
    """Tokenizer, and what the processors of pictures and videos share."""
    special = [PAD, START, END, *VISION]
    backend = byte_pairs(special, *texts) if texts else characters(special)
    sides = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 10**8}
    common = {"patch_size": PATCH, "temporal_patch_size": TEMPORAL, "merge_size": MERGE, "size": sides}
    return wrapped(backend, END, [START, *VISION]), common


def build_processor(*texts: str) -> Qwen3VLProcessor:
    """The stock processor; frames keep their size when its sides are multiples of 32. Without texts to learn byte pairs
    from, a token is a character."""
    tokenizer, common = qwen_parts(texts)
    video = Qwen3VLVideoProcessor(**common, do_sample_frames=False, cap_pixels_per_frame=False)
    return Qwen3VLProcessor(Qwen2VLImageProcessor(**common), tokenizer, video, chat_template=CHAT)


def build_processor_2_5(*texts: str) -> Qwen2_5_VLProcessor:
    """As `build_processor`."""
    tokenizer, common = qwen_parts(texts)
    video = Qwen2VLVideoProcessor(**common, do_sample_frames=False, cap_pixels_per_frame=False)
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**common), tokenizer, video, chat_template=CHAT)


def build_processor_smol(*texts: str) -> SmolVLMProcessor:
    """As `build_processor`; every frame becomes a square of SIDE pixels."""
    special = [PAD, START, UTTERANCE, *PICTURE]
    backend = byte_pairs(special, *texts) if texts else characters(special)
    edge = {"longest_edge": SIDE}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(size=edge, max_image_size=edge),
        wrapped(backend, UTTERANCE, [START, *PICTURE]),
        SmolVLMVideoProcessor(size=edge, max_image_size=edge, do_sample_frames=False, num_frames=64, fps=1),
        image_seq_len=4,
        chat_template=DEFAULT_CHAT_TEMPLATE,
    )


def small_text(processor: Any, end: str) -> dict[str, Any]:
    """The language model's part of a config."""
    ids = processor.tokenizer.convert_tokens_to_ids
    return {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "eos_token_id": ids(end),
        "pad_token_id": ids(PAD),
        "bos_token_id": None,
    }


def loud(model: Any) -> Any:
    """Weights large enough that inputs matter."""
    for module in model.eval().modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.06)
    return model


def build(seed: int = 0, *texts: str) -> tuple[Qwen3VLForConditionalGeneration, Qwen3VLProcessor]:
    """Model (float32) and processor."""
    torch.manual_seed(seed)
    processor = build_processor(*texts)
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            **small_text(processor, END),
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    return loud(Qwen3VLForConditionalGeneration(config)), processor


def build_2_5(seed: int = 0, *texts: str) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Model (float32) and processor: windowed attention in the tower, 2 ticks a second as published."""
    torch.manual_seed(seed)
    processor = build_processor_2_5(*texts)
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            **small_text(processor, END),
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "tokens_per_second": 2,
            "window_size": 2 * PATCH * MERGE,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    return loud(Qwen2_5_VLForConditionalGeneration(config)), processor


def build_smol(seed: int = 0, *texts: str) -> tuple[SmolVLMForConditionalGeneration, SmolVLMProcessor]:
    """Model (float32) and processor: 4 tokens a frame."""
    torch.manual_seed(seed)
    processor = build_processor_smol(*texts)
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **small_text(processor, UTTERANCE)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        scale_factor=2,
        image_token_id=processor.image_token_id,
    )
    return loud(SmolVLMForConditionalGeneration(config)), processor


BUILDERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "qwen3_vl": build,
    "qwen2_5_vl": build_2_5,
    "smolvlm": build_smol,
}
NEEDS_WORDS = pytest.mark.skipif(find_spec("num2words") is None, reason="needs num2words: the extra `smolvlm`")
EVERY = ["qwen3_vl", "qwen2_5_vl", pytest.param("smolvlm", marks=NEEDS_WORDS)]
"""Families to run a test over."""


def save(folder: Path, seed: int = 0, family: str = "qwen3_vl") -> Path:
    """The policy as a folder in transformers' layout."""
    model, processor = BUILDERS[family](seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def exact_policy(family: str = "qwen3_vl") -> Policy:
    """In float64, so that a difference is an error and not rounding."""
    model, processor = BUILDERS[family](0)
    return Policy(model.double(), processor, "tiny")


def view(frames: int, height: int = 64, width: int = 96, seed: int = 0) -> View:
    """Noise at times that are far apart and not uniform."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(600, frames, replace=False)) / 24
    return View(rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8), times)


def prompts(policy: Policy, *views: View) -> list[Prompt]:
    out = policy.prompts(views, [QUESTION] * len(views))
    return [Prompt(p.ids, p.types, p.positions, p.pixels.double(), p.grid) for p in out]


def some_responses(seed: int, *lengths: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 100, (n,), generator=rng) for n in lengths]


def stock_video(policy: Policy, prompt: Prompt) -> dict[str, Tensor]:
    """A prompt's pixels as the stock model takes them; nothing for a text-only prompt."""
    if not len(prompt.grid):
        return {}
    if policy.model.config.model_type == "smolvlm":
        return {"pixel_values": prompt.pixels.unflatten(1, (3, *prompt.grid[0, 1:].tolist()))[None]}
    return {"pixel_values_videos": prompt.pixels, "video_grid_thw": prompt.grid}


def full_row(policy: Policy, prompt: Prompt, response: Tensor, temperature: float) -> Tensor:
    """Log-probs [T] of a response, the plain way: one row, pixels in, all logits."""
    ids = torch.cat([prompt.ids, response])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **stock_video(policy, prompt)}
    if policy.model.config.model_type == "qwen3_vl":
        inputs["mm_token_type_ids"] = torch.cat([prompt.types, torch.zeros_like(response)])[None]
    if policy.model.config.model_type == "qwen2_5_vl":
        behind = prompt.next_position + torch.arange(len(response)).expand(3, -1)
        inputs["position_ids"] = torch.cat([prompt.positions, behind], dim=1)[:, None]
    logits = policy.model(**inputs).logits[0, len(prompt.ids) - 1 : -1] / temperature
    logits[:, policy.family.banned_ids] = -torch.inf
    return logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]
