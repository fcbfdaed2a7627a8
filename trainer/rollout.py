"""Rollouts: every view is encoded and prefilled once; all of its responses read that one prompt.

Legend of shapes: B prompts, L tokens of the longest prompt, N responses in all, T response tokens, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from trainer.decode import Steps, StockSteps
from trainer.families import TEXT, Family, Prompt, VisionFeatures
from trainer.recorded import steps_for
from trainer.sampling import Choose, Sampled, inverse_cdf, token_logprobs, truncated, uniforms
from trainer.textmodel import Cache, TextModel, text_model

__all__ = [
    "Choose",
    "Prefilled",
    "Sampled",
    "decode",
    "inverse_cdf",
    "prefill",
    "rollout",
    "token_logprobs",
    "uniforms",
]


@dataclass(frozen=True)
class Prefilled:
    """What all responses to a batch of prompts share: the keys and values of every prompt, and where each goes on.

    cache: of B prompts; our own, padded on the right, or the model's, padded on the left.
    hidden: [B, H], the last state of each. lengths: long [B]. following: long [B], the position of each first response
    token. All carry a graph when the prompts were run with one.
    """

    cache: Cache | DynamicCache
    hidden: Tensor
    lengths: Tensor
    following: Tensor

    def of(self, rows: Sequence[int]) -> "Prefilled":
        """Some of the prompts; gradient flows back to where they come from. Only of our own cache."""
        index = torch.tensor(rows, dtype=torch.long, device=self.hidden.device)
        assert isinstance(self.cache, Cache)
        return Prefilled(self.cache.rows(index), self.hidden[index], self.lengths[index], self.following[index])


def joined(parts: Sequence[Prefilled]) -> Prefilled:
    """Prompts of several passes side by side, to decode together; without their graphs. Only of our own cache."""
    if len(parts) == 1:
        return parts[0]
    caches = [p.cache.detached() for p in parts if isinstance(p.cache, Cache)]
    longest = max(c.keys[0].shape[2] for c in caches)

    def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(t, (0, 0, 0, longest - t.shape[2])) for t in tensors])

    cache = Cache(
        [side_by_side(layer) for layer in zip(*(c.keys for c in caches), strict=True)],
        [side_by_side(layer) for layer in zip(*(c.values for c in caches), strict=True)],
    )
    hidden = torch.cat([p.hidden.detach() for p in parts])
    return Prefilled(cache, hidden, torch.cat([p.lengths for p in parts]), torch.cat([p.following for p in parts]))


def rollout(
    model: Any,
    family: Family,
    prompts: Sequence[Prompt],
    features: Sequence[VisionFeatures],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    top_p: float = 1.0,
    top_k: int = 0,
    choose: Choose | None = None,
) -> list[list[Sampled]]:
    """Sample responses for a batch of prompts: one `prefill`, then `decode`.

    Args:
        prompts: B prompts of any lengths. features: their vision features.
        seeds, temperature, max_tokens, top_p, top_k, choose: see `decode`.

    Returns:
        For each prompt its responses, in the order of its seeds.
    """
    ready = prefill(model, family, prompts, features)
    rows = range(len(prompts))
    settings = {"temperature": temperature, "max_tokens": max_tokens, "top_p": top_p, "top_k": top_k}
    return decode(model, family, ready, rows, seeds, **settings, choose=choose)  # type: ignore[arg-type]


def prefill(
    model: Any,
    family: Family,
    prompts: Sequence[Prompt],
    features: Sequence[VisionFeatures],
    *,
    gradient: bool = False,
    stock: bool = False,
) -> Prefilled:
    """Run a batch of prompts through the model once.

    Args:
        gradient: keep the graph, so that a loss behind these prompts reaches the weights (`onepass`).
        stock: use the model's own forward even where `text_model` knows its layers.

    Raises:
        ValueError: a gradient is asked of a model whose layers `text_model` does not know.
    """
    text = None if stock else text_model(model)
    if gradient and text is None:
        raise ValueError("one prompt pass for rollout and loss needs layers that `text_model` knows")
    with nullcontext() if gradient else torch.no_grad():
        return (
            _own_prefill(text, family, prompts, features) if text else _stock_prefill(model, family, prompts, features)
        )


def _own_prefill(
    text: TextModel, family: Family, prompts: Sequence[Prompt], features: Sequence[VisionFeatures]
) -> Prefilled:
    device = next(text.stack.parameters()).device
    length = max(len(p.ids) for p in prompts)
    ids = torch.full((len(prompts), length), family.pad_id)
    positions = torch.zeros(3, len(prompts), length, dtype=torch.long)
    seen = torch.zeros(len(prompts), length, dtype=torch.bool)
    for b, p in enumerate(prompts):
        n = len(p.ids)
        ids[b, :n], positions[:, b, :n], seen[b, :n] = p.ids, p.positions, p.types != TEXT
    ids, positions, seen = ids.to(device), positions.to(device), seen.to(device)
    lengths = torch.tensor([len(p.ids) for p in prompts], device=device)
    shown = [f for f in features if len(f.pooled)]
    hidden = text.embed(ids)
    deep: list[Tensor] = []
    if shown:
        pooled = torch.cat([f.pooled for f in shown]).to(hidden.dtype)
        hidden = hidden.masked_scatter(seen[..., None], pooled)
        deep = [torch.cat(layer) for layer in zip(*(f.deepstack for f in shown), strict=True)]
    cache, state = text.prompt_pass(hidden, positions, lengths - 1, seen if deep else None, deep)
    following = torch.tensor([p.next_position for p in prompts], device=device)
    return Prefilled(cache, state, lengths, following)


def _stock_prefill(
    model: Any, family: Family, prompts: Sequence[Prompt], features: Sequence[VisionFeatures]
) -> Prefilled:
    if model.training and model.is_activation_checkpointing:
        # transformers then empties the cache without a word, and every response would miss its prompt.
        raise ValueError("gradient checkpointing in training mode leaves no cache to decode from: call model.eval()")
    device = next(model.parameters()).device
    ids, mask, positions = (t.to(device) for t in left_pad(prompts, family.pad_id))
    cache = DynamicCache(config=model.config.get_text_config())
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    out = family.hidden(model, features, **inputs, past_key_values=cache, use_cache=True)
    following = torch.tensor([p.next_position for p in prompts], device=device)
    return Prefilled(cache, out.last_hidden_state[:, -1], mask.sum(1), following)


def left_pad(prompts: Sequence[Prompt], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay prompts out with their ends aligned.

    Returns:
        ids long [B, L], mask long [B, L], positions long [3, B, L].
    """
    length = max(len(p.ids) for p in prompts)
    ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)
    positions = torch.zeros(3, len(prompts), length, dtype=torch.long)
    for b, p in enumerate(prompts):
        start = length - len(p.ids)
        ids[b, start:], mask[b, start:], positions[:, b, start:] = p.ids, 1, p.positions
    return ids, mask, positions


