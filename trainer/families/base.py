"""What the trainer knows of a model family: prompts, vision features, and the interface between them.

Legend of shapes: P prompt tokens, N vision patches, D features of a patch, V vision tokens, H hidden size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View
from trainer.families.positions import TEXT

PIXELS = {"cpu": 2**21}
"""Pixel values that pass through the tower at a time, without a gradient: on a CPU as many as its cache can follow."""
MOST_PIXELS = 2**28
"""The same on other devices, a GiB of float32."""

_MARKER = "QUESTION"  # stands for the user's text where a chat template is taken apart


@dataclass(frozen=True)
class Prompt:
    """One view and its text, ready for the model.

    ids, types: long [P]. positions: long [3, P]: time, row and column where a family has them (M-RoPE), else three
    equal rows. pixels: float32 [N, D]. grid: long [1, 3]: what the N rows of pixels are, time first.
    A text-only prompt, of a view without frames, has N = 0 and a grid of [0, 3].
    """

    ids: Tensor
    types: Tensor
    positions: Tensor
    pixels: Tensor
    grid: Tensor

    @property
    def next_position(self) -> int:
        """Position of the first token after the prompt."""
        return int(self.positions.max()) + 1


@dataclass(frozen=True)
class VisionFeatures:
    """What the vision tower made of one view: pooled [V, H], and [V, H] for each deepstack layer (few have any)."""

    pooled: Tensor
    deepstack: tuple[Tensor, ...]


class Family(Protocol):
    """What the trainer needs to know about a model family."""

    banned_ids: list[int]  # vision tokens: never sampled, masked in log-probs alike
    eos_id: int
    pad_id: int

    def heads(self, views: Sequence[View]) -> list[Prompt]:
        """Prompts that end right after the video: what all questions about one view share.

        The prompt of a view without frames has no video: it ends where the question's text begins.
        """
        ...

    def tail(self, question: str, options: Sequence[str], *, seen: bool = True) -> Tensor:
        """Tokens from the end of a head to the start of the response, long [n].

        Args:
            seen: the head holds a video; False for that of a view without frames.
        """
        ...

    def response(self, text: str) -> Tensor:
        """Tokens of a written response as the model would write it, its end token included, long [n]."""
        ...

    def vision(self, model: Any) -> nn.Module:
        """The vision tower, with whatever joins it to the language model."""
        ...

    def language(self, model: Any) -> nn.Module:
        """The language model, without its head."""
        ...

    def encode(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Run the vision tower once for all prompts that have a video; V = 0 for those that have none."""
        ...

    def hidden(self, model: Any, features: Sequence[VisionFeatures] | None, **inputs: Any) -> Any:
        """The language model's output (last_hidden_state, past_key_values) for explicit ids, mask and positions.

        Args:
            features: of all videos among the ids, in their order.
            inputs: input_ids [B, L], attention_mask, position_ids [3, B, L], past_key_values, use_cache.
        """
        ...


def extend(prompt: Prompt, tail: Tensor) -> Prompt:
    """Append text tokens [n] to a prompt; their positions continue after it."""
    n = len(tail)
    steps = (torch.arange(n) + prompt.next_position).expand(3, n)
    return Prompt(
        ids=torch.cat([prompt.ids, tail]),
        types=torch.cat([prompt.types, torch.full((n,), TEXT)]),
        positions=torch.cat([prompt.positions, steps], dim=1),
        pixels=prompt.pixels,
        grid=prompt.grid,
    )


