"""Attention of the language model's passes, each behind one function: within prompts, and behind them.

Legend of shapes: B rows, H query heads, K key heads (H is a multiple of K), D size of a head, L prompt tokens,
n tokens behind the prompt, R responses a row, T response tokens.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from trainer.tiles import suit, tiled

Kind = Literal["sdpa", "flex"]
"""Which kernel: PyTorch's scaled_dot_product_attention, or flex_attention."""


def has_backward(device: torch.device) -> bool:
    """Whether flex_attention has a backward pass there."""
    return device.type == "cuda"


def grouped(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | BlockMask | None = None, *, causal: bool = False
) -> Tensor:
    """Attention whose key heads serve several query heads each.

    Args:
        query: [B, H, n, D]. keys, values: [B, K, m, D].
        mask: bool, broadcast to [B, H, n, m], true is seen; or the same as blocks, which flex_attention reads.
        causal: token i sees tokens 0..i (n = m; no mask).

    Returns:
        [B, H, n, D].

    Raises:
        ValueError: blocks where a gradient is wanted and the device is no GPU: flex_attention has no backward there.
    """
    groups = query.shape[1] // keys.shape[1]
    if isinstance(mask, BlockMask):
        if torch.is_grad_enabled() and query.requires_grad and not has_backward(query.device):
            raise ValueError("flex_attention has no backward on this device: use sdpa")
        out: Tensor = _flex(query.is_cuda)(query, keys, values, block_mask=mask, enable_gqa=groups > 1)
        return out
    if suit(query, keys):
        return tiled(query, keys, values, mask, causal)
    # On CUDA the kernels that take a mask want as many key heads as query heads.
    if groups > 1 and mask is not None and query.is_cuda:
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        groups = 1
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=groups > 1)


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    """flex_attention; compiled once for the process, because otherwise it lays the scores out as a whole."""
    if compiled:
        fast: Callable[..., Any] = torch.compile(flex_attention)
        return fast
    return flex_attention


def segment_mask_behind(segments: Tensor, lengths: Tensor, longest: int, kind: Kind) -> Tensor | BlockMask:
    """Who sees whom behind prompts: a token sees its prompt and its own segment up to itself.

    Args:
        segments: long [B, n], the number of each token's segment. lengths: long [B], of the prompts.
        longest: tokens of the longest prompt. kind: which kernel will read it.

    Returns:
        bool [B, 1, n, longest + n], or the same as blocks, of which a kernel skips those that nobody sees.
    """
    count, n = segments.shape
    if kind == "sdpa":
        prompt = (torch.arange(longest, device=segments.device) < lengths[:, None])[:, None].expand(-1, n, -1)
        causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
        own = causal & (segments[:, :, None] == segments[:, None, :])
        return torch.cat([prompt, own], -1)[:, None]

    def seen(b: Tensor, _: Tensor, i: Tensor, j: Tensor) -> Tensor:
        place = (j - longest).clamp(min=0)
        own = (j >= longest) & (place <= i) & (segments[b, place] == segments[b, i])
        return (j < lengths[b]) | own

    return create_block_mask(seen, count, None, n, longest + n, device=segments.device.type)


def decoding_attention(
    query: Tensor,
    prompt: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    unseen: Tensor | None,
    unborn: Tensor | None = None,
) -> Tensor:
    """One new token of each response against the prompt, which its row's responses share, and its own past.

    The prompt's keys are read once a row, not once a response; both parts go through one softmax.

    Args:
        query: [B, H, R, D]. prompt: keys and values [B, K, L, D]. own: keys and values [B, K, R, T, D].
        unseen: bool [B, 1, 1, L], true at the padding of prompts; None where there is none.
        unborn: bool [T], true at room for tokens that are not drawn yet; None where there is none.

    Returns:
        [B, R, H * D].
    """
    rows, heads, count, size = query.shape
    shared = prompt[0].shape[1]
    # Scores in units of log 2: exp2 is what processors compute.
    split = (query * (size**-0.5 / math.log(2))).view(rows, shared, -1, count, size).transpose(2, 3)
    folded = split.reshape(rows, shared, -1, size)
    # Half precision is summed in float32.
    exact = torch.promote_types(query.dtype, torch.float32)
    before = (folded @ prompt[0].transpose(-1, -2)).to(exact)
    if unseen is not None:
        before.masked_fill_(unseen, -torch.inf)
    after = (split @ own[0].transpose(-1, -2)).to(exact)
    if unborn is not None:
        after.masked_fill_(unborn, -torch.inf)
    after = after.view(rows, shared, folded.shape[2], -1)
    top = torch.maximum(before.amax(-1, keepdim=True), after.amax(-1, keepdim=True))
    before, after = before.sub_(top).exp2_(), after.sub_(top).exp2_()
    total = before.sum(-1, keepdim=True) + after.sum(-1, keepdim=True)
    seen = (before.to(query.dtype) @ prompt[1]).to(exact)
    ours = after.to(query.dtype).view(*split.shape[:-1], -1) @ own[1]
    out: Tensor = ((seen + ours.view(seen.shape)) / total).to(query.dtype).view(split.shape)
    return out.transpose(1, 2).reshape(rows, count, heads * size)
