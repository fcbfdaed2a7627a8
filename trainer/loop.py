"""The loop of `run` and `sft`: steps on the groups of a stream, their rows of metrics, checkpoints, resume, stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from trainer.ranks import Ranks, ranks_of
from trainer.stream import Stream
from trainer.trackers import Trackers, check_trackers
from trainer.weights import Weights

CONFIG_FILE, METRICS_FILE = "config.json", "metrics.jsonl"


class Learner(Protocol):
    """What takes the steps."""

    weights: Weights

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
    """How a run ended: its newest checkpoint, the signal that stopped it early, and whether this process wrote it."""

    latest: Path | None
    stop: Stop
    main: bool = True


def train(
    config: Settings,
    stream: Callable[[Store], Stream],
    learner: Callable[[Policy, Accelerator, Ranks], Learner],
    *,
    resume: bool = False,
    live: LiveLine | None = None,
) -> Ended:
    """Take the steps of a run that are not done yet.

    Writes into `config.out`: config.json (resolved settings), run.json (versions, git state, dataset, policy),
    metrics.jsonl (a row a step), checkpoint-*. SIGTERM or ctrl-C ends the run after the step under way, with a
    checkpoint. Of several processes the main one alone writes and shows; when one fails, or is asked to stop, all are.

    Args:
        stream: of single groups. learner: takes the steps with a policy. live: shows them; None: in silence.

    Raises:
        UserError: no such dataset, frames missing from the cache, a run in `out` already, settings, dataset or policy
            other than those of the run to resume, a loss that is not finite, a checkpoint that cannot be written,
            another process that failed.
    """
    check_trackers(config.trackers)
    source = stream(store := Store(config.store))
    latest = checkpoint.open_run(config.out, resume)
    settings = config.out / CONFIG_FILE
    if latest:
        check_resume(config, settings)
    accelerator = an_accelerator(config)
    ranks = ranks_of(accelerator)
    shown = live if live and ranks.main else LiveLine(config.steps, shown=False)
    with stoppable(shown.note) as stop, ranks.failing_together():
        latest = agreed(latest, ranks)
        torch.manual_seed(config.seed)
        policy = adapters.learner(
            config.policy, latest, config.lora_rank, str(accelerator.device), vision=not config.freeze_vision
        )
        economise(config, policy, source, accelerator, shown.note if ranks.main else None)
        one = learner(policy, accelerator, ranks)
        done, position = 0, 0
        if latest:
            done, state = checkpoint.load(latest, policy.device)
            one.restore(state["learner"])
            position = state["position"]
        if ranks.main:
            checkpoint.remove_unfinished(config.out)
            begun_from = begun(config, policy, bool(latest))
            dataset = provenance.dataset_state(store, config.dataset, config.tag, source.rows.without("variants"))
            provenance.record(config.out, dataset, begun_from, done)
            write_settings(config, settings)
        with (
            written(config, done, shown, ranks) as write,
            Feed(source, position, ahead=config.groups, ranks=ranks) as feed,
        ):
            for step in range(done, config.steps):
                if stopped(stop, ranks) and latest:
                    break
                write({"step": step + 1, **a_step(one, step, feed, config, ranks)})
                asked = stopped(stop, ranks)
                due = config.checkpoint_every[0] and (step + 1) % config.checkpoint_every[0] == 0
                if asked or due or step + 1 == config.steps:
                    latest = saved(config, step + 1, policy, one, feed.position, ranks)
                if asked:
                    break
    return Ended(latest, stop, ranks.main)


def economise(
    config: Settings, policy: Policy, source: Stream, accelerator: Accelerator, tell: Callable[[str], None] | None
) -> None:
    """Compute layers again instead of keeping their values, and keep features instead of computing them again, as the
    settings say.

    Args:
        tell: is told how much room the features take; None: not of interest here.

    Raises:
        UserError: the features of another tower lie in the folder, or there is no room for these.
    """
    if config.gradient_checkpointing:
        policy.recompute_layers()
    if config.cache_vision is None:
        return
    cache = policy.keep_features(config.cache_vision, config.precision)
    if tell is None:
        return
    first = source.batch(0)[0]
    prompts = policy.prompts(first.views[:1], [(first.sample["question"], first.sample["options"])])
    views = source.distinct_views()
    with accelerator.autocast(), torch.no_grad():
        policy.encode(prompts)
    size, free = cache.room(prompts[0], views)
    tell(
        f"vision features of {views} views take about {size / 1e9:.2g} GB in {cache.folder} ({free / 1e9:.0f} GB free)"
    )


@contextmanager
def written(config: Settings, done: int, shown: LiveLine, ranks: Ranks) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Where the rows of metrics go: file, trackers and live line of the main process; beside it, nowhere."""
    if not ranks.main:
        yield lambda row: None
        return
    with (
        MetricsLog(config.out / METRICS_FILE, done) as log,
        shown,
        Trackers(config.trackers, config.out, config.model_dump(mode="json"), say=shown.note) as trackers,
    ):

        def write(row: dict[str, Any]) -> None:
            log.write(row)
            trackers.log(row)
            shown.show(row)

        yield write


def saved(config: Settings, step: int, policy: Policy, one: Learner, position: int, ranks: Ranks) -> Path:
    """The checkpoint of a step, written by the main process; all wait until it is whole."""
    state = {"learner": one.state(), "position": position}
    weights = one.weights.to_save()
    if ranks.main:
        return ranks.gathered(
            checkpoint.save(
                config.out, step, lambda to: adapters.save(policy, to, weights), state, config.checkpoint_every[1]
            )
        )[0]
    first: Path = ranks.gathered(Path())[0]
    return first


def agreed(latest: Path | None, ranks: Ranks) -> Path | None:
    """The checkpoint to go on from. Raises UserError when the processes do not see the same one."""
    found = ranks.gathered(latest)
    if len(set(found)) > 1:
        raise UserError(
            f"--out with checkpoints {', '.join(map(str, found))}",
            "expected every process to see the same one",
            "put --out where all machines of the run can read it",
        )
    return latest


def stopped(stop: Stop, ranks: Ranks) -> bool:
    """Whether any process was asked to stop; then all of them are, by the same signal."""
    heard = [number for number in ranks.gathered(stop.signal) if number is not None]
    if heard:
        stop.signal = heard[0]
    return bool(heard)


def a_step(learner: Learner, step: int, feed: Feed, config: Settings, ranks: Ranks) -> dict[str, Any]:
    """A step's row of metrics. Raises UserError when its loss is no number, with its batch saved in `out`."""
    try:
        return learner.step(step, feed)
    except NotFiniteError as error:
        # It is raised in all processes, of the whole step.
        if ranks.main:
            raise save_batch(error, config.out, config.lr) from error
        raise UserError(str(error), "expected finite numbers", "see what the main process says") from error


def begun(config: Settings, policy: Policy, resumed: bool) -> dict[str, Any]:
    """Name and fingerprint of the policy that the run was begun from.

    A resumed run reads it again only where it still computes with it (adapters, a reference); elsewhere it may be gone,
    and the fingerprint is None.
    """
    if not resumed:
        return {"name": config.policy, "fingerprint": policy.fingerprint}
    used = config.lora_rank or getattr(config, "kl", 0)
    return {"name": config.policy, "fingerprint": policy_fingerprint(config.policy) if used else None}


def an_accelerator(config: Settings) -> Accelerator:
    """The accelerator of this run: where it computes, and in which arithmetic (weights stay float32)."""
    return Accelerator(
        cpu=resolve_device(config.device) == "cpu", mixed_precision="bf16" if config.precision == "bf16" else "no"
    )