class ChatFamily:
    """What families share: the text around a video, cut out of the chat template that the model was published with.

    A family adds how a video becomes tokens (`video_heads`), and how the tower and the language model are called.
    """

    def __init__(self, processor: Any, placeholder: str, banned_ids: set[int], eos_id: int) -> None:
        """
        Args:
            placeholder: what the template writes for a video.

        Raises:
            UserError: the template does not put one video before the question.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.banned_ids = sorted(banned_ids)
        self.eos_id = eos_id
        self.pad_id: int = eos_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        self.before, self.between, self.after = self._split_template(placeholder)

    def _split_template(self, placeholder: str) -> tuple[str, str, str]:
        """The template's text before the video, up to the question and behind it; a marker stands for the question."""
        text = self._template([{"type": "video"}, {"type": "text", "text": _MARKER}])
        if text.count(placeholder) != 1 or text.count(_MARKER) != 1 or text.index(placeholder) > text.index(_MARKER):
            raise UserError(
                "the policy's chat template",
                "expected one video placeholder, then the question's text",
                "use the chat template that the model was published with",
            )
        before, rest = text.split(placeholder)
        between, after = rest.split(_MARKER)
        return before, between, after

    def _template(self, content: list[dict[str, str]]) -> str:
        """The chat template's text around what the user says, up to where the response begins."""
        messages = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            {"role": "user", "content": content},
        ]
        text: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def tokens(self, text: str, literal: bool = False) -> Tensor:
        """Token ids, long [n]; in literal text the name of a special token is letters like any other."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=literal).input_ids
        return torch.tensor(ids, dtype=torch.long)

    def heads(self, views: Sequence[View]) -> list[Prompt]:
        """See `Family.heads`.

        Raises:
            UserError: a view has no frames, and the chat template words the rest differently without a video.
        """
        shown = [v for v in views if len(v.frames)]
        with_video = iter(self.video_heads(shown) if shown else [])
        return [next(with_video) if len(v.frames) else self._text_head() for v in views]

    def video_heads(self, views: Sequence[View]) -> list[Prompt]:
        """Heads of views that all have frames."""
        raise NotImplementedError

    def pixel_features(self) -> int:
        """D, of which a text-only prompt has no rows."""
        raise NotImplementedError

    def blind_text(self) -> str:
        """What stands before a tail where there is no video."""
        return self.before

    def _text_head(self) -> Prompt:
        text = self.before + self.between + _MARKER + self.after
        if self._template([{"type": "text", "text": _MARKER}]) != text:
            raise UserError(
                "the policy's chat template",
                "expected the same text around the question with and without a video",
                "use the chat template that the model was published with",
            )
        ids = self.tokens(self.blind_text())
        return Prompt(
            ids=ids,
            types=torch.full_like(ids, TEXT),
            positions=torch.arange(len(ids)).expand(3, -1),
            pixels=torch.empty(0, self.pixel_features()),
            grid=torch.empty(0, 3, dtype=torch.long),
        )

    def tail(self, question: str, options: Sequence[str], *, seen: bool = True) -> Tensor:
        # A question that spells a vision token or the end of a turn must not become one.
        asked = self.tokens(question_text(question, options), literal=True)
        return torch.cat([self.tokens(self.between), asked, self.tokens(self.after)])

    def response(self, text: str) -> Tensor:
        return torch.cat([self.tokens(text), torch.tensor([self.eos_id])])

    def encode(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        shown = [p for p in prompts if len(p.grid)]
        if torch.is_grad_enabled():
            seen = iter(self.encode_videos(model, shown) if shown else [])
        else:
            seen = iter(self.encode_frames(model, shown))
        return [next(seen) if len(p.grid) else self.no_features(model) for p in prompts]

    def encode_frames(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Features of prompts that all have a video, in as many passes as `PIXELS` asks for.

        Every tower here looks at each frame alone, so a video may be cut between any two.
        """
        most = PIXELS.get(next(model.parameters()).device.type, MOST_PIXELS)
        found: list[list[VisionFeatures]] = [[] for _ in prompts]
        for places in _passes(prompts, most):
            parts = [_frames(prompts[i], start, end) for i, start, end in places]
            for (i, _, _), features in zip(places, self.encode_videos(model, parts), strict=True):
                found[i].append(features)
        return [_joined(parts) for parts in found]

    def encode_videos(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Features of prompts that all have a video, in one pass of the tower."""
        raise NotImplementedError

    def no_features(self, model: Any) -> VisionFeatures:
        """Features of a prompt without a video: V = 0."""
        size = model.config.get_text_config().hidden_size
        return VisionFeatures(torch.empty(0, size, dtype=model.dtype, device=next(model.parameters()).device), ())


def _passes(prompts: Sequence[Prompt], most: int) -> Iterator[list[tuple[int, int, int]]]:
    """Passes of (prompt, first frame, end), with at most `most` pixel values where a frame has no more."""
    portion: list[tuple[int, int, int]] = []
    left = most
    for i, prompt in enumerate(prompts):
        frames, start = int(prompt.grid[0, 0]), 0
        size = prompt.pixels.numel() // frames
        while start < frames:
            if portion and size > left:
                yield portion
                portion, left = [], most
            end = min(frames, start + max(1, left // size))
            portion.append((i, start, end))
            start, left = end, left - (end - start) * size
    if portion:
        yield portion


def _frames(prompt: Prompt, start: int, end: int) -> Prompt:
    """A prompt's pixels from one frame to another; its text stays as it is."""
    rows = len(prompt.pixels) // int(prompt.grid[0, 0])
    grid = prompt.grid.clone()
    grid[0, 0] = end - start
    return replace(prompt, pixels=prompt.pixels[start * rows : end * rows], grid=grid)


def _joined(parts: Sequence[VisionFeatures]) -> VisionFeatures:
    """A video's features from those of its frames."""
    if len(parts) == 1:
        return parts[0]
    deep = zip(*(p.deepstack for p in parts), strict=True)
    return VisionFeatures(torch.cat([p.pooled for p in parts]), tuple(torch.cat(layer) for layer in deep))
