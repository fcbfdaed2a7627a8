"""The prompt passes of a step: kept with their graph from rollout to loss while memory allows, run again otherwise.

A pool's views pass through the model together, so that the graph of a dead pool is dropped whole and costs no backward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from trainer.families import Prompt, VisionFeatures
from trainer.onepass import lay_out
from trainer.packing import Row, micro_batches, pack
from trainer.policy import Policy
from trainer.pools import LiveRow
from trainer.rollout import Prefilled, Sampled, decode, joined, prefill


@dataclass(frozen=True)
class Held:
    """Where a prompt's pass is kept; the prompt itself is kept too, so that no other one takes its identity."""

    prompt: Prompt
    ready: Prefilled
    row: int


class Passes:
    """Rollout and log-probs of a step's prompts.

    Args:
        budget: tokens of prompts, padding included, whose graphs are kept at a time. 0: none, as for several updates.
        frozen: the vision tower is not trained, so that features stay valid and carry no graph.
        autocast: the arithmetic of all passes.
    """

    def __init__(
        self, policy: Policy, budget: int, frozen: bool, autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.policy, self.budget, self.frozen, self.autocast = policy, budget, frozen, autocast
        self.clear()

    def clear(self) -> None:
        """Forget all graphs: weights have changed, or the step is over."""
        self.held: dict[int, Held] = {}
        self.tokens = 0

    def draw(
        self,
        prompts: Sequence[Prompt],
        features: Sequence[VisionFeatures],
        seeds: Sequence[Sequence[int]],
        *,
        together: int,
        side_by_side: int,
        temperature: float,
        max_tokens: int,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> list[list[Sampled]]:
        """Responses for each prompt, one a seed.

        Args:
            together: prompts of a pool; pools stand one behind the other.
            side_by_side: responses that are decoded at a time, at least those of one pool.
            temperature, max_tokens, top_p, top_k: see `rollout.decode`.
        """
        out: list[list[Sampled]] = []
        model, family = self.policy.model, self.policy.family
        for start, end in _portions([len(group) for group in seeds], together, side_by_side):
            with self.autocast():
                if self.policy.layered:
                    pools = [slice(i, i + together) for i in range(start, end, together)]
                    ready = joined([self._prefill(prompts[p], features[p]) for p in pools])
                else:
                    ready = prefill(model, family, prompts[start:end], features[start:end])
                out += decode(
                    model,
                    family,
                    ready,
                    range(end - start),
                    seeds[start:end],
                    temperature=temperature,
                    max_tokens=max_tokens,
                    top_p=top_p,
                    top_k=top_k,
                )
        return out

    def _prefill(self, prompts: Sequence[Prompt], features: Sequence[VisionFeatures]) -> Prefilled:
        """One pool's prompts, with their graph when it still fits."""
        tokens = len(prompts) * max(len(p.ids) for p in prompts)
        if self.tokens + tokens > self.budget:
            return prefill(self.policy.model, self.policy.family, prompts, features)
        ready = self.policy.prompt_pass(prompts, features if self.frozen else self.policy.encode(prompts))
        self.tokens += tokens
        self.held |= {id(p): Held(p, ready, row) for row, p in enumerate(prompts)}
        return ready

    def logprobs(
        self, live: Sequence[LiveRow], micro_tokens: int, temperature: float
    ) -> Iterator[tuple[list[LiveRow], Tensor, Tensor]]:
        """Log-probs of all live responses with gradient, a portion at a time; run backward before the next one.

        The graphs of prompts without a live row are let go first.

        Args:
            micro_tokens: tokens of a portion, padding included, where prompts have to be run again.

        Yields:
            (rows, log-probs [R], owners long [R]: the number of the response, counted through these rows).
        """
        alive = {id(r.row.prompt) for r in live}
        kept = {key: held for key, held in self.held.items() if key in alive}
        self.clear()
        passes: dict[int, list[int]] = {}
        again: list[int] = []
        for i, r in enumerate(live):
            held = kept.get(id(r.row.prompt))
            if held:
                passes.setdefault(id(held.ready), []).append(i)
            else:
                again.append(i)
        for members in passes.values():
            part = [live[i] for i in members]
            places = [kept.pop(id(p)) for p in {id(r.row.prompt): r.row.prompt for r in part}.values()]
            row = {id(h.prompt): h.row for h in places}
            ready = places[0].ready.of([row[id(r.row.prompt)] for r in part])
            del places
            with self.autocast():
                logp, owners = self._behind(ready, [r.row for r in part], temperature)
            del ready
            yield part, logp, owners
            del logp
        for batch in micro_batches([live[i].row for i in again], micro_tokens):
            part = [live[again[i]] for i in batch]
            with self.autocast():
                logp, owners = self._again(part, temperature)
            yield part, logp, owners
            del logp

    def _behind(self, ready: Prefilled, rows: Sequence[Row], temperature: float) -> tuple[Tensor, Tensor]:
        laid = lay_out([r.segments for r in rows], self.policy.family.pad_id, self.policy.device)
        return self.policy.logprobs_behind(ready, laid, temperature), laid.owners

    def _again(self, part: Sequence[LiveRow], temperature: float) -> tuple[Tensor, Tensor]:
        """Prompts and responses of these rows in passes of their own."""
        rows = [r.row for r in part]
        features = [r.features for r in part] if self.frozen else self.policy.encode([r.prompt for r in rows])
        if self.policy.layered:
            return self._behind(self.policy.prompt_pass([r.prompt for r in rows], features), rows, temperature)
        packed = pack(rows, self.policy.family.pad_id, self.policy.device)
        return self.policy.logprobs(packed, features, temperature), packed.owners


def _portions(counts: Sequence[int], together: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of prompts: whole pools, with at most `most` responses where a pool has no more."""
    start, responses = 0, 0
    for i in range(0, len(counts), together):
        pool = sum(counts[i : i + together])
        if responses and responses + pool > most:
            yield start, i
            start, responses = i, 0
        responses += pool
    yield start, len(counts)
