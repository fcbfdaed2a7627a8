"""A policy for tests: a stock Qwen3-VL of random weights, its real processor, and a tokenizer of single characters.

`full_row` is the plain way to log-probs: one full row for each response, with the model's own positions.
"""

import string
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from pipeline.views import View
from trainer.families import Prompt
from trainer.policy import Policy

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PATCH, MERGE, TEMPORAL = 16, 2, 2
QUESTION = ("what is it ?", ["red", "blue"])
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_processor() -> Qwen3VLProcessor:
    """The stock processor; frames keep their size when its sides are multiples of 32."""
    characters = ["?", *string.printable.replace("?", "")]
    backend = Tokenizer(WordLevel({c: i for i, c in enumerate(characters)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, START, END, *VISION)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, *VISION],
        clean_up_tokenization_spaces=False,
    )
    sides = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 10**8}
    common = {"patch_size": PATCH, "temporal_patch_size": TEMPORAL, "merge_size": MERGE, "size": sides}
    video = Qwen3VLVideoProcessor(**common, do_sample_frames=False, cap_pixels_per_frame=False)
    return Qwen3VLProcessor(Qwen2VLImageProcessor(**common), tokenizer, video, chat_template=CHAT)


def build(seed: int = 0) -> tuple[Qwen3VLForConditionalGeneration, Qwen3VLProcessor]:
    """Model (float32) and processor."""
    torch.manual_seed(seed)
    processor = build_processor()
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
            "eos_token_id": ids(END),
            "pad_token_id": ids(PAD),
            "bos_token_id": None,
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
    model = Qwen3VLForConditionalGeneration(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.06)
    return model, processor


def save(folder: Path, seed: int = 0) -> Path:
    """The policy as a folder in transformers' layout."""
    model, processor = build(seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def exact_policy() -> Policy:
    """In float64, so that a difference is an error and not rounding."""
    model, processor = build()
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


def full_row(policy: Policy, prompt: Prompt, response: Tensor, temperature: float) -> Tensor:
    """Log-probs [T] of a response, the plain way: one row, pixels in, the model's own positions, all logits."""
    ids = torch.cat([prompt.ids, response])[None]
    types = torch.cat([prompt.types, torch.zeros_like(response)])[None]
    logits = policy.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=types,
        pixel_values_videos=prompt.pixels,
        video_grid_thw=prompt.grid,
    ).logits[0, len(prompt.ids) - 1 : -1]
    logits = logits / temperature
    logits[:, policy.family.banned_ids] = -torch.inf
    return logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]