def steps_behind(model: Any, family: Family, ready: Prefilled, owner: Tensor, room: int) -> Steps:
    """What decodes behind prompts: shared keys where `text_model` knows the layers, else the model's own cache.

    Args:
        owner: long [N], ascending: the prompt of each response. room: tokens that a response may have.
    """
    if isinstance(ready.cache, Cache):
        text = text_model(model)
        if text is None:
            raise ValueError("prompts were prefilled layer by layer, but the model's layers are of another kind now")
        shared = steps_for(ready.hidden.device)
        return shared(text, ready.cache.detached(), ready.lengths, ready.following, owner, room)
    return StockSteps(model, family, ready.cache, ready.lengths, ready.following, owner)


def decode(
    model: Any,
    family: Family,
    ready: Prefilled,
    rows: Sequence[int],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    top_p: float = 1.0,
    top_k: int = 0,
    choose: Choose | None = None,
) -> list[list[Sampled]]:
    """Sample responses behind prompts that were prefilled; they stay as they are for the next call.

    Args:
        rows: which of the prompts. seeds: one list a row, one seed a response; the lists may differ in length.
        temperature: 0 takes the most probable token.
        max_tokens: a response without an end token is cut here.
        top_p, top_k: see `truncated`.
        choose: replaces the seeded choice (tests use it to share a generator with `generate`); all responses then
            stay in the batch to the end.

    Returns:
        For each row its responses, in the order of its seeds.
    """
    flat = [s for group in seeds for s in group]
    if not flat:
        return [[] for _ in seeds]
    repeats = torch.tensor([row for row, group in zip(rows, seeds, strict=True) for _ in group])
    with torch.inference_mode():
        found = _decode(model, family, ready, repeats, flat, temperature, max_tokens, (top_p, top_k), choose)
    # Copies, because a loss may not read what inference mode made.
    tokens, logprobs, drawn = (t.cpu().clone() for t in found)
    return _by_prompt(tokens, logprobs, drawn, seeds, family.eos_id)


