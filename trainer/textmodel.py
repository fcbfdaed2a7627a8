"""A language model read layer by layer: the passes that stock classes do not offer, from their own modules.

Every family's language model here is a stack of the same kind: norm, attention with rotary positions, norm, gated
feed-forward, all residual. `TextModel` calls the model's own modules (so that adapters work) in three ways: over
prompts, over responses behind prompts, and one token at a time. `text_model` proves on random input that this equals
the model's own forward before it returns one.

Legend of shapes: B rows, L tokens of the longest prompt, n tokens behind a prompt, H hidden size, K key heads,
D size of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.checkpoint import checkpoint

from trainer.attention import grouped
from trainer.products import through

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What `TextModel` calls of a layer."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest difference to the model's own forward, relative to its largest value, that counts as rounding."""

Rotation = tuple[Tensor, Tensor]
"""cos and sin [B, 1, n, D]."""


@dataclass(frozen=True)
class Cache:
    """Keys and values of prompts, [B, K, L, D] a layer; what stands behind a prompt's own length is padding."""

    keys: list[Tensor]
    values: list[Tensor]

    def detached(self) -> "Cache":
        return Cache([k.detach() for k in self.keys], [v.detach() for v in self.values])

    def rows(self, rows: Tensor) -> "Cache":
        """The cache of some rows, long [n]; itself, uncopied, when they are all of them in order."""
        if len(rows) == len(self.keys[0]) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return self
        return Cache([k[rows] for k in self.keys], [v[rows] for v in self.values])


