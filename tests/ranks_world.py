"""Commands of strive-train one after the other in the processes of one launch: starting these costs more than a run.

python -m tests.ranks_world '[["run", "--out", "a"], ["sft", "--out", "b"]]'
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from cli.train import app
from toyworld import POLICY
from trainer.policy import load_policy
from trainer.ranks import ranks_of
from trainer.weights import weights_of


def held(out: Path) -> None:
    """Write how many numbers of a policy this process holds between steps, in a step and after it, and how many of its
    optimizer's moments; and how many numbers the policy has."""
    ranks = ranks_of(Accelerator(cpu=True))
    policy = load_policy(POLICY)
    total = sum(p.numel() for p in policy.model.parameters())
    weights = weights_of(policy, ranks)
    optimizer = torch.optim.AdamW(weights.trained)
    found = [own(policy.model.parameters())]
    weights.gather()
    found.append(own(policy.model.parameters()))
    sum(p.sum() for p in policy.model.parameters()).backward()
    weights.sum_gradients()
    optimizer.step()
    found.append(own(policy.model.parameters()))
    moments = own(s["exp_avg"] for s in optimizer.state.values())
    every = ranks.gathered([total, *found, moments])
    if ranks.main:
        out.write_text(json.dumps(every))


def own(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers that lie in this process."""
    return sum((x.to_local() if isinstance(x, DTensor) else x).numel() for x in tensors)


def commands(lines: Sequence[Sequence[str]]) -> None:
    """Run each to its end; `held FILE` is no command of the program."""
    for words in lines:
        if words[0] == "held":
            held(Path(words[1]))
        else:
            app(list(words), standalone_mode=False)


if __name__ == "__main__":
    commands(json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as the command does: threads of native libraries may still read ahead
