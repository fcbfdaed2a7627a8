"""Decoding in fixed shapes: a step is recorded once and replayed for every token, as a GPU likes it.

A step of a small batch keeps a GPU busy for less time than it takes to start its kernels one by one; replayed as a CUDA
graph they start together. For that nothing of a step may depend on how many tokens there are: attention reads all of
the room for a response's own keys, what is not drawn yet is masked, and the place of the token is a tensor. The numbers
are those of `SharedSteps`. When responses leave or the room grows, shapes change and the step is recorded anew. Every
recording is compared with the step itself before it counts; where one fails or differs, steps run as they are from then
on, and a line says so.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.decode import SharedSteps, advanced

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest difference of a recording to its step, relative to the largest value, that counts as rounding."""

Step = Callable[[], Tensor]
Record = Callable[[Step], Step]
"""Takes a step that reads and writes tensors which stay in place, and returns one that does the same."""


def steps_for(device: torch.device) -> type[SharedSteps]:
    """How responses behind shared prompts are decoded on a device: recorded on CUDA, token by token elsewhere.

    A CPU starts nothing late, and would read room that is empty.
    """
    return RecordedSteps if device.type == "cuda" else SharedSteps


def cuda_graph(step: Step) -> Step:
    """Record a step as a CUDA graph. It runs twice before, so that libraries have made what they keep."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads (of the data, of another rank's collectives) may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def proved(record: Record, step: Step) -> Step | None:
    """A recording that gives what its step gives; None where there is none such, with a line that says why."""
    expected = step().clone()
    try:
        replay = record(step)
        difference = float((replay() - expected).abs().max())
    except RuntimeError as error:
        why = f"a step cannot be recorded here ({str(error).splitlines()[0]})"
    else:
        bound = TOLERANCE.get(expected.dtype, 0.0) * float(expected.abs().max())
        if difference <= bound:
            return replay
        why = f"a recorded step differs from the step itself by {difference:.3g}, more than {bound:.3g}"
    log.warning("decoding runs step by step from here on: %s", why)
    return None


class RecordedSteps(SharedSteps):
    """`SharedSteps` in fixed shapes.

    A step may run more often than once a token without harm: it writes the same keys to the same place.
    """

    # Shapes change less often than in `SharedSteps`: a recording costs a few steps.
    roomy = 0.5
    record: Record = staticmethod(cuda_graph)
    # Of the process: whether recordings have been what they should be so far.
    works = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._fix()

    def keep(self, kept: Tensor) -> None:
        super().keep(kept)
        self._fix()

    def _grow(self) -> None:
        super()._grow()
        self._fix()

    def _fix(self) -> None:
        """New shapes: the next step is recorded."""
        self.tokens = torch.zeros(len(self.rows), self.places, dtype=torch.long, device=self.owner.device)
        self.place = torch.zeros(1, dtype=torch.long, device=self.owner.device)
        self.replay: Step | None = None

    def _step(self) -> Tensor:
        cos, sin = (turn.index_select(2, self.place) for turn in self.turns)

        def put(to: Tensor, new: Tensor) -> None:
            to.index_copy_(3, self.place, new[:, :, :, None])

        unborn = torch.arange(self.own[0][0].shape[3], device=self.place.device) > self.place
        return advanced(self.text, self.tokens, (cos, sin), self.cache, self.own, put, self.unseen, unborn)

    def __call__(self, tokens: Tensor, t: int) -> Tensor:
        if t == self.own[0][0].shape[3]:
            self._grow()
        self.tokens.copy_(self._grid(tokens))
        self.place.fill_(t)
        if self.replay is None and type(self).works:
            self.replay = proved(self.record, self._step)
            type(self).works = self.replay is not None
        out = self.replay() if self.replay else self._step()
        return out.flatten(0, 1)[self.slots]
