"""What benchmarks/step.py trains: random Qwen3-VL models, a real processor, and prompts of a wanted length."""

import math
import string
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PATCH, MERGE, TEMPORAL, SIDE = 16, 2, 2, 224
PER_FRAME = (SIDE // PATCH // MERGE) ** 2
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPTIONS = ["red", "blue"]


@dataclass(frozen=True)
class Size:
    """Shape of a random model: language (width, layers, heads, key heads, inner width), vision (width, depth)."""

    text: tuple[int, int, int, int, int]
    vision: tuple[int, int]
    vocabulary: int


SIZES = {
    "tiny": Size(text=(192, 4, 6, 2, 512), vision=(128, 4), vocabulary=1536),
    "mid": Size(text=(384, 6, 6, 2, 1024), vision=(192, 6), vocabulary=4096),
}


def build_processor(vocabulary: int) -> Qwen3VLProcessor:
    """The stock processor with a tokenizer of single characters, filled up with words that no prompt has."""
    characters = ["?", *string.printable.replace("?", "")]
    fill = [f"w{i}" for i in range(vocabulary - len(characters) - 3 - len(VISION))]
    backend = Tokenizer(WordLevel({c: i for i, c in enumerate([*characters, *fill])}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, START, END, *VISION)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, *VISION],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=CHAT,
    )
    sides = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 10**8}
    common = {"patch_size": PATCH, "temporal_patch_size": TEMPORAL, "merge_size": MERGE, "size": sides}
    video = Qwen3VLVideoProcessor(**common, do_sample_frames=False, cap_pixels_per_frame=False)
    return Qwen3VLProcessor(Qwen2VLImageProcessor(**common), tokenizer, video, chat_template=CHAT)


def build(size: Size, processor: Any, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """A random model, float32; weights wide enough that its logits are not flat."""
    torch.manual_seed(seed)
    ids = processor.tokenizer.convert_tokens_to_ids
    width, layers, heads, key_heads, inner = size.text
    vision_width, depth = size.vision
    head = width // heads
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "head_dim": head,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
                "mrope_interleaved": True,
                "rope_theta": 1e6,
            },
            "bos_token_id": None,
            "eos_token_id": ids(END),
            "pad_token_id": ids(PAD),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_heads": 4,
            "out_hidden_size": width,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [depth // 3, 2 * depth // 3],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ids(END), ids(PAD)
    return model


@dataclass(frozen=True)
class Case:
    """One question about frames of noise: uint8 [n, SIDE, SIDE, 3], seconds [n]."""

    view: View
    question: str


def cases(processor: Any, length: int, count: int) -> list[Case]:
    """Prompts of `length` tokens each: as many frames as fit, the question filled up with letters."""
    rng = np.random.default_rng(0)
    text = len(processor.tokenizer(conversation_text([], ""), add_special_tokens=False).input_ids)
    a_frame = PER_FRAME + len("<00.0 seconds>") + 2
    frames = (length - text - 8) // a_frame
    times = 10 + np.arange(frames) / 2  # two digits before the point up to 99.5 s: 179 frames
    question = "x" * (length - text - frames * a_frame)
    return [
        Case(View(rng.integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8), times), question) for _ in range(count)
    ]


def conversation(times: list[float], question: str) -> list[dict[str, Any]]:
    """The prompt as messages with an image for each frame, each behind its time."""
    frames = [part for t in times for part in ({"type": "text", "text": f"<{t:.1f} seconds>"}, {"type": "image"})]
    asked = {"type": "text", "text": question_text(question, OPTIONS)}
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [*frames, asked]},
    ]


def conversation_text(times: list[float], question: str) -> str:
    """The text of a conversation without its images' tokens."""
    parts = [c["text"] for m in conversation(times, question) for c in m["content"] if "text" in c]
    return f"{START}system\n{parts[0]}{END}\n{START}user\n{''.join(parts[1:])}{END}\n{START}assistant\n"
