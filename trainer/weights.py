"""The numbers of a policy that learn: whole in every process, or spread over the processes of a run (FSDP2).

Spread, a process keeps a share of every weight, of its gradient and of its two moments. A step begins by gathering all
weights and ends by adding the gradients up into the shares; between these two nobody waits for anybody. So processes
may decode for different lengths, run different numbers of micro-batches, and hold no live pool at all, and a step stays
the same step. What it costs: during a step every process holds all weights and their gradients, not one layer's.

`Weights` is the whole kind, and what a trainer calls; with one process its sums change nothing, to the bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from pipeline.errors import UserError
from trainer.policy import Policy
from trainer.ranks import ALONE, Ranks

_CONFIG = "set that in the file of --config_file as docs/accelerate/fsdp2.yaml has it"


class Weights:
    """Weights that every process holds whole.

    Attributes:
        trained: the parameters that learn, for the optimizer; they stay the same objects.
    """

    def __init__(self, policy: Policy, ranks: Ranks = ALONE) -> None:
        self.model, self.ranks = policy.model, ranks
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    def gather(self) -> None:
        """Before a step: have all weights in this process. All processes call it."""

    def sum_gradients(self) -> None:
        """Sum the gradients over all processes, into those of `trained`. All processes call it, after the last pass of
        a step.

        Raises:
            PeerError: another process has failed, or has gone.
        """
        self.ranks.sum_gradients(self.trained)

    def clip(self, norm: float) -> float:
        """Scale the summed gradients down to a norm; returns what it was before. All processes call it."""
        found = nn.utils.clip_grad_norm_(self.trained, norm)
        return float(found.full_tensor() if isinstance(found, DTensor) else found)

    def to_save(self) -> dict[str, Tensor] | None:
        """All weights by name, of spread ones; None: the model itself has them. All processes call it."""
        return None

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state, whole: what one process would save. All processes call it."""
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put back what `optimizer_state` returned, whoever saved it and in however many processes."""
        optimizer.load_state_dict(dict(state))


class SpreadWeights(Weights):
    """Weights that are spread over the processes, by PyTorch's fully_shard.

    Args:
        layers: modules whose weights are gathered together; what is in none of them is gathered at once.
    """

    def __init__(self, policy: Policy, ranks: Ranks, layers: Sequence[nn.Module]) -> None:
        mesh = init_device_mesh(policy.device.type, (ranks.count,))
        for module in (*layers, policy.model):
            fully_shard(module, mesh=mesh, reshard_after_forward=False)
        super().__init__(policy, ranks)
        # A layer's own hooks find its weights gathered, leave them so, and leave gradients to `sum_gradients`: else a
        # process that runs a layer once more than another would wait for it for ever.
        policy.model.set_reshard_after_backward(False)
        policy.model.set_requires_gradient_sync(False)
        self.units = [m for m in policy.model.modules() if isinstance(m, FSDPModule)]

    def gather(self) -> None:
        self.ranks.gathered(None)  # a process that has failed says so here, and not in the middle of what follows
        for unit in self.units:
            unit.unshard()

    def _spread(self) -> None:
        for unit in self.units:
            unit.reshard()

    def sum_gradients(self) -> None:
        whole = [p for p in self.model.parameters() if p.requires_grad]
        known = self.ranks.gathered([p.grad is not None for p in whole])
        with self.ranks.together():
            for share, p, *has in zip(self.trained, whole, *known, strict=True):
                if any(has):
                    own = torch.zeros_like(p) if p.grad is None else p.grad
                    p.grad = None
                    summed = DTensor.from_local(own, share.device_mesh, [Partial("sum")], run_check=False)
                    share.grad = summed.redistribute(placements=share.placements)
        self._spread()

    def to_save(self) -> dict[str, Tensor] | None:
        kept = self.model.state_dict().keys()
        self.gather()
        named = [
            *self.model.named_parameters(remove_duplicate=False),
            *self.model.named_buffers(remove_duplicate=False),
        ]
        copies: dict[int, Tensor] = {}  # weights that are tied stay tied
        if self.ranks.main:
            copies = {id(x): x.detach().to("cpu", copy=True) for _, x in named}
        self._spread()
        return {name: copies[id(x)] for name, x in named if name in kept and id(x) in copies}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        self.ranks.gathered(None)
        content = optimizer.state_dict()
        with self.ranks.together():
            whole = {
                place: {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in values.items()}
                for place, values in content["state"].items()
            }
        return content | {"state": whole}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        def share(x: Any, like: DTensor) -> Any:
            if not isinstance(x, Tensor) or x.shape != like.shape:
                return x
            return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)

        spread = {
            place: {name: share(x, self.trained[place]) for name, x in values.items()}
            for place, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": spread})


def weights_of(policy: Policy, ranks: Ranks = ALONE) -> Weights:
    """The weights of a policy as the launcher was told to hold them; call it once it is settled which of them learn.

    Raises:
        UserError: the launcher's settings for FSDP ask for something else than what `SpreadWeights` does.
    """
    if ranks.count == 1 or not is_spread():
        return Weights(policy, ranks)
    check_plugin(FullyShardedDataParallelPlugin())
    return SpreadWeights(policy, ranks, layers_of(policy))


def is_spread() -> bool:
    """Whether the launcher was told to use FSDP. accelerate itself does not look on a CPU."""
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def check_plugin(plugin: FullyShardedDataParallelPlugin) -> None:
    """Raises UserError for settings of the launcher that a run would not follow."""
    wrong = [
        (plugin.fsdp_version != 2, f"fsdp_version: {plugin.fsdp_version}", "expected 2"),
        (
            isinstance(plugin.cpu_offload, CPUOffloadPolicy),
            "fsdp_offload_params: true",
            "shares stay on the device that computes: expected false",
        ),
        (
            plugin.activation_checkpointing,
            "fsdp_activation_checkpointing: true",
            "expected false; it is a setting of the run, --set gradient_checkpointing=true",
        ),
        (
            plugin.cpu_ram_efficient_loading,
            "fsdp_cpu_ram_efficient_loading: true",
            "every process reads the policy itself: expected false",
        ),
    ]
    for found, value, expectation in wrong:
        if found:
            raise UserError(value, expectation, _CONFIG)


def layers_of(policy: Policy) -> list[nn.Module]:
    """The blocks of a policy's language model and vision tower: the elements of their outermost lists of equals."""
    found: list[nn.Module] = []
    for part in (policy.family.language(policy.model), policy.family.vision(policy.model)):
        for module in part.modules():
            inside = {id(m) for layer in found for m in layer.modules()}
            if isinstance(module, nn.ModuleList) and id(module) not in inside and len({type(m) for m in module}) == 1:
                found += module
    return found
