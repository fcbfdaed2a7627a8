"""SmolVLM2: each frame a picture of fixed size behind its minute and second."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.prompts import question_text
from pipeline.views import View
from trainer.families.base import ChatFamily, Prompt, VisionFeatures
from trainer.families.positions import TEXT, VIDEO

_TILE = re.compile(r"<row_\d+_col_\d+>")  # tokens in front of the tiles of a large picture


class SmolVLM(ChatFamily):
    """SmolVLM2: each frame stands behind its textual timestamp in minutes and whole seconds, as it was trained.

    Two frames of the same second have the same timestamp. Positions count up by one, on three equal axes here.
    A prompt names the length of the video, which a view does not know: the time of its last frame, as in the stock
    processor where the length is unknown.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        tokenizer = processor.tokenizer
        self.picture = processor.image_token
        self.picture_id: int = model.config.image_token_id
        known = tokenizer.get_vocab()
        names = [processor.image_token, processor.fake_image_token, processor.global_image_token, processor.video_token]
        banned = {known[name] for name in (*names, *filter(_TILE.fullmatch, known)) if name in known}
        end: int = tokenizer.convert_tokens_to_ids(processor.end_of_utterance_token)
        super().__init__(processor, processor.video_token, banned, end)

    def pixel_features(self) -> int:
        return 3 * self._side() ** 2

    def _side(self) -> int:
        """Pixels of a frame's side: the tower takes squares of one size."""
        side: int = self.processor.video_processor.max_image_size["longest_edge"]
        return side

    def video_heads(self, views: Sequence[View]) -> list[Prompt]:
        return [self._video_head(view) for view in views]

    def _video_head(self, view: View) -> Prompt:
        clip = torch.from_numpy(view.frames).permute(0, 3, 1, 2)
        out = self.processor.video_processor(videos=[clip], do_sample_frames=False, return_tensors="pt")
        pixels = out["pixel_values"][0]
        ids = self.tokens(self.before + self._video_text(view.times.tolist()))
        types = torch.where(ids == self.picture_id, VIDEO, TEXT)
        positions = torch.arange(len(ids)).expand(3, -1)
        grid = torch.tensor([[len(pixels), *pixels.shape[-2:]]])
        return Prompt(ids, types, positions, pixels.flatten(1), grid)

    def _video_text(self, times: Sequence[float]) -> str:
        """A video as text, up to the end of its last frame, in the words of the stock processor."""
        from transformers.models.smolvlm import processing_smolvlm as stock

        p = self.processor
        frame = p.fake_image_token + p.global_image_token + p.image_token * p.image_seq_len + p.fake_image_token
        length = timedelta(seconds=int(times[-1]))
        intro = stock.DEFAULT_VIDEO_INTRO.format(frame_count=stock.num2words(len(times)), video_duration=str(length))
        stamps = [f"{int(t // 60):02d}:{int(t % 60):02d}" for t in times]
        return str(intro) + "".join(stock.FRAME_TIMESTAMP_MESSAGE.format(timestamp=s) + frame for s in stamps)

    @property
    def _around(self) -> str:
        return self.before + self.between

    def blind_text(self) -> str:
        # The space before the question belongs to its first word's token.
        return self._around.rstrip(" ")

    def tail(self, question: str, options: Sequence[str], *, seen: bool = True) -> Tensor:
        from transformers.models.smolvlm import processing_smolvlm as stock

        lead = stock.DEFAULT_MEDIA_OUTTRO + self.between if seen else self._around[len(self.blind_text()) :]
        # One text, not two: white space and the word behind it share tokens.
        asked = self.tokens(lead + question_text(question, options), literal=True)
        return torch.cat([asked, self.tokens(self.after)])

    def response(self, text: str) -> Tensor:
        # The published template writes a turn's text behind a space.
        return super().response(" " + text)

    def vision(self, model: Any) -> nn.Module:
        return nn.ModuleList([model.model.vision_model, model.model.connector])

    def language(self, model: Any) -> nn.Module:
        layers: nn.Module = model.model.text_model
        return layers

    def encode_videos(self, model: Any, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        frames = [p.pixels.unflatten(1, (3, *p.grid[0, 1:].tolist())) for p in prompts]
        pixels = torch.cat(frames).to(next(model.parameters()).device)
        [pooled] = model.model.get_image_features(pixels[None], return_dict=True).pooler_output
        tokens = pooled.split([len(f) * self.processor.image_seq_len for f in frames])
        return [VisionFeatures(t, ()) for t in tokens]

    def hidden(self, model: Any, features: Sequence[VisionFeatures] | None, **inputs: Any) -> Any:
        seen = [f.pooled for f in features or () if len(f.pooled)]
        if seen:
            from transformers.modeling_outputs import BaseModelOutputWithPooling

            inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=seen)}
        inputs["position_ids"] = inputs["position_ids"][0]
        return model.model(**inputs)
