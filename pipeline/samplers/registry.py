"""The samplers by name, with the parameters that each takes and their defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipeline.errors import UserError
from pipeline.samplers.aks import recursive_split
from pipeline.samplers.bolt import inverse_transform
from pipeline.samplers.draw import Draw, Floats
from pipeline.samplers.even import uniform_sampler
from pipeline.samplers.importance import stratified_importance
from pipeline.samplers.top import top_k

DEFAULT = "importance"

PARAMETERS: Mapping[str, Any] = MappingProxyType(
    {"mix": 0.8, "temperature": 0.1, "bins": None, "power": 3.0, "threshold": 0.8, "depth": 5}
)
"""Defaults of all parameters; bins None is half of the budget. Power, threshold and depth are those of the methods' own
programs."""

_NEXT = "strive-data build-variants --help"


@dataclass(frozen=True)
class Sampler:
    """A sampler and what it asks for.

    Attributes:
        function: (scores, times, budget, seed, **parameters) -> Draw.
        parameters: names of those that it takes beyond the first four.
        by_chance: whether it is a random method; the others are themselves with seed None.
        by_score: whether scores decide.
    """

    function: Callable[..., Draw]
    parameters: tuple[str, ...] = ()
    by_chance: bool = False
    by_score: bool = True

    def draw(
        self, scores: Floats, times: Floats, budget: int, seed: int, parameters: Mapping[str, Any], itself: bool
    ) -> Draw:
        """One draw; `itself` lets a method without chance be itself, as it was published, whatever the seed."""
        used = None if itself and not self.by_chance else seed
        return self.function(scores, times, budget, used, **parameters)


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "uniform": Sampler(uniform_sampler, by_score=False),
        "importance": Sampler(stratified_importance, ("mix", "temperature", "bins"), by_chance=True),
        "bolt": Sampler(inverse_transform, ("power",)),
        "aks": Sampler(recursive_split, ("threshold", "depth")),
        "top-k": Sampler(top_k),
    }
)


def parameters_of(name: str, budget: int, **given: Any) -> dict[str, Any]:
    """The parameters that a sampler takes, and no others: `given`, or the defaults.

    Args:
        name: in SAMPLERS. budget: frames a view, which bins are counted against.

    Raises:
        UserError: no sampler has this name, or a parameter, of this sampler or another, is out of range.
    """
    if name not in SAMPLERS:
        raise UserError(f"--sampler {name}", f"one of {', '.join(SAMPLERS)}", _NEXT)
    values = {**PARAMETERS, **given}
    if values["bins"] is None:
        values["bins"] = max(1, budget // 2)
    rules = {
        "mix": (0.0 <= values["mix"] <= 1.0, "0 (coverage alone) to 1 (relevance alone)"),
        "temperature": (values["temperature"] > 0.0, "above 0"),
        "bins": (1 <= values["bins"] <= budget, f"1 to the {budget} frames of a view"),
        "power": (values["power"] > 0.0, "above 0"),
        "threshold": (values["threshold"] >= 0.0, "0 (nearly top-k) or more (1: one frame a segment)"),
        "depth": (values["depth"] >= 0, "0 halvings or more"),
    }
    for parameter, (holds, expectation) in rules.items():
        if not holds:
            raise UserError(f"--{parameter} {values[parameter]}", expectation, _NEXT)
    return {parameter: values[parameter] for parameter in SAMPLERS[name].parameters}
