"""The loop of `run` and `sft`: steps on the groups of a stream, their rows of metrics, checkpoints, resume, stop."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from pipeline.errors import UserError
from pipeline.store import Store
from trainer import adapters, checkpoint, provenance
from trainer.config import Settings, check_resume
from trainer.config import write as write_settings
from trainer.device import resolve_device
from trainer.feed import Feed
from trainer.halt import NotFiniteError, Stop, save_batch, stoppable
from trainer.identity import policy_fingerprint
from trainer.live import LiveLine
from trainer.metrics import MetricsLog
from trainer.policy import Policy
from trainer.stream import Stream
from trainer.trackers import Trackers, check_trackers

CONFIG_FILE, METRICS_FILE = "config.json", "metrics.jsonl"


class Learner(Protocol):
    """What takes the steps."""

    def step(self, step: int, feed: Feed) -> dict[str, Any]:
        """One update on the next groups, and its row of metrics. Raises NotFiniteError when it is broken."""
        ...

    def state(self) -> dict[str, Any]:
        """What the next step depends on beside the weights and the place in the stream."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a run ended: its newest checkpoint, and the signal that stopped it before its last step."""

    latest: Path | None
    stop: Stop


def train(
    config: Settings,
    stream: Callable[[Store], Stream],
    learner: Callable[[Policy, Accelerator], Learner],
    *,
    resume: bool = False,
    live: LiveLine | None = None,
) -> Ended:
    """Take the steps of a run that are not done yet.

    Writes into `config.out`: config.json (resolved settings), run.json (versions, git state, dataset, policy),
    metrics.jsonl (a row a step), checkpoint-*. SIGTERM or ctrl-C ends the run after the step under way, with a
    checkpoint.

    Args:
        stream: of single groups. learner: takes the steps with a policy. live: shows them; None: in silence.

    Raises:
        UserError: no such dataset, frames missing from the cache, a run in `out` already, settings, dataset or policy
            other than those of the run to resume, a loss that is not finite, a checkpoint that cannot be written.
    """
    check_trackers(config.trackers)
    shown = live or LiveLine(config.steps, shown=False)
    source = stream(store := Store(config.store))
    latest = checkpoint.open_run(config.out, resume)
    settings = config.out / CONFIG_FILE
    if latest:
        check_resume(config, settings)
    with stoppable(shown.note) as stop:
        accelerator = one_process(config)
        torch.manual_seed(config.seed)
        policy = adapters.learner(
            config.policy, latest, config.lora_rank, str(accelerator.device), vision=not config.freeze_vision
        )
        one = learner(policy, accelerator)
        done, position = 0, 0
        if latest:
            done, state = checkpoint.load(latest, accelerator.device)
            one.restore(state["learner"])
            position = state["position"]
        begun_from = begun(config, policy, bool(latest))
        dataset = provenance.dataset_state(store, config.dataset, config.tag, source.rows)
        provenance.record(config.out, dataset, begun_from, done)
        write_settings(config, settings)
        with (
            MetricsLog(config.out / METRICS_FILE, done) as log,
            shown,
            Trackers(config.trackers, config.out, config.model_dump(mode="json"), say=shown.note) as trackers,
            Feed(source, position, ahead=config.groups) as feed,
        ):
            for step in range(done, config.steps):
                if stop and latest:
                    break
                row = {"step": step + 1, **a_step(one, step, feed, config)}
                log.write(row)
                trackers.log(row)
                shown.show(row)
                due = config.checkpoint_every and (step + 1) % config.checkpoint_every == 0
                if stop or due or step + 1 == config.steps:
                    state = {"learner": one.state(), "position": feed.position}
                    latest = checkpoint.save(
                        config.out, step + 1, lambda to: adapters.save(policy, to), state, config.keep_checkpoints
                    )
                if stop:
                    break
    return Ended(latest, stop)


def a_step(learner: Learner, step: int, feed: Feed, config: Settings) -> dict[str, Any]:
    """A step's row of metrics. Raises UserError when its loss is no number, with its batch saved in `out`."""
    try:
        return learner.step(step, feed)
    except NotFiniteError as error:
        raise save_batch(error, config.out, config.lr) from error


def begun(config: Settings, policy: Policy, resumed: bool) -> dict[str, Any]:
    """Name and fingerprint of the policy that the run was begun from.

    A resumed run reads it again only where it still computes with it (adapters, a reference); elsewhere it may be gone,
    and the fingerprint is None.
    """
    if not resumed:
        return {"name": config.policy, "fingerprint": policy.fingerprint}
    used = config.lora_rank or getattr(config, "kl", 0)
    return {"name": config.policy, "fingerprint": policy_fingerprint(config.policy) if used else None}


def one_process(config: Settings) -> Accelerator:
    """The accelerator of this run: where it computes, and in which arithmetic (weights stay float32).

    Raises:
        UserError: started as several processes.
    """
    accelerator = Accelerator(
        cpu=resolve_device(config.device) == "cpu", mixed_precision="bf16" if config.precision == "bf16" else "no"
    )
    if accelerator.num_processes > 1:
        raise UserError(
            f"{accelerator.num_processes} processes",
            "training runs in one process",
            "start it without `accelerate launch`",
        )
    return accelerator
