"""The only package that knows model families: how a view and a question become the inputs of a stock class."""

from collections.abc import Callable
from typing import Any

from pipeline.errors import UserError
from trainer.families.base import Family, Prompt, VisionFeatures, extend
from trainer.families.positions import TEXT, VIDEO, clocked_positions, frame_positions, ticks
from trainer.families.qwen2_5_vl import Qwen25VL
from trainer.families.qwen3_vl import Qwen3VL
from trainer.families.smolvlm import SmolVLM

__all__ = [
    "FAMILIES",
    "TEXT",
    "VIDEO",
    "Family",
    "Prompt",
    "VisionFeatures",
    "clocked_positions",
    "extend",
    "family_of",
    "frame_positions",
    "known_family",
    "ticks",
]

FAMILIES: dict[str, Callable[[Any, Any], Family]] = {
    "qwen3_vl": Qwen3VL,
    "qwen2_5_vl": Qwen25VL,
    "smolvlm": SmolVLM,
}
"""transformers' `model_type` -> family, made from a loaded model and its processor."""


def known_family(name: str) -> None:
    """Check a config's `model_type`, before any weights are read.

    Raises:
        UserError: the family is unknown; the message lists those that work.
    """
    if name not in FAMILIES:
        raise UserError(f"model family {name!r}", f"works with: {', '.join(FAMILIES)}", "choose another --policy")


def family_of(model: Any, processor: Any) -> Family:
    """The family of a loaded model.

    Raises:
        UserError: the family is unknown; the message lists those that work.
    """
    known_family(model.config.model_type)
    return FAMILIES[model.config.model_type](model, processor)
