"""What the Qwen-VL families share: pixels cut into patches that one pass of the tower takes for all views."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.views import View
from trainer.families.base import ChatFamily, Prompt, VisionFeatures


class QwenVL(ChatFamily):
    """Frames as patches.

    A view's frame fills a whole temporal patch (it is repeated `temporal_patch_size` times): frames of a variant can be
    far apart in time, and merging two of them would give both a time at which neither was seen.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        config = model.config
        vision = [
            config.vision_start_token_id,
            config.video_token_id,
            config.vision_end_token_id,
            config.image_token_id,
        ]
        names: list[str] = processor.tokenizer.convert_ids_to_tokens(vision)
        self.start, self.pad, self.end = names[:3]
        self.video_id: int = config.video_token_id
        self.temporal: int = processor.video_processor.temporal_patch_size
        self.merge: int = processor.video_processor.merge_size
        super().__init__(processor, self.start + self.pad + self.end, set(vision), processor.tokenizer.eos_token_id)

    def pixel_features(self) -> int:
        size: int = 3 * self.temporal * self.processor.video_processor.patch_size**2
        return size

    def video_heads(self, views: Sequence[View]) -> list[Prompt]:
        clips = [torch.from_numpy(v.frames).permute(0, 3, 1, 2).repeat_interleave(self.temporal, 0) for v in views]
        out = self.processor.video_processor(videos=clips, do_sample_frames=False, return_tensors="pt")
        grids = out["video_grid_thw"]
        pixels = out["pixel_values_videos"].split(grids.prod(-1).tolist())
        return [self.video_head(view, p, g) for view, p, g in zip(views, pixels, grids, strict=True)]

    def video_head(self, view: View, pixels: Tensor, grid: Tensor) -> Prompt:
        """The head of one view from its patches [N, D] and their grid [3]: frames, rows, columns."""
        raise NotImplementedError

    def merged(self, grid: Tensor) -> tuple[int, int]:
        """Rows and columns of a frame as the language model sees it."""
        height, width = (int(x) // self.merge for x in grid[1:])
        return height, width

    def vision(self, model: Any) -> nn.Module:
        tower: nn.Module = model.model.visual
        return tower

    def language(self, model: Any) -> nn.Module:
        layers: nn.Module = model.model.language_model
        return layers

    def features(self, model: Any, prompts: Sequence[Prompt]) -> Any:
        """The tower's output for prompts that all have a video."""
        device = next(model.parameters()).device
        pixels = torch.cat([p.pixels for p in prompts]).to(device)
        grids = torch.cat([p.grid for p in prompts]).to(device)
        return model.model.get_video_features(pixels, grids, return_dict=True)

    def encode_videos(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        return [VisionFeatures(pooled, ()) for pooled in self.features(model, prompts).pooler_output]
