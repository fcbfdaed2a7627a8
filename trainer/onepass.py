"""The update behind a prompt pass: responses run against the keys of their prompts, with gradient into both.

With one update a rollout the weights of rollout and loss are the same, so the prompts of a step pass through the model
once: `prefill(gradient=True)` keeps the graph, decoding reads its values, and `behind` continues the graph. With more
updates, or more prompts than memory holds, `prefill` is called again for each micro-batch. Both equal full rows.

Legend of shapes: B prompts, L tokens of the longest prompt, n tokens behind it, R targets in all, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.attention import Kind, segment_mask_behind
from trainer.packing import PAD, Segment
from trainer.rollout import Prefilled
from trainer.textmodel import Cache, text_model


@dataclass(frozen=True)
class Behind:
    """Segments laid out behind their prompts.

    ids: long [B, n]. offsets: long [B, n], places after the prompt's last position. segments: long [B, n] (PAD, 1..).
    rows, sources: long [R], where the state stands that predicts each target; source 0 is the prompt's last state.
    targets: long [R]. owners: long [R], the number of the segment, counted through the whole batch.
    """

    ids: Tensor
    offsets: Tensor
    segments: Tensor
    rows: Tensor
    sources: Tensor
    targets: Tensor
    owners: Tensor


def lay_out(groups: Sequence[Sequence[Segment]], pad_id: int, device: torch.device | str = "cpu") -> Behind:
    """Lay out each prompt's segments in one row.

    The last token of a segment predicts nothing and is left out.

    Args:
        groups: one list a prompt, each with at least one segment of at least `skip + 1` tokens.
    """
    widths = [sum(len(s.tokens) - 1 for s in group) for group in groups]
    shape = (len(groups), max(widths))
    ids, offsets = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    numbers = torch.full(shape, PAD)
    rows: list[Tensor] = []
    sources: list[Tensor] = []
    targets: list[Tensor] = []
    owners: list[Tensor] = []
    owner = 0
    for b, group in enumerate(groups):
        end = 0
        for k, segment in enumerate(group, start=1):
            start, n = end, len(segment.tokens) - 1
            end += n
            ids[b, start:end] = segment.tokens[:-1]
            offsets[b, start:end] = torch.arange(n)
            numbers[b, start:end] = k
            before = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(start, end) + 1])[segment.skip :]
            rows.append(torch.full_like(before, b))
            sources.append(before)
            targets.append(segment.tokens[segment.skip :])
            owners.append(torch.full_like(before, owner))
            owner += 1
    return Behind(
        *(t.to(device) for t in (ids, offsets, numbers)),
        *(torch.cat(t).to(device) for t in (rows, sources, targets, owners)),
    )


def states_behind(model: Any, ready: Prefilled, laid: Behind, kind: Kind = "sdpa") -> Tensor:
    """The states [R, H] that predict each target; gradient flows into the prompts where `ready` carries their graph.

    Args:
        kind: the attention kernel. flex gives gradients on a GPU only.

    Raises:
        ValueError: the prompts were not prefilled layer by layer.
    """
    text = text_model(model)
    if text is None or not isinstance(ready.cache, Cache):
        raise ValueError("responses run behind prompts only in layers that `text_model` knows")
    states = ready.hidden[:, None]
    if laid.ids.shape[1]:
        positions = (ready.following[:, None] + laid.offsets).expand(3, -1, -1)
        mask = segment_mask_behind(laid.segments, ready.lengths, ready.cache.keys[0].shape[2], kind)
        states = torch.cat([states, text.response_pass(laid.ids, positions, ready.cache, mask)], 1)
    return states[laid.rows, laid.sources]
