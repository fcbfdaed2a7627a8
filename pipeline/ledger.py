"""The ledger of rollouts: what a policy answers when asked again and again, with the reward parts of each answer."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline import schemas
from pipeline.answerer import Answerer, Refused, Request, Response
from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.framereader import FrameReader
from pipeline.probes import ASKED, PROBES, SEEN, Sampling, askable, scope, shown
from pipeline.rewards import DEFAULT_RULE, RewardRule, duration_of, score
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location, Store
from pipeline.views import ANCHOR, load_view


@dataclass(frozen=True)
class _Question:
    """What the draws of one sample on one view share; `prior`: rewards of the sample's earlier draws."""

    sample: dict[str, Any]
    seen: dict[str, Any]
    duration_s: float | None
    prior: tuple[float, ...]


Stop = Callable[[str, Sequence[float]], bool]
"""(task, rewards so far) -> whether a sample needs no further draw."""

_ROUNDS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Draws after which verdicts are looked at: half of the samples that differ do so within two."""


def rounds(planned: int, adaptive: bool) -> list[int]:
    """Draws that each sample has after each round; the last is `planned`."""
    return [*(n for n in _ROUNDS if adaptive and n < planned), planned]


class DrawRollouts:
    """Fill the ledger: responses of one policy to the samples that want them.

    A rollout is keyed by (sample, view, draw) and determined by what the policy sees (frames, crop, scale, question),
    what is true, and how it is sampled; so more draws add to the ledger and never repeat it. Rows of other policies and
    of other probes are left alone, and so are valid rows that nobody wants now.

    Args:
        load_policy: device -> policy. Called in the worker, so it has to be picklable.
        policy_fingerprint: identity of the policy that it loads.
        probe: of probes.PROBES. With "variants" draw d is made on view d modulo their number.
        sampling: how.
        want: {sample_id: rewards of the draws that it has}; draws are counted from 0.
        draws: K, that each of them should have.
        stop: (task, rewards so far) -> whether the sample needs no further draw, asked between rounds; None: never.
        rule: what joins reward parts into the reward that `stop` is told.
        batch: samples that are asked together.
    """

    reads: tuple[str, ...] = ("samples", "videos", "frames", "variants")
    writes = "rollouts"
    deadline_s: float | None = None

    def __init__(
        self,
        load_policy: Callable[[str], Answerer],
        policy_fingerprint: str,
        probe: str,
        sampling: Sampling,
        want: Mapping[str, Sequence[float]],
        draws: int,
        stop: Stop | None = None,
        rule: RewardRule = DEFAULT_RULE,
        batch: int = 8,
    ) -> None:
        self.load_policy, self.policy = load_policy, policy_fingerprint
        self.probe, self.sampling, self.want, self.draws = probe, sampling, want, draws
        self.stop, self.rule = stop, rule
        self.name = PROBES[probe]
        self.batch_size = batch
        self.scope: str | None = scope(policy_fingerprint, probe)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"want": {}}  # workers process what was planned

    def plan(self, store: Store) -> list[Item]:
        reader = FrameReader(store)
        asked = askable(store, reader, self.policy, self.probe, self.sampling)
        valid = {(row["sample_id"], row["variant"]): row["fingerprint"] for row in asked.iter_rows(named=True)}
        views: dict[str, list[int]] = {}
        for sample_id, variant in sorted(valid):
            views.setdefault(sample_id, []).append(variant)
        keys = {key for key, print_ in store.done(self.writes, self.scope) if valid.get(key[:2]) == print_}
        for sample_id in self.want:
            numbers = views.get(sample_id, [])
            keys |= {(sample_id, numbers[draw % len(numbers)], draw) for draw in range(self.draws) if numbers}
        questions = self._questions(store, {key[:2] for key in keys if key[0] in self.want})
        return [Item(key, valid[key[:2]], questions.get(key[:2])) for key in sorted(keys)]

    def _questions(self, store: Store, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], _Question]:
        ids = pl.Series(sorted({sample_id for sample_id, _ in wanted}), dtype=pl.String).implode()
        columns = ["sample_id", "video_id", *ASKED]
        samples = {
            row["sample_id"]: row
            for row in store.scan("samples").filter(pl.col("sample_id").is_in(ids)).select(columns).collect().to_dicts()
        }
        durations = dict(store.scan("videos").select("video_id", "duration_s").collect().iter_rows())
        columns = ["sample_id", "variant", *SEEN]
        views = store.scan("variants").filter(pl.col("sample_id").is_in(ids)).select(columns).collect()
        seen = {(row["sample_id"], row["variant"]): row for row in views.to_dicts()}
        out = {}
        for sample_id, variant in wanted:
            sample, view = samples[sample_id], seen[sample_id, max(variant, ANCHOR)]
            prior = tuple(self.want[sample_id])
            out[sample_id, variant] = _Question(sample, view, duration_of(sample, durations), prior)
        return out

    def setup(self, place: Location, device: str) -> None:
        self._reader = FrameReader(Store(place))
        self._policy = self.load_policy(device)
        if self._policy.fingerprint != self.policy:
            raise UserError(
                f"policy {self._policy.fingerprint}",
                f"the policy was {self.policy} when the work was planned",
                "run the command again once its files no longer change",
            )

    def process(self, items: Sequence[Item]) -> Outcome:
        batch = _Batch(items)
        ready = self._prepare(batch)
        for target in rounds(self.draws, self.stop is not None):
            asked = [(place, members) for place in ready if (members := batch.due(place, target))]
            if not asked:
                continue
            requests = [replace(ready[place], seeds=[self._seed(i) for i in members]) for place, members in asked]
            try:
                how = self.sampling
                answers = self._policy.answer(requests, temperature=how.temperature, max_tokens=how.max_tokens)
            except UserError as error:
                batch.error = (error.value, error.expectation, error.next_command)
                break
            except Exception:  # ends the run all the same, after the finished draws of earlier rounds are kept
                batch.fault = traceback.format_exc()
                break
            for (_, members), responses in zip(asked, answers, strict=True):
                for item, response in zip(members, responses, strict=True):
                    self._note(batch, item, response)
            if self.stop is not None:
                batch.settle(self.stop)
        return batch.outcome()

    def _prepare(self, batch: "_Batch") -> dict[tuple[Any, ...], Request]:
        """The batch's views, ready to be asked, by (sample_id, variant)."""
        requests: dict[tuple[Any, ...], Request] = {}
        for place, members in batch.places.items():
            try:
                requests[place] = self._request(members)
            except ValueError as error:  # the cache's bytes do not match their checksums
                for item in members:
                    batch.fail(item, "damaged frames", str(error))
        return dict(zip(requests, self._policy.prepare(list(requests.values())), strict=True))

    def _note(self, batch: "_Batch", item: Item, response: Response | Refused) -> None:
        if isinstance(response, Refused):
            batch.fail(item, response.reason, response.message, response.passing)
            return
        try:
            batch.add(item, *self._row(item, response))
        except ValueError as error:
            batch.fail(item, "sample cannot be scored", str(error))

    def _request(self, group: Sequence[Item]) -> Request:
        question: _Question = group[0].payload
        sample, variant = question.sample, group[0].key[1]
        seen = shown(question.seen["indices"], variant)
        view = load_view(self._reader, sample["video_id"], seen, question.seen["crop"], question.seen["scale"])
        return Request(view.frames, view.times, sample["task"], sample["question"], sample["options"], [])

    def _seed(self, item: Item) -> int:
        return seed_of(self.sampling.seed, *item.key)

    def _row(self, item: Item, response: Response) -> tuple[dict[str, Any], float]:
        """The ledger's row, and the reward by the rule in force."""
        question: _Question = item.payload
        sample = question.sample
        truth = sample["task"], sample["options"], sample["answer"], sample["spans"]
        reward = score(response.text, *truth, duration_s=question.duration_s, rule=self.rule)
        sample_id, variant, draw = item.key
        row = {
            "sample_id": sample_id,
            "variant": variant,
            "draw": draw,
            "policy": self.policy,
            "seed": self._seed(item),
            "text": response.text,
            "tokens": response.tokens,
            "logprob": response.logprob,
            "accuracy": reward.accuracy,
            "credit": reward.credit,
            "iou": reward.iou,
            "boundary_iou": reward.boundary_iou,
            "format": reward.format,
            "parse_error": reward.parse_error,
            "fingerprint": item.fingerprint,
        }
        return row, reward.reward


