"""The policy that all runs start from: the shipped one, made worse by noise, so that there is something to win back.

    python -m toyworld.reproduce.start OUT [--noise 0.4] [--seed 0]

The shipped policy was taught until it was right about half of the time, and what it lacks then is not what a hundred
steps of reinforcement learning can teach. Noise on the weights of its language model blurs what it knows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from toyworld import POLICY
from trainer.policy import Policy, load_policy

NOISE, SEED = 0.4, 0


def perturb(policy: Policy, noise: float, seed: int) -> None:
    """Add normal noise to every weight matrix of the language model's layers, in place.

    Its deviation is `noise` times that of the matrix. Embeddings, norms and the vision tower stay as they are.

    Args:
        noise: 0 changes nothing. seed: the same seed gives the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    vision = {id(p) for p in policy.family.vision(policy.model).parameters()}
    embeddings = id(policy.model.get_input_embeddings().weight)
    for weight in policy.model.parameters():
        if weight.ndim >= 2 and id(weight) not in vision and id(weight) != embeddings:
            with torch.no_grad():
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m toyworld.reproduce.start",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder to write the policy to")
    parser.add_argument("--noise", type=float, default=NOISE, help=f"times a matrix' deviation (default: {NOISE})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the noise (default: {SEED})")
    options = parser.parse_args(words)
    policy = load_policy(POLICY)
    perturb(policy, options.noise, options.seed)
    policy.save(options.out)


if __name__ == "__main__":
    main()