class TextModel:
    """The layers of a language model, and the passes over them."""

    def __init__(self, stack: Any, checkpointing: bool = False) -> None:
        self.stack = stack
        self.checkpointing = checkpointing
        self.axes = 3 if hasattr(stack.rotary_emb, "mrope_section") else 1

    def embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.stack.embed_tokens(ids)
        return out

    def rotation(self, positions: Tensor, like: Tensor) -> Rotation:
        """cos and sin of positions [3, B, n]; a model without M-RoPE reads the first axis."""
        cos, sin = self.stack.rotary_emb(like, positions if self.axes == 3 else positions[0])
        return cos[:, None], sin[:, None]

    def prompt_pass(
        self, hidden: Tensor, positions: Tensor, last: Tensor, seen: Tensor | None, deep: Sequence[Tensor]
    ) -> tuple[Cache, Tensor]:
        """Prompts padded on the right: causal attention alone keeps padding out of sight.

        The last layer's attention output and feed-forward are needed at the last token only, and are computed there.

        Args:
            hidden: [B, L, H], embeddings with vision features in place. positions: long [3, B, L].
            last: long [B], index of each prompt's last token.
            seen: bool [B, L], where vision features stand; deep: [sum(seen), H] to add there behind each first layer.

        Returns:
            The cache of all layers, and [B, H]: the normed state of each last token.
        """
        rotation = self.rotation(positions, hidden)
        rows = torch.arange(len(hidden), device=hidden.device)
        keys, values = [], []
        for i, layer in enumerate(self.stack.layers):
            final = last if i == len(self.stack.layers) - 1 else None
            hidden, k, v = self._run(_prompt_layer, layer, hidden, rotation, final)
            keys.append(k)
            values.append(v)
            if seen is not None and i < len(deep):
                lift = torch.zeros_like(hidden)
                lift[seen] = deep[i].to(hidden.dtype)
                hidden = hidden + lift
        state = hidden[rows, 0]
        return Cache(keys, values), self.stack.norm(state)

    def response_pass(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | BlockMask) -> Tensor:
        """Tokens behind prompts that were run before; gradient flows into the cache where it carries one.

        Args:
            ids: long [B, n]. positions: long [3, B, n]. cache: of B prompts. mask: of `segment_mask_behind`.

        Returns:
            [B, n, H], normed states.
        """
        hidden = self.embed(ids)
        rotation = self.rotation(positions, hidden)
        for layer, keys, values in zip(self.stack.layers, cache.keys, cache.values, strict=True):
            hidden = self._run(_response_layer, layer, hidden, rotation, keys, values, mask)
        out: Tensor = self.stack.norm(hidden)
        return out

    def _run(self, step: Callable[..., Any], *inputs: Any) -> Any:
        """One layer; with checkpointing its inner values are computed again in the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(step, *inputs, use_reentrant=False)
        return step(*inputs)


def asked(layer: Any, normed: Tensor, rotation: Rotation) -> Tensor:
    """Rotated queries [B, H, n, D] of normed states [B, n, hidden]."""
    attention = layer.self_attn
    query = through(attention.q_proj, normed).view(*normed.shape[:-1], -1, attention.head_dim)
    if hasattr(attention, "q_norm"):
        query = attention.q_norm(query)
    return rotated(query.transpose(1, 2), rotation)


def offered(layer: Any, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Rotated keys and values [B, K, n, D] of normed states [B, n, hidden]."""
    attention = layer.self_attn
    shape = (*normed.shape[:-1], -1, attention.head_dim)
    key = through(attention.k_proj, normed).view(shape)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    value = through(attention.v_proj, normed).view(shape).transpose(1, 2)
    return rotated(key.transpose(1, 2), rotation).to(value.dtype), value


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary positions: the first half of a head turns against its second half."""
    cos, sin = rotation
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def finished(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """What follows attention in a layer: states [B, n, hidden], attended [B, n, H * D]."""
    hidden = hidden + through(layer.self_attn.o_proj, attended)
    normed, inner = layer.post_attention_layernorm(hidden), layer.mlp
    gated: Tensor = inner.act_fn(through(inner.gate_proj, normed)) * through(inner.up_proj, normed)
    return hidden + through(inner.down_proj, gated)


def _flat(attended: Tensor) -> Tensor:
    return attended.transpose(1, 2).flatten(2)


def _prompt_layer(layer: Any, hidden: Tensor, rotation: Rotation, last: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    normed = layer.input_layernorm(hidden)
    key, value = offered(layer, normed, rotation)
    if last is None:
        query = asked(layer, normed, rotation).to(value.dtype)
        return finished(layer, hidden, _flat(grouped(query, key, value, causal=True))), key, value
    rows = torch.arange(len(hidden), device=hidden.device)
    turn = rotation[0][rows, :, last][:, :, None], rotation[1][rows, :, last][:, :, None]
    query = asked(layer, normed[rows, last][:, None], turn).to(value.dtype)
    visible = torch.arange(hidden.shape[1], device=hidden.device) <= last[:, None]
    attended = grouped(query, key, value, visible[:, None, None])
    return finished(layer, hidden[rows, last][:, None], _flat(attended)), key, value


def _response_layer(
    layer: Any, hidden: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, mask: Tensor | BlockMask
) -> Tensor:
    normed = layer.input_layernorm(hidden)
    key, value = offered(layer, normed, rotation)
    query = asked(layer, normed, rotation).to(value.dtype)
    attended = grouped(query, torch.cat([keys, key], 2), torch.cat([values, value], 2), mask)
    return finished(layer, hidden, _flat(attended))


_ALIKE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def text_model(model: Any) -> TextModel | None:
    """The language model of a policy, layer by layer; None where its layers are of another kind or are sharded.

    The first call for a model compares both ways on random input, so that a release of transformers which computes
    something else leads back to the model's own forward and never to other numbers.
    """
    stack = model.get_decoder()
    if isinstance(next(stack.parameters()), DTensor):
        return None  # a sharded layer gathers its weights in its own forward only
    if stack not in _ALIKE:
        _ALIKE[stack] = _alike(stack)
    return TextModel(stack, bool(model.is_activation_checkpointing)) if _ALIKE[stack] else None


def _alike(stack: Any) -> bool:
    """Whether a stack has the modules that `TextModel` calls, and gives what its own forward gives."""
    layers = getattr(stack, "layers", None)
    if layers is None or not all(hasattr(stack, name) for name in ("embed_tokens", "rotary_emb", "norm")):
        return False
    if set(getattr(stack.config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return False
    needed = [("self_attn", name) for name in ATTENTION] + [("mlp", name) for name in FEED_FORWARD]
    if not all(hasattr(getattr(layer, part, None), name) for layer in layers for part, name in needed):
        return False
    text = TextModel(stack)
    table = stack.embed_tokens.weight
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, len(table), (1, 12), generator=generator).to(table.device)
    positions = torch.arange(12, device=table.device).expand(3, 1, -1)
    with torch.no_grad():
        plain = stack(inputs_embeds=text.embed(ids), position_ids=positions if text.axes == 3 else positions[0])
        own = plain.last_hidden_state[0]
        last = torch.tensor([7], device=table.device)
        cache, state = text.prompt_pass(text.embed(ids[:, :8]), positions[..., :8], last, None, ())
        mask = torch.ones(4, 12, dtype=torch.bool, device=table.device).tril(8)[None, None]
        behind = text.response_pass(ids[:, 8:], positions[..., 8:], cache, mask)
    bound = TOLERANCE.get(own.dtype, 0.0) * float(own.abs().max())
    return bool((torch.cat([state, behind[0]]) - own[7:]).abs().max() <= bound)
