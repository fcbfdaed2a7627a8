"""The toy world's tokenizer (whole words) and the stock Qwen3-VL processor around it."""

import re

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

from pipeline.prompts import SYSTEM
from toyworld.questions import all_words, clock
from toyworld.scenes import SECONDS, SIZE

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
MARKS = ("<think>", "</think>", "<answer>", "</answer>")  # plain tokens: they stay in decoded text
UNKNOWN = "<unk>"
ROLES = ("system", "user", "assistant")

PATCH, MERGE = 24, 2
PIECES = r"\d+\.\d+|\w+|[^\w\s]"  # a decimal number is one piece, all other punctuation stands alone

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def vocabulary() -> dict[str, int]:
    """Token -> id: special tokens, marks, words, then the times 0.0 to 12.0; no gaps."""
    system = re.findall(PIECES, re.sub(r"</?\w+>", " ", SYSTEM))
    times = [clock(k / 10) for k in range(10 * SECONDS + 1)]
    tokens = [PAD, UNKNOWN, START, END, *VISION, *MARKS, *ROLES, *all_words(), *system, *times]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def _backend() -> Tokenizer:
    backend = Tokenizer(WordLevel(vocabulary(), unk_token=UNKNOWN))
    # A frame's time comes as "<3.2 seconds>": without its wrapper it is the same token as the time in a response.
    backend.normalizer = normalizers.Sequence([normalizers.Replace(" seconds>", " "), normalizers.Replace("<", " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(PIECES), behavior="isolated")]
    )
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, START, END, *VISION)])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKS])
    return backend


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The policy's tokenizer. Any text encodes (unknown words as <unk>); decoding joins tokens by single spaces."""
    return _wrap(_backend(), "right")


def build_clip_tokenizer(context_length: int) -> PreTrainedTokenizerFast:
    """The scorer's tokenizer: the same words, and an end token after every text, where the text tower pools."""
    backend = _backend()
    end = backend.token_to_id(END)
    backend.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    tokenizer = _wrap(backend, "right")
    tokenizer.model_max_length = context_length
    return tokenizer


def _wrap(backend: Tokenizer, padding_side: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[START, *VISION],
        padding_side=padding_side,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """A stock Qwen3-VL processor for frames of 96x96: 4 tokens for every two frames, and no resizing of such frames."""
    limits = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": SIZE * SIZE * 1024}
    image = Qwen2VLImageProcessor(patch_size=PATCH, temporal_patch_size=2, merge_size=MERGE, size=limits)
    video = Qwen3VLVideoProcessor(
        patch_size=PATCH,
        temporal_patch_size=2,
        merge_size=MERGE,
        size=limits,
        do_sample_frames=False,
        cap_pixels_per_frame=False,
    )
    return Qwen3VLProcessor(image, tokenizer, video, chat_template=CHAT_TEMPLATE)
