"""What benchmarks/step.py shows its models: a real processor, and prompts of a wanted length."""

import string
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

from benchmarks.step_models import END, MERGE, PAD, PATCH, PER_FRAME, SIDE, START, TEMPORAL, VISION
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPTIONS = ["red", "blue"]
STAMP = len("<00.0 seconds>")
A_FRAME = STAMP + PER_FRAME + 2
"""Tokens of a frame: its time, its start, what is seen, its end."""


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


@dataclass(frozen=True)
class Case:
    """One question about frames of noise: uint8 [n, SIDE, SIDE, 3], seconds [n]."""

    view: View
    question: str


def frames_in(length: int, text: int) -> int:
    """Frames of a prompt of `length` tokens, `text` of which stand around the frames and the question."""
    return (length - text - 8) // A_FRAME


def cases(processor: Any, length: int, count: int) -> list[Case]:
    """Prompts of `length` tokens each: as many frames as fit, the question filled up with letters."""
    rng = np.random.default_rng(0)
    text = len(processor.tokenizer(conversation_text([], ""), add_special_tokens=False).input_ids)
    frames = frames_in(length, text)
    times = 10 + np.arange(frames) / 2  # two digits before the point up to 99.5 s: 179 frames
    question = "x" * (length - text - frames * A_FRAME)
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
