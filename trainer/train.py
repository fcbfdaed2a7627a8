"""A GRPO-STRIVE run: the loop over a curated dataset, and what it came to."""

import time
from pathlib import Path
from typing import Any

from trainer import loop
from trainer.config import RunConfig
from trainer.grpo import Trainer
from trainer.live import LiveLine
from trainer.loop import METRICS_FILE
from trainer.metrics import read_rows
from trainer.stream import Stream


def run(
    config: RunConfig,
    live: LiveLine | None = None,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a policy on a curated dataset; the last checkpoint is a folder that transformers loads.

    Args:
        live: shows the steps as they are taken. resume: go on from the newest whole checkpoint in `config.out`.

    Returns:
        steps, rollouts, seconds, checkpoint, the means over all steps of the logged curves, and the name of the signal
        that stopped it (None: it ended by itself). Beside the main process this last one alone.

    Raises:
        UserError: see `trainer.loop.train`.
    """
    start = time.perf_counter()
    ended = loop.train(
        config,
        lambda store: Stream(
            store,
            config.dataset,
            config.tag,
            count=config.variants,
            view=config.view,
            groups=1,
            seed=config.seed,
            allow_eval=config.allow_eval,
        ),
        lambda policy, accelerator, ranks: Trainer(config, policy, accelerator, ranks),
        resume=resume,
        live=live,
    )
    found = summary(config, ended.latest, time.perf_counter() - start) if ended.main else {}
    return found | {"stopped": ended.stop.signal.name if ended.stop.signal else None}


def summary(config: RunConfig, latest: Path | None, seconds: float) -> dict[str, Any]:
    """What a run came to, from its own metrics file."""
    rows = read_rows(config.out / METRICS_FILE)
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