def _decode(
    model: Any,
    family: Family,
    ready: Prefilled,
    repeats: Tensor,
    seeds: Sequence[int],
    temperature: float,
    max_tokens: int,
    limits: tuple[float, int],
    choose: Choose | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`decode` for a flat list of responses.

    Args:
        repeats: long [N], the prompt of each response. seeds: N. limits: top_p and top_k.

    Returns:
        tokens long [N, max_tokens], log-probs trained and drawn from float32 [N, max_tokens].
    """
    # 1) The responses of one prompt side by side, whatever the order of the rows.
    device = ready.hidden.device
    order = repeats.argsort(stable=True)
    owner, live = repeats[order].to(device), order.to(device)
    draws = uniforms(seeds, max_tokens).to(device)
    step = steps_behind(model, family, ready, owner, max_tokens)
    tokens = torch.full((len(seeds), max_tokens), family.pad_id, device=device)
    logprobs = torch.zeros(len(seeds), max_tokens, device=device)
    drawn = torch.zeros_like(logprobs)
    done = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    hidden = ready.hidden.detach()[owner]
    # 2) Decode with explicit positions: the model's own inference of them goes wrong silently.
    for t in range(max_tokens):
        logp = token_logprobs(model.lm_head(hidden), family.banned_ids, temperature)
        left = truncated(logp, *limits)
        if temperature == 0:
            token = logp.argmax(-1)
        elif choose:
            token = choose(left.exp()[live.argsort()], t)[live]
        else:
            token = inverse_cdf(left.exp(), draws[live, t])
        tokens[live, t] = token.masked_fill(done, family.pad_id)
        logprobs[live, t] = logp.gather(-1, token[:, None])[:, 0].float()
        drawn[live, t] = logprobs[live, t] if left is logp else left.gather(-1, token[:, None])[:, 0].float()
        done = done | (token == family.eos_id)
        unfinished = int((~done).sum())
        if not unfinished or t == max_tokens - 1:
            break
        # 3) Finished responses leave the batch.
        if not choose and unfinished <= step.roomy * len(live):
            step.keep(~done)
            live, token, done = live[~done], token[~done], done[~done]
        hidden = step(token, t)
    return tokens, logprobs, drawn


def _by_prompt(
    tokens: Tensor, logprobs: Tensor, drawn: Tensor, seeds: Sequence[Sequence[int]], eos_id: int
) -> list[list[Sampled]]:
    ends = tokens == eos_id
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, tokens.shape[1]).tolist()
    flat = iter([Sampled(t[:n], lp[:n], d[:n]) for t, lp, d, n in zip(tokens, logprobs, drawn, lengths, strict=True)])
    return [[next(flat) for _ in group] for group in seeds]