class _Batch:
    """The items of one batch on their way: due, drawn, failed, or not needed any more."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.open = {item.key: item for item in items}
        self.places: dict[tuple[Any, ...], list[Item]] = {}
        for item in items:
            self.places.setdefault(item.key[:2], []).append(item)
        self.rewards = {item.key[0]: list(item.payload.prior) for item in items}
        self.tasks = {item.key[0]: item.payload.sample["task"] for item in items}
        self.rows: list[dict[str, Any]] = []
        self.failures: list[Failure] = []
        self.spared: list[tuple[Any, str]] = []
        self.error: tuple[str, str, str] | None = None
        self.fault = ""

    def due(self, place: tuple[Any, ...], target: int) -> list[Item]:
        """The open items of a view among the first `target` draws of its sample."""
        return [item for item in self.places[place] if item.key in self.open and item.key[2] < target]

    def add(self, item: Item, row: dict[str, Any], reward: float) -> None:
        self.rows.append(row)
        self.rewards[item.key[0]].append(reward)
        del self.open[item.key]

    def fail(self, item: Item, reason: str, message: str, passing: bool = False) -> None:
        self.failures.append(Failure(item.key, item.fingerprint, reason, message, passing))
        del self.open[item.key]

    def settle(self, stop: Stop) -> None:
        """Spare what is left of the samples that need no further draw."""
        done = {key for key, rewards in self.rewards.items() if rewards and stop(self.tasks[key], rewards)}
        for item in [item for key, item in self.open.items() if key[0] in done]:
            self.spared.append((item.key, item.fingerprint))
            del self.open[item.key]

    def outcome(self) -> Outcome:
        rows = pa.Table.from_pylist(self.rows, schema=schemas.ROLLOUTS)
        return Outcome(rows, self.failures, spared=self.spared, error=self.error, fault=self.fault)
