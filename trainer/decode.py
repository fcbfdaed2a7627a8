"""One token at a time behind prompts that were prefilled once: all responses to a prompt read the same keys.

Legend of shapes: B prompts with unfinished responses, R places for the responses of each, n responses in the batch,
K key heads, L tokens of the longest prompt, T response tokens that there is room for, D size of a head, H hidden size.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.attention import decoding_attention
from trainer.families import Family
from trainer.textmodel import Cache, Rotation, TextModel, asked, finished, offered

BLOCK = 64
"""Response tokens for which keys and values are allocated at first; the room doubles when it is used up."""


Own = tuple[Tensor, Tensor]
"""Keys and values of the responses themselves, [B, K, R, T, D]."""


class Steps(Protocol):
    """Feeds tokens to a batch of responses.

    Attributes:
        roomy: finished responses leave the batch when at most this share of it is still unfinished.
    """

    roomy: float

    def __call__(self, tokens: Tensor, t: int) -> Tensor:
        """Tokens long [n], the t-th of each response -> states [n, H] that predict the next ones."""
        ...

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the responses only, bool [n]."""
        ...


class SharedSteps:
    """Decoding layer by layer: a prompt's keys and values lie in memory once and are read once a step."""

    roomy = 0.75

    def __init__(
        self, text: TextModel, cache: Cache, lengths: Tensor, following: Tensor, owner: Tensor, room: int
    ) -> None:
        self.text, self.whole, self.lengths, self.room = text, cache, lengths, room
        self.owner = owner
        positions = following[:, None] + torch.arange(room, device=owner.device)
        like = cache.keys[0]
        self.cos, self.sin = text.rotation(positions.expand(3, -1, -1), like)
        self._arrange()
        shape = (len(self.rows), like.shape[1], self.places, min(BLOCK, room), like.shape[3])
        self.own = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in cache.keys]

    def _arrange(self) -> None:
        """Prompts that still have responses, and the place of each response among those of its prompt."""
        self.rows, inverse, counts = self.owner.unique(return_inverse=True, return_counts=True)
        self.places = int(counts.max())
        first = counts.cumsum(0) - counts
        place = torch.arange(len(self.owner), device=self.owner.device) - first[inverse]
        self.slots = inverse * self.places + place
        self.cache = self.whole.rows(self.rows)
        length = self.cache.keys[0].shape[2]
        behind = torch.arange(length, device=self.owner.device) >= self.lengths[self.rows, None]
        self.unseen = behind[:, None, None] if bool(behind.any()) else None
        self.turns = self.cos[self.rows], self.sin[self.rows]

    def keep(self, kept: Tensor) -> None:
        places = self.places
        slots = self.slots[kept]
        self.owner = self.owner[kept]
        self._arrange()
        # Empty places repeat the first response: their results are never read.
        source = slots[:1].expand(len(self.rows) * self.places).clone()
        source[self.slots] = slots
        old_row, old_place = source // places, source % places
        shape = (len(self.rows), self.places)
        self.own = [
            (self._moved(k, old_row, old_place, shape), self._moved(v, old_row, old_place, shape)) for k, v in self.own
        ]

    @staticmethod
    def _moved(x: Tensor, row: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
        moved: Tensor = x[row, :, place].unflatten(0, shape).transpose(1, 2).contiguous()
        return moved

    def _grow(self) -> None:
        room = min(2 * self.own[0][0].shape[3], self.room)
        self.own = [(_longer(k, room), _longer(v, room)) for k, v in self.own]

    def _grid(self, tokens: Tensor) -> Tensor:
        """Tokens [n] at their places, long [B, R]."""
        grid = tokens.new_zeros(len(self.rows) * self.places)
        grid[self.slots] = tokens
        return grid.view(len(self.rows), self.places)

    def __call__(self, tokens: Tensor, t: int) -> Tensor:
        if t == self.own[0][0].shape[3]:
            self._grow()
        rotation = self.turns[0][:, :, t : t + 1], self.turns[1][:, :, t : t + 1]
        past = [(keys[:, :, :, : t + 1], values[:, :, :, : t + 1]) for keys, values in self.own]

        def put(to: Tensor, new: Tensor) -> None:
            to[:, :, :, t] = new

        states = advanced(self.text, self._grid(tokens), rotation, self.cache, past, put, self.unseen)
        return states.flatten(0, 1)[self.slots]


def advanced(
    text: TextModel,
    tokens: Tensor,
    rotation: Rotation,
    cache: Cache,
    past: Sequence[Own],
    put: Callable[[Tensor, Tensor], None],
    unseen: Tensor | None,
    unborn: Tensor | None = None,
) -> Tensor:
    """One more token of every response through all layers.

    Args:
        tokens: long [B, R]. rotation: of their positions. past: own keys and values, with room for these tokens.
        put: writes a layer's new keys or values [B, K, R, D] into that room. unseen, unborn: see `decoding_attention`.

    Returns:
        [B, R, H], normed states.
    """
    hidden = text.embed(tokens)
    for layer, keys, values, own in zip(text.stack.layers, cache.keys, cache.values, past, strict=True):
        normed = layer.input_layernorm(hidden)
        key, value = offered(layer, normed, rotation)
        put(own[0], key)
        put(own[1], value)
        query = asked(layer, normed, rotation).to(value.dtype)
        hidden = finished(layer, hidden, decoding_attention(query, (keys, values), own, unseen, unborn))
    out: Tensor = text.stack.norm(hidden)
    return out


def _longer(x: Tensor, room: int) -> Tensor:
    out = x.new_zeros(*x.shape[:3], room, x.shape[4])
    out[:, :, :, : x.shape[3]] = x
    return out


class StockSteps:
    """Decoding by the model's own forward, with a copy of the prompt's cache for every response."""

    roomy = 0.75

    def __init__(
        self, model: Any, family: Family, cache: DynamicCache, lengths: Tensor, following: Tensor, owner: Tensor
    ) -> None:
        self.model, self.family = model, family
        self.cache = copy.copy(cache)
        self.cache.layers = [copy.copy(layer) for layer in cache.layers]
        self.cache.batch_select_indices(owner)
        total = cache.get_seq_length()
        self.mask = (torch.arange(total, device=owner.device) >= total - lengths[owner, None]).long()
        self.following = following[owner]

    def keep(self, kept: Tensor) -> None:
        index = kept.nonzero()[:, 0]
        self.cache.batch_select_indices(index)
        self.mask, self.following = self.mask[index], self.following[index]

    def __call__(self, tokens: Tensor, t: int) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        out = self.family.hidden(
            self.model,
            None,
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=(self.following + t).expand(3, 1, -1).transpose(1, 2),
            past_key_values=self.cache,
            use_cache=True,
        )
        state: Tensor = out.last_hidden_state[:, -1]
        return state
