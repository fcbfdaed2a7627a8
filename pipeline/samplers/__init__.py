"""Which cached frames a view shows: one sampler a file, all with the same arguments, found by name in SAMPLERS.

A sampler is a pure function of (scores, times, budget, seed) and its own parameters. It gives `budget` distinct frames
in order, or all frames of a video that has no more; scores that tell nothing are replaced by coverage, and the draw
says so. A method without chance is itself with seed None, and gives neighbours of itself with other seeds.
"""

from pipeline.samplers.aks import recursive_split
from pipeline.samplers.bolt import inverse_transform
from pipeline.samplers.draw import JITTER, Draw, Floats, is_flat, largest_gap, pad
from pipeline.samplers.even import spread, uniform
from pipeline.samplers.importance import log_weights, stratified_importance
from pipeline.samplers.registry import DEFAULT, PARAMETERS, SAMPLERS, Sampler, parameters_of
from pipeline.samplers.top import top_k

__all__ = [
    "DEFAULT",
    "JITTER",
    "PARAMETERS",
    "SAMPLERS",
    "Draw",
    "Floats",
    "Sampler",
    "inverse_transform",
    "is_flat",
    "largest_gap",
    "log_weights",
    "pad",
    "parameters_of",
    "recursive_split",
    "spread",
    "stratified_importance",
    "top_k",
    "uniform",
]
