"""Qwen3-VL: each frame behind its own textual timestamp."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.views import View
from trainer.families.base import Prompt, VisionFeatures
from trainer.families.positions import TEXT, VIDEO, frame_positions
from trainer.families.qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Qwen3-VL: each frame stands behind its own textual timestamp, so true times reach the model as text.

    Timestamps and frames take the place of the whole video placeholder, as in the model's published prompt. The
    processor of transformers 5.10 and later keeps the placeholder's own start and end around them: two tokens more.
    """

    def video_head(self, view: View, pixels: Tensor, grid: Tensor) -> Prompt:
        height, width = self.merged(grid)
        frame = self.start + self.pad * (height * width) + self.end
        ids = self.tokens(self.before + "".join(f"<{t:.1f} seconds>{frame}" for t in view.times))
        types = torch.where(ids == self.video_id, VIDEO, TEXT)
        return Prompt(ids, types, frame_positions(types, height, width), pixels, grid[None])

    def encode_videos(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        out = self.features(model, prompts)
        layers = zip(*out.deepstack_features, strict=True) if out.deepstack_features else [()] * len(prompts)
        return [VisionFeatures(a, tuple(b)) for a, b in zip(out.pooler_output, layers, strict=True)]

    def no_features(self, model: Any) -> VisionFeatures:
        nothing = super().no_features(model).pooled
        return VisionFeatures(nothing, (nothing,) * len(model.config.vision_config.deepstack_visual_indexes))

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
