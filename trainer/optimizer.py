"""Optimizer and schedule of `run` and `sft`."""

from collections.abc import Sequence

import torch
from torch import nn

from trainer.config import Settings


def optimizer_of(parameters: Sequence[nn.Parameter], config: Settings) -> torch.optim.AdamW:
    """AdamW as the settings say."""
    first, second, decay = config.adamw
    return torch.optim.AdamW(parameters, lr=config.lr, betas=(first, second), weight_decay=decay)


def scheduler_of(optimizer: torch.optim.Optimizer, config: Settings) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises linearly over `warmup` steps and is constant from there on."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup)))
