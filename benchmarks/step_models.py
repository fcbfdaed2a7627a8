"""The random Qwen3-VL models that benchmarks/step.py trains, from a few thousand to billions of weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PATCH, MERGE, TEMPORAL, SIDE = 16, 2, 2, 224
PER_FRAME = (SIDE // PATCH // MERGE) ** 2


@dataclass(frozen=True)
class Size:
    """Shape of a random model: language (width, layers, heads, key heads, inner), vision (width, depth, heads)."""

    text: tuple[int, int, int, int, int]
    vision: tuple[int, int, int]
    vocabulary: int
    tied: bool = True


SIZES = {
    "tiny": Size(text=(192, 4, 6, 2, 512), vision=(128, 4, 4), vocabulary=1536),
    "mid": Size(text=(384, 6, 6, 2, 1024), vision=(192, 6, 4), vocabulary=4096),
    "2b": Size(text=(2048, 28, 16, 8, 6144), vision=(1024, 24, 16), vocabulary=151_936),
    "7b": Size(text=(3584, 28, 28, 4, 18_944), vision=(1152, 27, 16), vocabulary=151_936, tied=False),
}
"""Two that a CPU trains in seconds, and two of the widths of Qwen3-VL-2B and of Qwen2.5-VL-7B's language model."""


def build(
    size: Size,
    ids: Callable[[str], int],
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Qwen3VLForConditionalGeneration:
    """A random model; weights wide enough that its logits are not flat.

    Args:
        ids: the number of a special token.
    """
    torch.manual_seed(seed)
    width, layers, heads, key_heads, inner = size.text
    vision_width, depth, vision_heads = size.vision
    head = width // heads
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": size.vocabulary,
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
            "tie_word_embeddings": size.tied,
        },
        vision_config={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_heads": vision_heads,
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
        tie_word_embeddings=size.tied,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen3VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ids(END), ids(PAD)
    return model
