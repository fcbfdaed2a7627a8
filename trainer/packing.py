"""Packing: many segments (responses) behind the one prompt that they share, in a single row.

A token sees the prompt and its own segment, never another one; positions restart after the prompt for every segment.
Log-probs and gradients equal those of one full row a segment, at a fraction of the tokens.

Legend of shapes: B rows, L tokens of the longest row, R tokens with a loss over all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.families import Prompt

PAD = -1  # segment number of padding; 0 is the prompt, 1.. the segments


@dataclass(frozen=True)
class Segment:
    """Tokens [n] behind a prompt; the first `skip` carry no loss (a question before its response)."""

    tokens: Tensor
    skip: int = 0


@dataclass(frozen=True)
class Row:
    """A prompt and the segments behind it."""

    prompt: Prompt
    segments: Sequence[Segment]

    def __len__(self) -> int:
        return len(self.prompt.ids) + sum(len(s.tokens) for s in self.segments)


@dataclass(frozen=True)
class Packed:
    """A batch of packed rows.

    ids: long [B, L]. positions: long [3, B, L]. segments: long [B, L] (PAD, 0 prompt, k segment).
    rows, sources: long [R], where the hidden state stands that predicts each target. targets: long [R].
    owners: long [R], the number of the segment, counted through the whole batch.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    rows: Tensor
    sources: Tensor
    targets: Tensor
    owners: Tensor

    def mask(self) -> Tensor:
        """Who sees whom: bool [B, 1, L, L]."""
        return segment_mask(self.segments)


def segment_mask(segments: Tensor) -> Tensor:
    """Causal attention within prompt + own segment.

    Args:
        segments: long [B, L].

    Returns:
        bool [B, 1, L, L], true where row token i may look at token j. Padding sees itself only, so no row is empty.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    key, query = segments[:, None, :], segments[:, :, None]
    seen = causal & ((key == 0) | (key == query)) & (key != PAD) & (query != PAD)
    return (seen | torch.eye(length, dtype=torch.bool, device=segments.device))[:, None]


def pack(rows: Sequence[Row], pad_id: int, device: torch.device | str = "cpu") -> Packed:
    """Lay out rows; shorter ones are padded at their end.

    Args:
        rows: at least one, each with at least one segment of at least `skip + 1` tokens.
        pad_id: token that fills the padding.
    """
    count, length = len(rows), max(len(r) for r in rows)
    ids = torch.full((count, length), pad_id)
    positions = torch.zeros(3, count, length, dtype=torch.long)
    segments = torch.full((count, length), PAD)
    where: list[Tensor] = []
    sources: list[Tensor] = []
    targets: list[Tensor] = []
    owners: list[Tensor] = []
    owner = 0
    for b, row in enumerate(rows):
        end = len(row.prompt.ids)
        ids[b, :end] = row.prompt.ids
        positions[:, b, :end] = row.prompt.positions
        segments[b, :end] = 0
        last_of_prompt, first_position = end - 1, row.prompt.next_position
        for k, segment in enumerate(row.segments, start=1):
            start, n = end, len(segment.tokens)
            end += n
            ids[b, start:end] = segment.tokens
            positions[:, b, start:end] = first_position + torch.arange(n)
            segments[b, start:end] = k
            # The first token of a segment is predicted by the last token of the prompt, not by its left neighbour.
            before = torch.cat([torch.tensor([last_of_prompt]), torch.arange(start, end - 1)])[segment.skip :]
            sources.append(before)
            targets.append(segment.tokens[segment.skip :])
            where.append(torch.full_like(before, b))
            owners.append(torch.full_like(before, owner))
            owner += 1
    return Packed(
        *(t.to(device) for t in (ids, positions, segments)),
        *(torch.cat(t).to(device) for t in (where, sources, targets, owners)),
    )


def micro_batches(rows: Sequence[Row], token_budget: int) -> list[list[int]]:
    """Split rows into batches of at most `token_budget` padded tokens (always at least one row), longest first.

    Returns:
        Index lists that together hold every row once.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    batches: list[list[int]] = []
    for i in order:
        if batches and len(rows[batches[-1][0]]) * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
