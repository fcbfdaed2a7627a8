"""A training run: the stream of a curated dataset, a step for each batch of it, metrics and checkpoints."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pipeline.errors import UserError
from pipeline.runner import Progress
from pipeline.store import Store
from trainer import checkpoint
from trainer.config import RunConfig, SftConfig, check_resume
from trainer.config import write as write_settings
from trainer.device import resolve_device
from trainer.grpo import Trainer
from trainer.metrics import MetricsLog, read_rows
from trainer.policy import load_policy
from trainer.progress import bar
from trainer.stream import Stream


def run(config: RunConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Train a policy on a curated dataset; the last checkpoint is a folder that transformers loads.

    Writes into `config.out`: config.json (resolved settings), metrics.jsonl (a row a step), checkpoint-*.

    Returns:
        steps, rollouts, seconds, checkpoint, and the means over all steps of the logged curves.

    Raises:
        UserError: no such dataset, frames missing from the cache, a run in `out` already, a loss that is not finite.
    """
    start = time.perf_counter()
    store = Store(config.store)
    stream = Stream(
        store,
        config.dataset,
        config.tag,
        count=config.variants,
        view=config.view,
        groups=config.groups,
        seed=config.seed,
        allow_eval=config.allow_eval,
    )
    latest = checkpoint.open_run(config.out, config.resume)
    settings = config.out / "config.json"
    if latest:
        check_resume(config, settings)
    accelerator = one_process(config)
    torch.manual_seed(config.seed)
    policy = load_policy(latest or config.policy, str(accelerator.device))
    trainer = Trainer(config, policy, accelerator)
    done = 0
    if latest:
        done, state = checkpoint.load(latest, accelerator.device)
        trainer.restore(state)
    write_settings(config, settings)
    with MetricsLog(config.out / "metrics.jsonl", done) as log, bar(progress, "train", config.steps - done) as advance:
        waiting = time.perf_counter()
        for step, groups in stream.batches(done, config.steps):
            waited = time.perf_counter() - waiting
            row = trainer.step(step, groups)
            row["seconds"]["stream"] = round(waited, 4)
            stop_if_not_finite(step, row, config)
            log.write({"step": step + 1, **row})
            advance(1)
            last = step + 1 == config.steps
            if last or (config.checkpoint_every and (step + 1) % config.checkpoint_every == 0):
                latest = checkpoint.save(
                    config.out, step + 1, policy.save, trainer.state(), keep=config.keep_checkpoints
                )
            waiting = time.perf_counter()
    return summary(config, latest, time.perf_counter() - start)


def one_process(config: RunConfig | SftConfig) -> Accelerator:
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


def stop_if_not_finite(step: int, row: dict[str, Any], config: RunConfig) -> None:
    """Stop before a broken update is saved; the newest checkpoint stays whole."""
    if row["loss"] is not None and not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        raise UserError(
            f"step {step + 1}: loss {row['loss']}, gradient norm {row['grad_norm']}",
            "expected finite numbers",
            f"lower --lr (now {config.lr}) and go on from the newest checkpoint in {config.out} with --resume",
        )


def summary(config: RunConfig, latest: Path | None, seconds: float) -> dict[str, Any]:
    """What a run came to, from its own metrics file."""
    rows = read_rows(config.out / "metrics.jsonl")
    curves = {}
    for name in ("reward_mean", "reward_std", "dead_group_share", "between_share", "grad_norm"):
        values = [r[name] for r in rows if r[name] is not None]
        curves[name] = sum(values) / len(values) if values else None
    return {
        "steps": len(rows),
        "rollouts": sum(r["rollouts"] for r in rows),
        **curves,
        "seconds": round(seconds, 2),
        "checkpoint": str(latest) if latest else None,
    }
