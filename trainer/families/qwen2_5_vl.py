"""Qwen2.5-VL: the time of each frame is its position."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.views import View
from trainer.families.base import Prompt, VisionFeatures
from trainer.families.positions import TEXT, VIDEO, clocked_positions, ticks
from trainer.families.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Qwen2.5-VL: one video placeholder for all frames; true times reach the model as positions on the time axis.

    The model was trained with M-RoPE aligned to absolute time and without textual timestamps (arXiv 2502.13923), so
    nothing is written. Time counts from the video's first frame, not the view's: an answer in seconds means the video.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.ticks_per_second = float(model.config.vision_config.tokens_per_second)

    def video_head(self, view: View, pixels: Tensor, grid: Tensor) -> Prompt:
        height, width = self.merged(grid)
        at = ticks(view.times.tolist(), self.ticks_per_second)
        ids = self.tokens(self.before + self.start + self.pad * (len(at) * height * width) + self.end)
        types = torch.where(ids == self.video_id, VIDEO, TEXT)
        return Prompt(ids, types, clocked_positions(types, height, width, at), pixels, grid[None])

    def hidden(self, model: Any, features: Sequence[VisionFeatures] | None, **inputs: Any) -> Any:
        seen = [f.pooled for f in features or () if len(f.pooled)]
        if seen:
            from transformers.modeling_outputs import BaseModelOutputWithPooling

            inputs["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=seen)}
        return model.model(**inputs)
