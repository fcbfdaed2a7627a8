"""The only module that knows model families: how a view and a question become the inputs of a stock transformers class.

Legend of shapes: P prompt tokens, N vision patches, D features of a patch, V vision tokens, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.prompts import SYSTEM, question_text
from pipeline.views import View

TEXT, VIDEO = 0, 2  # transformers' mm_token_type_ids

_MARKER = "QUESTION"  # stands for the user's text where a chat template is taken apart


@dataclass(frozen=True)
class Prompt:
    """One view and its text, ready for the model.

    ids, types: long [P]. positions: long [3, P], the M-RoPE positions. pixels: float32 [N, D]. grid: long [1, 3].
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
    """What the vision tower made of one view: pooled [V, H], and [V, H] for each deepstack layer."""

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

    def tail(self, question: str, options: Sequence[str]) -> Tensor:
        """Tokens from the end of the video to the start of the response, long [n]."""
        ...

    def vision(self, model: Any) -> nn.Module:
        """The vision tower, with whatever joins it to the language model."""
        ...

    def encode(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Run the vision tower once for all prompts that have a video; V = 0 for those that have none."""
        ...

    def hidden(self, model: Any, features: Sequence[VisionFeatures] | None, **inputs: Any) -> Any:
        """The language model's output (last_hidden_state, past_key_values) for explicit ids, mask and positions."""
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


class Qwen3VL:
    """Qwen3-VL: each frame stands behind its own textual timestamp, so true times reach the model as text.

    A view's frame fills a whole temporal patch (it is repeated `temporal_patch_size` times): frames of a variant can be
    far apart in time, and merging two of them would give both a time at which neither was seen.

    Timestamps and frames take the place of the whole video placeholder, as in the model's published prompt. The
    processor of transformers 5.10 and later keeps the placeholder's own start and end around them: two tokens more.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.temporal = processor.video_processor.temporal_patch_size
        self.merge = processor.video_processor.merge_size
        config = model.config
        self.video_id = config.video_token_id
        self.banned_ids = sorted(
            {config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id}
        )
        self.eos_id = self.tokenizer.eos_token_id
        self.pad_id = self.tokenizer.pad_token_id
        if self.pad_id is None:
            self.pad_id = self.eos_id
        self._before_video, self._after_video = self._split_template()

    def _split_template(self) -> tuple[str, str]:
        """The chat template's text before the video and behind the question, found with a marker as the question."""
        text = self._template([{"type": "video"}, {"type": "text", "text": _MARKER}])
        video = f"{self.processor.vision_start_token}{self.processor.video_token}{self.processor.vision_end_token}"
        if text.count(video) != 1 or text.count(_MARKER) != 1 or text.index(video) > text.index(_MARKER):
            raise UserError(
                "the policy's chat template",
                "expected one video placeholder, then the question's text",
                "use the chat template that the model was published with",
            )
        before, rest = text.split(video)
        between, after = rest.split(_MARKER)
        self._between = between
        return before, after

    def _template(self, content: list[dict[str, str]]) -> str:
        """The chat template's text around what the user says, up to where the response begins."""
        messages = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            {"role": "user", "content": content},
        ]
        text: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _tokens(self, text: str, literal: bool = False) -> Tensor:
        """Token ids, long [n]; in literal text the name of a special token is letters like any other."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=literal).input_ids
        return torch.tensor(ids, dtype=torch.long)

    def heads(self, views: Sequence[View]) -> list[Prompt]:
        """See `Family.heads`.

        Raises:
            UserError: a view has no frames, and the chat template words the rest differently without a video.
        """
        shown = [v for v in views if len(v.frames)]
        with_video = iter(self._video_heads(shown) if shown else [])
        return [next(with_video) if len(v.frames) else self._text_head() for v in views]

    def _text_head(self) -> Prompt:
        """What stands before the question where there is no video: the template without one."""
        text = self._before_video + self._between + _MARKER + self._after_video
        if self._template([{"type": "text", "text": _MARKER}]) != text:
            raise UserError(
                "the policy's chat template",
                "expected the same text around the question with and without a video",
                "use the chat template that the model was published with",
            )
        ids = self._tokens(self._before_video)
        return Prompt(
            ids=ids,
            types=torch.full_like(ids, TEXT),
            positions=torch.arange(len(ids)).expand(3, -1),
            pixels=torch.empty(0, 3 * self.temporal * self.processor.video_processor.patch_size**2),
            grid=torch.empty(0, 3, dtype=torch.long),
        )

    def _video_heads(self, views: Sequence[View]) -> list[Prompt]:
        clips = [torch.from_numpy(v.frames).permute(0, 3, 1, 2).repeat_interleave(self.temporal, 0) for v in views]
        out = self.processor.video_processor(videos=clips, do_sample_frames=False, return_tensors="pt")
        grids = out["video_grid_thw"]
        pixels = out["pixel_values_videos"].split(grids.prod(-1).tolist())
        return [self._head(view, p, g) for view, p, g in zip(views, pixels, grids, strict=True)]

    def _head(self, view: View, pixels: Tensor, grid: Tensor) -> Prompt:
        per_frame = int(grid[1:].prod()) // self.merge**2
        p = self.processor
        frame = p.vision_start_token + p.video_token * per_frame + p.vision_end_token
        text = self._before_video + "".join(f"<{t:.1f} seconds>{frame}" for t in view.times)
        ids = self._tokens(text)
        types = torch.where(ids == self.video_id, VIDEO, TEXT)
        height, width = (int(x) // self.merge for x in grid[1:])
        return Prompt(ids, types, frame_positions(types, height, width), pixels, grid[None])

    def tail(self, question: str, options: Sequence[str]) -> Tensor:
        # A question that spells a vision token or the end of a turn must not become one.
        asked = self._tokens(question_text(question, options), literal=True)
        return torch.cat([self._tokens(self._between), asked, self._tokens(self._after_video)])

    def vision(self, model: Any) -> nn.Module:
        tower: nn.Module = model.model.visual
        return tower

    def encode(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        device = next(model.parameters()).device
        vision = model.config.vision_config
        nothing = torch.empty(0, vision.out_hidden_size, dtype=model.dtype, device=device)
        blind = VisionFeatures(nothing, (nothing,) * len(vision.deepstack_visual_indexes))
        shown = [p for p in prompts if len(p.grid)]
        seen = iter(self._encode_videos(model, shown, device) if shown else [])
        return [next(seen) if len(p.grid) else blind for p in prompts]

    def _encode_videos(self, model: Any, prompts: Sequence[Prompt], device: torch.device) -> list[VisionFeatures]:
        pixels = torch.cat([p.pixels for p in prompts]).to(device)
        grids = torch.cat([p.grid for p in prompts]).to(device)
        out = model.model.get_video_features(pixels, grids, return_dict=True)
        layers = zip(*out.deepstack_features, strict=True) if out.deepstack_features else [()] * len(prompts)
        return [VisionFeatures(a, tuple(b)) for a, b in zip(out.pooler_output, layers, strict=True)]

    def hidden(self, model: Any, features: Sequence[VisionFeatures] | None, **inputs: Any) -> Any:
        seen = [f for f in features or () if len(f.pooled)]
        if seen:
            from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

            inputs["mm_encoder_outputs"] = {
                "video": BaseModelOutputWithDeepstackFeatures(
                    pooler_output=[f.pooled for f in seen],
                    deepstack_features=[[f.deepstack[k] for f in seen] for k in range(len(seen[0].deepstack))],
                )
            }
        return model.model(**inputs)


def frame_positions(types: Tensor, height: int, width: int) -> Tensor:
    """M-RoPE positions of a prompt whose frames each stand between text tokens (Qwen3-VL).

    Text counts up on all three axes. A frame of height x width merged patches starts at the running position p: time p
    for all of it, p + row and p + column on the other axes; the text behind it goes on at p + max(height, width).

    Args:
        types: long [P], TEXT or VIDEO; every run of VIDEO is height * width long.
        height, width: merged patches of a frame.

    Returns:
        long [3, P].

    Raises:
        ValueError: a run of video tokens is not one frame.
    """
    out = torch.empty(3, len(types), dtype=torch.long)
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    step, i = 0, 0
    flags = (types == VIDEO).tolist()
    while i < len(flags):
        if not flags[i]:
            out[:, i] = step
            step, i = step + 1, i + 1
            continue
        j = i + height * width
        if not all(flags[i:j]) or j > len(flags) or (j < len(flags) and flags[j]):
            raise ValueError(f"video tokens at {i} do not form one frame of {height} x {width}")
        out[0, i:j] = step
        out[1, i:j] = rows + step
        out[2, i:j] = columns + step
        step, i = step + max(height, width), j
    return out


FAMILIES: dict[str, type[Qwen3VL]] = {"qwen3_vl": Qwen3VL}
"""transformers' `model_type` -> family."""


def family_of(model: Any, processor: Any) -> Family:
    """The family of a loaded model.

    Raises:
        UserError: the family is unknown; the message lists those that work.
    """
    name = model.config.model_type
    if name not in FAMILIES:
        raise UserError(f"model family {name!r}", f"works with: {', '.join(FAMILIES)}", "choose another --policy")
    return FAMILIES[name](model, processor)
