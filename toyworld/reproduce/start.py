"""The policies that runs start from: worse than the shipped one, so that there is something to win.

    python -m toyworld.reproduce.start OUT --taught 150     a short cold start: the shipped eyes, few lessons
    python -m toyworld.reproduce.start OUT --noise 0.35     the shipped policy, with noise on its language model

The shipped policy was taught until it was right about half of the time, and what it lacks then is not what a hundred
steps of reinforcement learning can teach. A policy that was taught less is as sure of its answers and more often
wrong; reinforcement learning makes it better slowly. Noise blurs what a policy knows; reinforcement learning wins that
back fast.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from toyworld import POLICY
from toyworld.policy import build_policy, teach_answers
from toyworld.reproduce.words import parser
from trainer.policy import Policy, load_policy

TAUGHT, NOISE, SEED = 150, 0.35, 0


def teach(steps: int, seed: int) -> Policy:
    """A policy with the shipped vision tower, whose language model had so many lessons of the shipped one's course."""
    policy, shipped = build_policy(seed), load_policy(POLICY)
    eyes = policy.family.vision(policy.model)
    eyes.load_state_dict(shipped.family.vision(shipped.model).state_dict())
    teach_answers(policy, [], seed, log=lambda text: None, most=steps)
    return policy


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
    given = parser("toyworld.reproduce.start", __doc__)
    given.add_argument("out", type=Path, help="folder to write the policy to")
    kind = given.add_mutually_exclusive_group(required=True)
    kind.add_argument("--taught", type=int, help="lessons in answering")
    kind.add_argument("--noise", type=float, help="times a matrix' deviation")
    given.add_argument("--seed", type=int, default=SEED, help=f"of the lessons or the noise (default: {SEED})")
    options = given.parse_args(words)
    if options.taught is not None:
        policy = teach(options.taught, options.seed)
    else:
        policy = load_policy(POLICY)
        perturb(policy, options.noise, options.seed)
    policy.save(options.out)


if __name__ == "__main__":
    main()
