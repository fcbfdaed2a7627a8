"""The processes of one run: who takes which samples, and what they tell each other.

A step is the same step however many processes share it: its samples are dealt to them, what the loss divides by is
summed over all, and gradients are summed, not averaged. That is why no DDP is used: it averages, and its hooks wait for
a backward pass of every process, which one without a live pool never runs. Here everything that is exchanged goes
through `Ranks.gathered`, which every process calls equally often, whatever it drew, and which carries failures too; the
gradients follow one such call at once, so that no process waits for one that has failed.

With one process every function returns what it was given, to the bit.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, distributed

from pipeline.errors import UserError

T = TypeVar("T")

BUCKET = 1 << 25  # numbers of a gradient that travel at a time, at least one tensor's

PATIENCE = 10.0  # seconds that a process that failed tries to say so before it ends, by which the others notice too

_KNOWN = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP}


class PeerError(UserError):
    """Another process of the run has failed, so this one cannot go on."""


@dataclass(frozen=True)
class Failure:
    """What a process sends in place of a value when it can send nothing else any more."""

    cause: str


class Ranks:
    """This process among those of the run.

    Args:
        number: of this process, from 0. count: of all processes. group: what `gathered` goes through; it moves bytes in
            main memory (gloo), so that it works beside computations on a GPU. None: the default one.
    """

    def __init__(self, number: int = 0, count: int = 1, group: Any = None) -> None:
        self.number, self.count, self.group = number, count, group

    @property
    def main(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.number == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share of what all have: every `count`-th one, beginning with its number."""
        return list(items[self.number :: self.count])

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in their order. Every process has to call it.

        Raises:
            PeerError: another process has failed, or has gone.
        """
        if self.count == 1:
            return [value]
        parts: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(parts, value, group=self.group)
        except RuntimeError as error:
            raise self._gone(error) from error
        for number, part in enumerate(parts):
            if isinstance(part, Failure) and number != self.number:
                raise PeerError(
                    f"process {number} of {self.count}",
                    f"has failed, and all others with it: {part.cause}",
                    "put that right, then the same command with --resume if there is a checkpoint",
                )
        return parts

    def joined(self, items: Sequence[T]) -> list[T]:
        """What all processes have, in the order that it was dealt in: `mine` undone."""
        parts = self.gathered(list(items))
        return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]

    def summed(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each number summed over the processes; all get the same bits."""
        first, *others = self.gathered(dict(values))
        return {name: sum((other[name] for other in others), start=value) for name, value in first.items()}

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum gradients over the processes, in place; a parameter that no process has one for stays without.

        Raises:
            PeerError: see `gathered`.
        """
        if self.count == 1:
            return
        known = self.gathered([p.grad is not None for p in parameters])
        wanted = [p for p, *has in zip(parameters, *known, strict=True) if any(has)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        with self.together():
            for bucket in buckets(gradients, BUCKET):
                flat = torch.cat([g.reshape(-1) for g in bucket])
                distributed.all_reduce(flat)
                for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                    gradient.copy_(part.view_as(gradient))
        for parameter, gradient in zip(wanted, gradients, strict=True):
            parameter.grad = gradient

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what all processes exchange at once. Raises PeerError where another one has gone."""
        try:
            yield
        except RuntimeError as error:
            raise self._gone(error) from error

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """An error in here reaches the other processes in place of what they wait for, and is raised there too.

        Those that wait for nothing yet are not waited for longer than PATIENCE: once this process has ended, the
        launcher ends them.
        """
        try:
            yield
        except PeerError:
            raise
        except Exception as error:
            if self.count > 1:
                cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                telling = threading.Thread(target=self._tell, args=(cause,), daemon=True)
                telling.start()
                telling.join(PATIENCE)
            raise

    def _tell(self, cause: str) -> None:
        with suppress(PeerError):  # they know already, or are gone; this process's own error is the one to show
            self.gathered(Failure(cause))

    def _gone(self, error: RuntimeError) -> PeerError:
        return PeerError(
            f"process {self.number} of {self.count}",
            f"lost another one, which has ended or does not answer ({str(error).strip().splitlines()[0]})",
            "see what the launcher says of it, then the same command with --resume if there is a checkpoint",
        )


ALONE = Ranks()


def buckets(tensors: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The tensors in their order, in portions of equal type with at most `most` numbers, or of one tensor."""
    part: list[Tensor] = []
    for tensor in tensors:
        if part and (sum(t.numel() for t in part) + tensor.numel() > most or tensor.dtype != part[0].dtype):
            yield part
            part = []
        part.append(tensor)
    if part:
        yield part


def ranks_of(accelerator: Accelerator) -> Ranks:
    """The processes that `accelerate launch` started, or the only one.

    Raises:
        UserError: started for DeepSpeed, or something else that a run cannot follow.
    """
    if accelerator.distributed_type not in _KNOWN:
        raise UserError(
            f"a launch for {accelerator.distributed_type.value}",
            "weights are whole in every process, or spread by FSDP2",
            "take one of the files in docs/accelerate, or give --num_processes alone",
        )
    if accelerator.num_processes == 1:
        return ALONE
    group = distributed.new_group(backend="gloo")
    return Ranks(accelerator.process_index, accelerator.num_processes, group)
