"""Decoding in fixed shapes draws what decoding token by token draws, and can be recorded as a whole.

No GPU is needed: what is recorded is the step itself, run as it is, or its graph as torch.compile takes it.
"""

from collections.abc import Callable

import pytest
import torch

from tests.test_engine import assert_alike
from tests.tiny_policy import EVERY, exact_policy, prompts, view
from trainer import recorded, rollout
from trainer.decode import SharedSteps
from trainer.policy import Policy
from trainer.recorded import RecordedSteps, Step, steps_for
from trainer.rollout import Sampled, decode, prefill


def drawn(policy: Policy, kind: type[SharedSteps], tokens: int) -> list[list[Sampled]]:
    """Responses behind prompts of several lengths, longer than the first room for keys, some of which leave early."""
    three = prompts(policy, view(2, seed=3), view(4, seed=4), view(1, seed=5))
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "steps_for", lambda device: kind)
        ready = prefill(policy.model, policy.family, three, policy.encode(three))
        seeds = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]
        return decode(policy.model, policy.family, ready, range(3), seeds, temperature=1.0, max_tokens=tokens)


def recording(record: Callable[[Step], Step]) -> tuple[type[RecordedSteps], list[Step]]:
    """Steps that are recorded on a CPU, and what was recorded."""
    made: list[Step] = []

    class Here(RecordedSteps):
        @staticmethod
        def record(step: Step) -> Step:
            # A recording runs its step before it is replayed.
            step()
            made.append(record(step))
            return made[-1]

    return Here, made


@pytest.mark.parametrize("family", EVERY)
def test_fixed_shapes_draw_the_same(family: str) -> None:
    policy = exact_policy(family)
    kind, made = recording(lambda step: step)
    fixed = drawn(policy, kind, 80)
    assert_alike(fixed, drawn(policy, SharedSteps, 80))
    assert 2 <= len(made) <= 8, "once for the first shapes, for each room, and whenever half of the batch has left"


def test_a_step_is_one_graph() -> None:
    """torch.compile takes it without a break (fullgraph), and one graph serves tokens at every place."""
    policy = exact_policy()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    kind, made = recording(lambda step: torch.compile(step, fullgraph=True, backend=backend, dynamic=False))
    torch._dynamo.reset()
    fixed = drawn(policy, kind, 12)
    assert_alike(fixed, drawn(policy, SharedSteps, 12))
    assert len(graphs) == len(made), "a step was compiled again for another place"


@pytest.mark.parametrize("fault", ["raises", "differs"])
def test_a_recording_that_is_not_the_step_is_dropped_with_a_line(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever graphs cannot be recorded, or replay something else, the numbers stay those of the step."""
    policy = exact_policy()

    def record(step: Step) -> Step:
        if fault == "raises":
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: step() + 1

    kind, _ = recording(record)
    assert_alike(drawn(policy, kind, 12), drawn(policy, SharedSteps, 12))
    assert [r.message for r in caplog.records if "step by step from here on" in r.message][1:] == [], "said once"
    assert "not permitted" in caplog.text if fault == "raises" else "differs" in caplog.text


def test_cuda_decodes_recorded_and_others_do_not() -> None:
    assert steps_for(torch.device("cuda", 0)) is RecordedSteps
    assert RecordedSteps.record is recorded.cuda_graph
    assert steps_for(torch.device("cpu")) is SharedSteps
    assert rollout.steps_for is steps_for
