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
from trainer.families import Family, Prompt, VisionFeatures, extend, family_of, known_family
from trainer.identity import base_of, policy_fingerprint
from trainer.logits import target_logprobs
from trainer.onepass import Behind, states_behind
from trainer.packing import Packed
from trainer.patches import as_products
from trainer.recompute import recomputing
from trainer.rollout import Prefilled, Sampled, decode, prefill
from trainer.textmodel import text_model
from trainer.visioncache import VisionCache, identity_of

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Policy:
    """A loaded model with everything needed to ask it.

    Attributes:
        model: the transformers model. processor: its processor. family: what its inputs look like.
        fingerprint: identity of the weights that were loaded. cache: where features of its vision tower are kept; None:
            nowhere.
    """

    def __init__(self, model: Any, processor: Any, identity: str) -> None:
        self.model = model
        self.processor = processor
        self.family: Family = family_of(model, processor)
        self.fingerprint = identity
        self.cache: VisionCache | None = None

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
        return [
            extend(head, self.family.tail(question, options, seen=len(view.frames) > 0))
            for head, view, (question, options) in zip(heads, views, texts, strict=True)
        ]

    def encode(self, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        """Vision features, one encoding a prompt, or what is kept of an earlier one; none for a text-only one."""
        if self.cache is None:
            return self._encoded(prompts)
        shown = [p for p in prompts if len(p.grid)]
        seen = iter(self.cache.features(shown, self._encoded, self.device))
        return [next(seen) if len(p.grid) else self._encoded([p])[0] for p in prompts]

    def _encoded(self, prompts: Sequence[Prompt]) -> list[VisionFeatures]:
        tower = self.family.vision(self.model)
        with as_products(tower), recomputing(tower):
            return self.family.encode(self.model, prompts)

    def keep_features(self, folder: Path, arithmetic: str) -> VisionCache:
        """Keep the features of the vision tower in a folder from now on; it must not learn.

        Args:
            arithmetic: fp32 or bf16, in which it computes.

        Raises:
            UserError: the folder belongs to another tower.
        """
        self.cache = VisionCache(folder, identity_of(self.model, self.family.vision(self.model), arithmetic))
        return self.cache

    def recompute_layers(self) -> None:
        """Gradient checkpointing: from now on layers keep no inner values for the backward pass but compute again."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        if getattr(self.model, "_hf_peft_config_loaded", False):
            self.model.disable_input_require_grads()  # which only reentrant checkpoints need

    def text(self, sampled: Sampled) -> str:
        """The response as text, without its end token."""
        ids = [t for t in sampled.tokens.tolist() if t != self.family.eos_id]
        decoded: str = self.processor.tokenizer.decode(ids, skip_special_tokens=False)
        return decoded

    def logprobs(self, packed: Packed, features: Sequence[VisionFeatures], temperature: float) -> Tensor:
        """Log-probs of all targets of a packed batch, at least float32 [R]; logits exist there only, in portions."""
        with recomputing(self.family.language(self.model)):
            out = self.family.hidden(
                self.model,
                features,
                input_ids=packed.ids,
                attention_mask=packed.mask(),
                position_ids=packed.positions,
                use_cache=False,
            )
        states = out.last_hidden_state[packed.rows, packed.sources]
        return target_logprobs(self.model.lm_head, states, packed.targets, self.family.banned_ids, temperature)

    def prompt_pass(self, prompts: Sequence[Prompt], features: Sequence[VisionFeatures]) -> Prefilled:
        """One pass over prompts whose graph is kept: decode behind it, then call `logprobs_behind`."""
        return prefill(self.model, self.family, prompts, features, gradient=True)

    def logprobs_behind(self, ready: Prefilled, laid: Behind, temperature: float) -> Tensor:
        """Log-probs of all targets behind prompts, at least float32 [R]; gradient reaches prompts and responses."""
        states = states_behind(self.model, ready, laid)
        return target_logprobs(self.model.lm_head, states, laid.targets, self.family.banned_ids, temperature)

    @property
    def layered(self) -> bool:
        """Whether prompts can be run once for rollout and loss: the model's layers are known to `text_model`."""
        return text_model(self.model) is not None

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write weights, config and processor as a folder that `load_policy` and transformers open.

        Args:
            weights: all of them by name, where the model holds shares of them alone.
        """
        self.model.save_pretrained(folder, state_dict=weights)
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
        name: a folder in transformers' layout, a LoRA adapter's folder (its base is loaded too), or an id like
            Qwen/Qwen3-VL-8B-Instruct.
        precision: fp32 or bf16, the type of the weights.

    Raises:
        UserError: no such folder, not a video-language model, or none that a family knows (found before its weights
            are read), or its weights are no safetensors. Code that comes with a model is never run.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor, PretrainedConfig
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # bars belong on terminals only
    base = base_of(name)
    if base is not None:
        from trainer import adapters  # which builds on this module

        return adapters.attach(load_policy(base, device, precision), Path(name))
    identity = policy_fingerprint(name)
    try:
        config, _ = PretrainedConfig.get_config_dict(str(name))
        known_family(str(config.get("model_type")))
        processor = AutoProcessor.from_pretrained(str(name), trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            str(name), dtype=PRECISIONS[precision], trust_remote_code=False, use_safetensors=True
        )
    except ImportError as error:  # the stock processor of a family may need a package of its own
        first = str(error).strip().splitlines()[0]
        raise UserError(f"policy {str(name)!r}", f"its processor cannot be loaded ({first})", "install it") from error
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
