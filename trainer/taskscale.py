"""The usual spread of each task's rewards, remembered over steps: EMA-GRPO of OneThinker (arXiv 2512.03043).

Rewards of some tasks (IoU) spread less than those of others (right or wrong). Dividing every pool by its own deviation
lifts a pool of nearly equal rewards as high as one that is half right; dividing by the task's usual deviation does not,
and still makes tasks comparable.
"""

from collections.abc import Mapping, Sequence

from trainer.advantage import EPSILON, Mode, Views, advantages, spreads

DECAY = 0.99
FAR = 5.0
"""Advantages beyond this say that the pool spreads unlike its task did; then its own deviation holds (OneThinker)."""


class TaskScale:
    """Exponential means of the deviations of live pools, task by task; state is two numbers a task.

    The mean is sum / weight with sum = d * sum + (1 - d) * x and weight likewise, so the first step counts in full.
    """

    def __init__(self, decay: float = DECAY) -> None:
        self.decay = decay
        self._means: dict[str, tuple[float, float]] = {}

    def observe(self, tasks: Sequence[str], pools: Sequence[Views], mode: Mode) -> None:
        """Take in one step: for each task the mean deviation of its live pools (views in mode per-view), if any."""
        for task in sorted(set(tasks)):
            found = [s for t, pool in zip(tasks, pools, strict=True) if t == task for s in spreads(pool, mode)]
            if found:
                total, weight = self._means.get(task, (0.0, 0.0))
                mean = sum(found) / len(found)
                kept = self.decay
                self._means[task] = kept * total + (1 - kept) * mean, kept * weight + (1 - kept)

    def __getitem__(self, task: str) -> float:
        """The task's usual deviation. Raises KeyError when none of its pools was live yet."""
        total, weight = self._means[task]
        return total / weight

    def advantages(self, task: str, pool: Views, mode: Mode) -> list[list[float]]:
        """The advantages of a pool by its task's deviation + EPSILON, or by its own where one would exceed FAR.

        A pool that is dead needs no scale: its advantages are 0 in every mode.
        """
        own = advantages(pool, mode)
        if not any(a for view in own for a in view):
            return own
        shared = advantages(pool, mode, self[task] + EPSILON)
        return own if any(abs(a) > FAR for view in shared for a in view) else shared

    def state_dict(self) -> dict[str, list[float]]:
        """{task: [sum, weight]}."""
        return {task: list(pair) for task, pair in self._means.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Put back what `state_dict` returned."""
        self._means = {task: (total, weight) for task, (total, weight) in state.items()}
