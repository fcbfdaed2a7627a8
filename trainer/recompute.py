"""Gradient checkpointing of the passes that are transformers' own: the vision tower's, and those over packed rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputing(part: nn.Module) -> Iterator[None]:
    """Within it the layers of a part that are marked for checkpointing do it.

    transformers lets a layer compute again in training mode only, and then empties the cache without a word. A policy
    is in evaluation mode, so that nothing is dropped out and no cache is lost; the mark alone would do nothing. Here
    the layers alone are told that they are in training, not what lies in them, for a pass that fills no cache.
    """
    layers = [m for m in part.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.training = was
