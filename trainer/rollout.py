"""Rollouts: every view is encoded and prefilled once, then its KV cache is repeated for all of its responses.

Legend of shapes: B prompts, L tokens of the longest prompt, N responses in all, T response tokens, V vocabulary.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.families import Family, Prompt, VisionFeatures

Choose = Callable[[Tensor, int], Tensor]
"""(probabilities [N, V], step) -> token ids [N]."""


@dataclass(frozen=True)
class Sampled:
    """One sampled response: tokens long [T] (its end token included, when it came), log-probs float32 [T]."""

    tokens: Tensor
    logprobs: Tensor


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """The random numbers of each response: a function of its own seed alone, whatever shares its batch.

    Returns:
        float64 [len(seeds), steps], each in [0, 1).
    """
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(s)).random(steps) for s in seeds]))


def inverse_cdf(probabilities: Tensor, u: Tensor) -> Tensor:
    """Sample by inverting the cumulative distribution; a token of probability 0 is never chosen.

    Args:
        probabilities: [N, V], rows sum to about 1.
        u: [N], in [0, 1).

    Returns:
        long [N].
    """
    cdf = probabilities.double().cumsum(-1)
    # Scaling by the true total keeps u inside the table when rounding left the total below 1.
    target = u.to(cdf.device) * cdf[:, -1]
    return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]


def token_logprobs(logits: Tensor, banned_ids: Sequence[int], temperature: float) -> Tensor:
    """Log-probabilities at a temperature, with banned tokens at -inf: the distribution that is sampled and trained.

    Args:
        logits: [..., V]. temperature: 0 (greedy) reads as 1.
    """
    scaled = logits.float() / (temperature or 1.0)
    scaled[..., list(banned_ids)] = -torch.inf
    return scaled.log_softmax(-1)


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


@dataclass(frozen=True)
class Prefilled:
    """What all responses to a batch of prompts share: the KV cache of every prompt, and where each one goes on.

    cache: of B prompts, padded on the left. hidden: [B, H], the last state of each. mask: long [B, L].
    following: long [B], the position of each first response token.
    """

    cache: DynamicCache
    hidden: Tensor
    mask: Tensor
    following: Tensor


@torch.no_grad()
def rollout(
    model: Any,
    family: Family,
    prompts: Sequence[Prompt],
    features: Sequence[VisionFeatures],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    choose: Choose | None = None,
) -> list[list[Sampled]]:
    """Sample responses for a batch of prompts: one `prefill`, then `decode`.

    Args:
        prompts: B prompts of any lengths. features: their vision features.
        seeds, temperature, max_tokens, choose: see `decode`.

    Returns:
        For each prompt its responses, in the order of its seeds.
    """
    ready = prefill(model, family, prompts, features)
    rows = range(len(prompts))
    return decode(model, family, ready, rows, seeds, temperature=temperature, max_tokens=max_tokens, choose=choose)


@torch.no_grad()
def prefill(model: Any, family: Family, prompts: Sequence[Prompt], features: Sequence[VisionFeatures]) -> Prefilled:
    """Run a batch of prompts through the model once."""
    device = next(model.parameters()).device
    ids, mask, positions = (t.to(device) for t in left_pad(prompts, family.pad_id))
    cache = DynamicCache(config=model.config.get_text_config())
    out = family.hidden(
        model,
        features,
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    following = torch.tensor([p.next_position for p in prompts], device=device)
    return Prefilled(cache, out.last_hidden_state[:, -1], mask, following)


@torch.no_grad()
def decode(
    model: Any,
    family: Family,
    ready: Prefilled,
    rows: Sequence[int],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    choose: Choose | None = None,
) -> list[list[Sampled]]:
    """Sample responses behind prompts that were prefilled; they stay as they are for the next call.

    Args:
        rows: which of the prompts. seeds: one list a row, one seed a response; the lists may differ in length.
        temperature: 0 takes the most probable token.
        max_tokens: a response without an end token is cut here.
        choose: replaces the seeded choice (tests use it to share a generator with `generate`).

    Returns:
        For each row its responses, in the order of its seeds.
    """
    # 1) Repeat each prompt's cache for its responses.
    flat = [s for group in seeds for s in group]
    if not flat:
        return [[] for _ in seeds]
    device = ready.hidden.device
    repeats = [row for row, group in zip(rows, seeds, strict=True) for _ in group]
    owner = torch.tensor(repeats, dtype=torch.long, device=device)
    cache = _repeated(ready.cache, owner)
    hidden, mask, following = ready.hidden[owner], ready.mask[owner], ready.following[owner]
    # 2) Decode with explicit positions: the model's own inference of them goes wrong silently.
    draws = uniforms(flat, max_tokens)
    pick = choose or (lambda p, t: inverse_cdf(p, draws[:, t]))
    tokens: list[Tensor] = []
    logprobs: list[Tensor] = []
    done = torch.zeros(len(flat), dtype=torch.bool, device=device)
    for t in range(max_tokens):
        logp = token_logprobs(model.lm_head(hidden), family.banned_ids, temperature)
        token = logp.argmax(-1) if temperature == 0 else pick(logp.exp(), t)
        tokens.append(token.masked_fill(done, family.pad_id))
        logprobs.append(logp.gather(-1, token[:, None])[:, 0])
        done = done | (token == family.eos_id)
        if bool(done.all()) or t == max_tokens - 1:
            break
        mask = torch.cat([mask, mask.new_ones(len(flat), 1)], dim=1)
        out = family.hidden(
            model,
            None,
            input_ids=tokens[-1][:, None],
            attention_mask=mask,
            position_ids=(following + t).expand(3, 1, -1).transpose(1, 2),
            past_key_values=cache,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -1]
    return _by_prompt(torch.stack(tokens, 1).cpu(), torch.stack(logprobs, 1).cpu(), seeds, family.eos_id)


def _repeated(cache: DynamicCache, owner: Tensor) -> DynamicCache:
    """A cache whose row n is row owner[n] of another, which keeps its own."""
    out = copy.copy(cache)
    out.layers = [copy.copy(layer) for layer in cache.layers]
    out.batch_select_indices(owner)
    return out


def _by_prompt(tokens: Tensor, logprobs: Tensor, seeds: Sequence[Sequence[int]], eos_id: int) -> list[list[Sampled]]:
    ends = tokens == eos_id
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, tokens.shape[1]).tolist()
    flat = iter([Sampled(t[:n], lp[:n]) for t, lp, n in zip(tokens, logprobs, lengths, strict=True)])
    return [[next(flat) for _ in group] for group in seeds]
