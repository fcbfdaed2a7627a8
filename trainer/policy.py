"""A policy: a stock transformers video-language model, its processor and its family, ready to answer and to learn."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.answerer import Request, Response
from pipeline.errors import UserError
from pipeline.views import View
from trainer.device import resolve_device
from trainer.families import Family, Prompt, VisionFeatures, extend, family_of
from trainer.identity import policy_fingerprint
from trainer.packing import Packed
from trainer.rollout import Prefilled, Sampled, decode, prefill, token_logprobs

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Policy:
    """A loaded model with everything needed to ask it.

    Attributes:
        model: the transformers model. processor: its processor. family: what its inputs look like.
        fingerprint: identity of the weights that were loaded.
    """

    def __init__(self, model: Any, processor: Any, identity: str) -> None:
        self.model = model
        self.processor = processor
        self.family: Family = family_of(model, processor)
        self.fingerprint = identity

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def prompts(
        self, views: Sequence[View], texts: Sequence[tuple[str, Sequence[str]]], *, blind: bool = False
    ) -> list[Prompt]:
        """One prompt for each view and its (question, options).

        Args:
            blind: views without frames are meant, and get text-only prompts.

        Raises:
            ValueError: a view has no frames and `blind` is not set: no video is ever left out by accident.
        """
        if not blind and any(len(v.frames) == 0 for v in views):
            raise ValueError("a view has no frames")
        heads = self.family.heads(views)
        return [extend(h, self.family.tail(q, o)) for h, (q, o) in zip(heads, texts, strict=True)]

    def encode(self, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Vision features, one encoding a prompt; none for a text-only one."""
        return self.family.encode(self.model, prompts)

    def text(self, sampled: Sampled) -> str:
        """The response as text, without its end token."""
        ids = [t for t in sampled.tokens.tolist() if t != self.family.eos_id]
        decoded: str = self.processor.tokenizer.decode(ids, skip_special_tokens=False)
        return decoded

    def logprobs(self, packed: Packed, features: Sequence[VisionFeatures], temperature: float) -> Tensor:
        """Log-probs of all targets of a packed batch, float32 [R]; logits exist at those positions only."""
        out = self.family.hidden(
            self.model,
            features,
            input_ids=packed.ids,
            attention_mask=packed.mask(),
            position_ids=packed.positions,
            use_cache=False,
        )
        logits = self.model.lm_head(out.last_hidden_state[packed.rows, packed.sources])
        logp = token_logprobs(logits, self.family.banned_ids, temperature)
        return logp.gather(-1, packed.targets[:, None])[:, 0]

    def save(self, folder: Path) -> None:
        """Write weights, config and processor as a folder that `load_policy` and transformers open."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def prepare(self, requests: Sequence[Request]) -> list[Request]:
        """Encode and prefill views once, for all draws that follow (the ledger's Answerer); no frames: text alone."""
        if not requests:
            return []
        views = [View(r.frames, r.times) for r in requests]
        prompts = self.prompts(views, [(r.question, r.options) for r in requests], blind=True)
        with torch.no_grad():
            features = self.encode(prompts)
        ready = prefill(self.model, self.family, prompts, features)
        return [replace(r, state=_Place(ready, row)) for row, r in enumerate(requests)]

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        """Draw responses, one a seed of each request (the ledger's Answerer)."""
        if any(r.state is None for r in requests):
            requests = self.prepare(requests)
        out: list[list[Response]] = [[] for _ in requests]
        batches: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            batches.setdefault(id(request.state.ready), []).append(i)
        for members in batches.values():
            rows, seeds = [requests[i].state.row for i in members], [requests[i].seeds for i in members]
            ready = requests[members[0]].state.ready
            drawn = decode(self.model, self.family, ready, rows, seeds, temperature=temperature, max_tokens=max_tokens)
            for i, group in zip(members, drawn, strict=True):
                out[i] = [Response(self.text(s), len(s.tokens), float(s.logprobs.sum())) for s in group]
        return out


@dataclass(frozen=True)
class _Place:
    """Where a request's view lies among those that were prefilled together."""

    ready: Prefilled
    row: int


def load_policy(name: str | Path, device: str = "cpu", precision: str = "fp32") -> Policy:
    """Load a policy from a local folder or a hub id.

    Args:
        name: a folder in transformers' layout, or an id like Qwen/Qwen3-VL-8B-Instruct.
        precision: fp32 or bf16, the type of the weights.

    Raises:
        UserError: no such folder, or not a video-language model that a family knows.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # bars belong on terminals only
    identity = policy_fingerprint(name)
    try:
        model = AutoModelForImageTextToText.from_pretrained(str(name), dtype=PRECISIONS[precision])
        processor = AutoProcessor.from_pretrained(str(name))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"policy {str(name)!r}",
            f"expected a video-language model in transformers' layout ({first})",
            "give a folder with config.json, weights and processor files, or a hub id, as --policy",
        ) from error
    return Policy(model.to(device).eval(), processor, identity)


def load_answerer(folder: str, device: str) -> Policy:
    """What the `select` stage calls in its worker: a policy that answers. `device` may be auto."""
    return load_policy(folder, resolve_device(device))
