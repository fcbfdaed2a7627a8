"""Attention on a CPU, in tiles of queries by keys that stay in its cache; the scores never exist as a whole.

The same sums as scaled_dot_product_attention with an online softmax, with two differences that make it faster there:
the query heads that share a key head are one matrix, and products are oneDNN's (`products`). Tiles that a mask closes
are skipped, those that it leaves open are not masked.

Legend of shapes: B rows, H query heads, K key heads (H is a multiple of K), D size of a head, n queries, m keys;
r rows of a tile (queries of all heads that share a key head), c columns of a tile.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainer.products import times

ROWS, COLUMNS = 768, 512
"""Of a tile."""

LEAST = 1536
"""Keys from which tiles are faster than PyTorch's kernel."""

NEVER = -1e30
"""Score of what is not seen; finite, so that a row may see nothing of a tile."""


def suit(query: Tensor, keys: Tensor) -> bool:
    """Whether attention of query [B, H, n, D] to keys [B, K, m, D] runs in tiles: by device, type and lengths."""
    return (
        query.device.type == "cpu"
        and query.dtype == keys.dtype
        and query.dtype in (torch.float32, torch.float64)
        and keys.shape[2] >= LEAST
        and query.shape[2] > 1
    )


def tiled(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention whose key heads serve several query heads each; every query sees some key.

    Args:
        query: [B, H, n, D]. keys, values: [B, K, m, D].
        mask: bool [B or 1, 1, n, m], true is seen. causal: query i sees keys 0..i (n = m; no mask).

    Returns:
        [B, H, n, D], which lies in memory as [B, n, H, D].
    """
    out: Tensor = _Tiled.apply(query, keys, values, mask, causal)
    return out


def _tiles(n: int, m: int, step: int, mask: Tensor | None, causal: bool) -> Iterator[tuple[slice, list[Any]]]:
    """Blocks of queries, each with its open tiles: (keys, what is hidden of it, bool [queries, keys], or None)."""
    for i in range(0, n, step):
        block = slice(i, min(i + step, n))
        tiles: list[Any] = []
        for j in range(0, block.stop if causal else m, COLUMNS):
            columns = slice(j, min(j + COLUMNS, block.stop if causal else m))
            hidden = None
            if causal and columns.stop > i:
                hidden = torch.arange(*_ends(columns)) > torch.arange(*_ends(block))[:, None]
            elif mask is not None:
                hidden = ~mask[block, columns]
                if bool(hidden.all()):
                    continue
            tiles.append((columns, hidden if hidden is not None and bool(hidden.any()) else None))
        yield block, tiles


def _ends(s: slice) -> tuple[int, int]:
    return s.start, s.stop


def _scores(query: Tensor, keys: Tensor, hidden: Tensor | None, shared: int) -> Tensor:
    """Scores [r, c] in units of log 2 of scaled queries [r, D] and keys [c, D]; `shared` heads have one mask."""
    scores = times(query, keys)
    if hidden is not None:
        scores.view(shared, *hidden.shape).masked_fill_(hidden, NEVER)
    return scores


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        rows, heads, n, size = query.shape
        shared = heads // keys.shape[1]
        keys, values = keys.contiguous(), values.contiguous()
        out = query.new_empty(rows, n, heads, size)
        norms = query.new_empty(rows, heads, n)
        for b, k, turned, seen in _heads(query, keys.shape[1], mask):
            for block, tiles in _tiles(n, keys.shape[2], _step(shared), seen, causal):
                q = turned[:, block].reshape(-1, size)
                top = q.new_full((len(q), 1), NEVER)
                total, found = torch.zeros_like(top), torch.zeros_like(q)
                for columns, hidden in tiles:
                    scores = _scores(q, keys[b, k, columns], hidden, shared)
                    higher = torch.maximum(top, scores.amax(-1, keepdim=True))
                    weights = scores.sub_(higher).exp2_()
                    shrunk = (top - higher).exp2_()
                    total = total.mul_(shrunk).add_(weights.sum(-1, keepdim=True))
                    found = found.mul_(shrunk).add_(times(weights, values[b, k, columns].t()))
                    top = higher
                place = slice(k * shared, (k + 1) * shared)
                out[b, block, place] = (found / total).view(shared, -1, size).transpose(0, 1)
                norms[b, place, block] = (top + total.log2()).view(shared, -1)
        ctx.save_for_backward(query, keys, values, mask, out, norms)
        ctx.causal = causal
        return out.transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, keys, values, mask, out, norms = ctx.saved_tensors
        rows, heads, n, size = query.shape
        shared, m = heads // keys.shape[1], keys.shape[2]
        of_query = torch.empty_like(out)
        # Keys stand in columns here, as the products leave them.
        of_keys, of_values = (query.new_zeros(rows, keys.shape[1], size, m) for _ in "kv")
        inner = (gradient * out.transpose(1, 2)).sum(-1)
        for b, k, turned, seen in _heads(query, keys.shape[1], mask):
            place = slice(k * shared, (k + 1) * shared)
            for block, tiles in _tiles(n, m, _step(shared), seen, ctx.causal):
                q, g = turned[:, block].reshape(-1, size), gradient[b, place, block].reshape(-1, size)
                norm, mean = (x[b, place, block].reshape(-1, 1) for x in (norms, inner))
                found = torch.zeros_like(q)
                for columns, hidden in tiles:
                    weights = _scores(q, keys[b, k, columns], hidden, shared).sub_(norm).exp2_()
                    of_values[b, k, :, columns] += times(g.t(), weights.t())
                    slopes = times(g, values[b, k, columns]).sub_(mean).mul_(weights)
                    found += times(slopes, keys[b, k, columns].t())
                    of_keys[b, k, :, columns] += times(q.t(), slopes.t())
                of_query[b, block, place] = found.view(shared, -1, size).transpose(0, 1)
        return (
            of_query.mul_(size**-0.5).transpose(1, 2),
            of_keys.mul_(math.log(2)).transpose(2, 3),
            of_values.transpose(2, 3),
            None,
            None,
        )


def _step(shared: int) -> int:
    """Queries of a block, so that its tiles have about ROWS rows."""
    return max(16, ROWS // shared)


def _heads(query: Tensor, count: int, mask: Tensor | None) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
    """Each row and key head: (row, head, its scaled queries [shared, n, D], the row's mask [n, m])."""
    rows, heads, n, size = query.shape
    # Scores in units of log 2: exp2 is what processors compute.
    scaled = (query * (size**-0.5 / math.log(2))).view(rows, count, heads // count, n, size)
    for b in range(rows):
        seen = None if mask is None else mask[b if len(mask) > 1 else 0, 0]
        for k in range(count):
            yield b, k, scaled[b, k], seen
