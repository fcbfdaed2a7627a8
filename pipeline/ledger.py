"""The ledger of rollouts: what a policy answers when asked again and again, with the reward parts of each answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, seed_of
from pipeline.framereader import FrameReader
from pipeline.rewards import score
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Store, literal
from pipeline.views import load_view

VERSION = 1
_NEXT = "strive-data select --help"


@dataclass(frozen=True)
class Request:
    """One view of one sample, to be answered once for each seed.

    frames: uint8 [n, H, W, 3]; times: float64 [n], true seconds; options: texts without letters.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    task: str
    question: str
    options: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Response:
    """A sampled response: its text, its length in tokens, the sum of its tokens' log-probabilities."""

    text: str
    tokens: int
    logprob: float


class Answerer(Protocol):
    """A policy that answers questions about views.

    A response depends on its request and its seed alone; the last digits of its log-probability also depend on the
    requests that it was batched with, as floating-point sums do.
    """

    fingerprint: str

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        """Responses by request, then by seed."""
        ...


@dataclass(frozen=True)
class _Question:
    """What the draws of one sample share."""

    sample: dict[str, Any]
    indices: list[int]
    crop: list[float]
    scale: float


class DrawRollouts:
    """Fill the ledger: `draws` responses of one policy to one view of every sample.

    A rollout is keyed by (sample, view, draw) and determined by what the policy sees (frames, crop, scale, question),
    what is true, and how it is sampled; so more draws add to the ledger and never repeat it. Rows of other policies, of
    other views and of higher draws are left alone, and so are those of samples that `only` leaves out.

    Args:
        load_policy: device -> policy. Called in the worker, so it has to be picklable.
        policy_fingerprint: identity of the policy that it loads.
        draws: responses a sample.
        view: variant that the policy sees; 0 is the anchor.
        temperature: of the sampling.
        max_tokens: longest response.
        seed: of all draws.
        only: SQL filter of the samples that need rollouts, e.g. "split = 'train'"; None: all.
    """

    name = "select"
    reads: tuple[str, ...] = ("samples", "frames", "variants")
    writes = "rollouts"
    deadline_s: float | None = None

    def __init__(
        self,
        load_policy: Callable[[str], Answerer],
        policy_fingerprint: str,
        draws: int = 8,
        view: int = 0,
        temperature: float = 1.0,
        max_tokens: int = 256,
        seed: int = 0,
        only: str | None = None,
    ) -> None:
        if draws < 1 or max_tokens < 1:
            raise UserError(f"--draws {draws} --max-tokens {max_tokens}", "at least one draw of one token", _NEXT)
        if not temperature > 0:
            raise UserError(f"--temperature {temperature}", "above 0: equal draws have no variance", _NEXT)
        self.load_policy, self.policy = load_policy, policy_fingerprint
        self.draws, self.view, self.temperature = draws, view, temperature
        self.max_tokens, self.seed, self.only = max_tokens, seed, only
        self.batch_size = 8 * draws
        self.scope: str | None = f"policy = {literal(self.policy)} AND variant = {view} AND draw < {draws}"

    def plan(self, store: Store) -> list[Item]:
        reader = FrameReader(store)
        cached = set(reader.videos)
        columns = ["sample_id", "video_id", "indices", "crop", "scale"]
        views = store.table("variants", columns=columns, filter=f"variant = {self.view}").to_pylist()
        view_of = {view["sample_id"]: view for view in views if view["video_id"] in cached}
        columns = ["sample_id", "video_id", "task", "question", "options", "answer", "spans"]
        samples = store.table("samples", columns=columns).to_pylist()
        wanted = {row["sample_id"] for row in store.table("samples", ["sample_id"], self.only).to_pylist()}
        done = store.done(self.writes, self.scope)
        items = []
        for sample in sorted(samples, key=lambda row: str(row["sample_id"])):
            key = sample["sample_id"]
            if key not in view_of:
                continue
            view = view_of[key]
            asked = [sample[column] for column in columns[2:]]
            seen = [view["indices"], view["crop"], view["scale"], reader.fingerprint(sample["video_id"])]
            how = [self.temperature, self.max_tokens, self.seed]
            base = fingerprint("rollouts", VERSION, self.policy, asked, seen, how)
            question = _Question(sample, view["indices"], view["crop"], view["scale"])
            for draw in range(self.draws):
                item = Item((key, self.view, draw), fingerprint(base, draw), question)
                # Rollouts of samples that are not wanted now stay as long as they are valid; none are added.
                if key in wanted or (item.key, item.fingerprint) in done:
                    items.append(item)
        return items

    def setup(self, store_path: str, device: str) -> None:
        self._reader = FrameReader(Store(store_path))
        self._policy = self.load_policy(device)
        if self._policy.fingerprint != self.policy:
            raise UserError(
                f"policy {self._policy.fingerprint}",
                f"the policy was {self.policy} when the work was planned",
                "run the command again once its files no longer change",
            )

    def process(self, items: Sequence[Item]) -> Outcome:
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        groups: list[list[Item]] = []
        requests: list[Request] = []
        for _, members in groupby(items, key=lambda item: item.key[:2]):
            group = list(members)
            try:
                requests.append(self._request(group))
                groups.append(group)
            except ValueError as error:  # the cache's bytes do not match their checksums
                failures += [Failure(item.key, item.fingerprint, "damaged frames", str(error)) for item in group]
        answers = self._policy.answer(requests, temperature=self.temperature, max_tokens=self.max_tokens)
        for group, responses in zip(groups, answers, strict=True):
            for item, response in zip(group, responses, strict=True):
                try:
                    rows.append(self._row(item, response))
                except ValueError as error:
                    failures.append(Failure(item.key, item.fingerprint, "sample cannot be scored", str(error)))
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.ROLLOUTS), failures)

    def _request(self, group: Sequence[Item]) -> Request:
        question: _Question = group[0].payload
        sample = question.sample
        view = load_view(self._reader, sample["video_id"], question.indices, question.crop, question.scale)
        seeds = [seed_of(self.seed, *item.key) for item in group]
        return Request(view.frames, view.times, sample["task"], sample["question"], sample["options"], seeds)

    def _row(self, item: Item, response: Response) -> dict[str, Any]:
        sample = item.payload.sample
        reward = score(response.text, sample["task"], sample["options"], sample["answer"], sample["spans"])
        sample_id, variant, draw = item.key
        return {
            "sample_id": sample_id,
            "variant": variant,
            "draw": draw,
            "policy": self.policy,
            "text": response.text,
            "tokens": response.tokens,
            "logprob": response.logprob,
            "accuracy": reward.accuracy,
            "iou": reward.iou,
            "format": reward.format,
            "reward": reward.reward,
            "parse_error": reward.parse_error,
            "fingerprint": item.fingerprint,
        }
