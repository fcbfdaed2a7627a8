"""One runner for all stages: what is missing is computed, what is stale is removed, what failed is recorded."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipeline.schemas import KEYS, QUARANTINE
from pipeline.stage import Failure, Item, Key, Outcome, Stage
from pipeline.store import Store, literal
from pipeline.workers import execute

_COMMIT_BYTES = 256 << 20  # commit at the latest when so much waits in memory
_COMMIT_S = (0.5, 10.0)  # or after this many seconds: little at first, more in a long run, where commits add up
_COMMIT_SHARE = 0.05  # of the time that the run has taken so far
_COMMITS_A_TIDY = 256  # each leaves a version behind


class Progress(Protocol):
    """Shows how far a run is."""

    def start(self, label: str, total: int) -> None: ...

    def advance(self, n: int) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Report:
    """What a run came to, in items.

    planned = already + quarantined + done + failed. `stale` items were removed because their inputs or parameters had
    changed or they are no longer planned. `reasons` counts what is left out, in this run and before.
    """

    stage: str
    planned: int = 0
    already: int = 0
    quarantined: int = 0
    done: int = 0
    failed: int = 0
    stale: int = 0
    rows: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def to_do(self) -> int:
        return self.planned - self.already - self.quarantined

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "to_do": self.to_do}


def run(
    stage: Stage,
    store: Store,
    *,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    retry_quarantined: bool = False,
) -> Report:
    """Bring the table that a stage writes to what the stage plans.

    Args:
        workers: 0 computes in this process (no deadlines); more spawns as many.
        retry_quarantined: try items again that failed before; otherwise they stay left out until they change.

    Raises:
        UserError: another process writes to the store, or the stage's input is unusable.
        RuntimeError: the stage broke its contract or crashed.
    """
    begun = time.monotonic()
    with store.writing():
        items = stage.plan(store)
        planned = {item.key: item.fingerprint for item in items}
        if len(planned) != len(items):
            raise RuntimeError(f"{stage.name} plans an item twice")
        report = Report(stage.name, planned=len(items))
        done = _drop_stale(stage, store, planned, report)
        failed = _drop_stale_quarantine(stage, store, planned, done, retry_quarantined)
        missing = [i for i in items if (i.key, i.fingerprint) not in done and key_text(i.key) not in failed]
        report.quarantined = len(failed)
        report.already = report.planned - report.quarantined - len(missing)
        reasons = Counter(failed.values())
        if progress:
            progress.start(stage.name, len(missing))
        waiting = _Waiting(stage, store, begun)
        try:
            for batch, outcome in _outcomes(stage, store, missing, workers, device):
                _check(stage, batch, outcome)
                waiting.add(outcome)
                report.rows += outcome.rows.num_rows if outcome.rows is not None else 0
                report.failed += len(outcome.failures)
                report.done += len(batch) - len(outcome.failures)
                reasons.update(failure.reason for failure in outcome.failures)
                if progress:
                    progress.advance(len(batch))
        finally:  # what is finished is kept, whatever stopped the run
            waiting.commit()
            if progress:
                progress.stop()
        for name in (stage.writes, "quarantine"):
            store.tidy(name, reclaim=name == stage.writes and report.stale > 0)
    report.reasons = dict(reasons.most_common())
    report.seconds = time.monotonic() - begun
    return report


def missing_items(stage: Stage, store: Store) -> list[Item]:
    """The items that a run would compute now, were the quarantine empty. Reads only."""
    done = store.done(stage.writes, stage.scope)
    return [item for item in stage.plan(store) if (item.key, item.fingerprint) not in done]


def key_text(key: Key) -> str:
    """A key as the quarantine table holds it: the value itself, or a JSON list of several."""
    return str(key[0]) if len(key) == 1 else json.dumps(list(key))


def _drop_stale(stage: Stage, store: Store, planned: dict[Key, str], report: Report) -> set[tuple[Key, str]]:
    """Remove rows that the plan does not name; return the (key, fingerprint) pairs that stay."""
    done = store.done(stage.writes, stage.scope)
    stale = {key for key, fingerprint in done if planned.get(key) != fingerprint}
    if stale:
        store.remove_items(stage.writes, sorted(stale), stage.scope)
    report.stale = len(stale)
    return {pair for pair in done if pair[0] not in stale}


def _drop_stale_quarantine(
    stage: Stage, store: Store, planned: dict[Key, str], done: set[tuple[Key, str]], retry: bool
) -> dict[str, str]:
    """Forget failures that no longer count; return {key: reason} of those that do."""
    rows = store.table("quarantine", filter=f"stage = {literal(stage.name)}").to_pylist()
    finished = {key for key, _ in done}
    current = {key_text(key): fingerprint for key, fingerprint in planned.items() if key not in finished}
    stale = [(stage.name, r["key"]) for r in rows if retry or current.get(r["key"]) != r["fingerprint"]]
    if stale:
        store.remove_items("quarantine", stale)
    gone = {key for _, key in stale}
    return {r["key"]: r["reason"] for r in rows if r["key"] not in gone}


def _outcomes(
    stage: Stage, store: Store, items: Sequence[Item], workers: int, device: str
) -> Iterator[tuple[Sequence[Item], Outcome]]:
    if not items:
        return
    batches = [items[i : i + stage.batch_size] for i in range(0, len(items), stage.batch_size)]
    if workers:
        yield from execute(stage, str(store.path), batches, workers, device)
        return
    stage.setup(str(store.path), device)
    for batch in batches:
        yield batch, stage.process(batch)


def _check(stage: Stage, batch: Sequence[Item], outcome: Outcome) -> None:
    """Every item of a batch has rows or a failure, under the fingerprint that was planned, and nothing else does."""
    got = {(failure.key, failure.fingerprint) for failure in outcome.failures}
    if outcome.rows is not None:
        columns = [*KEYS[stage.writes], "fingerprint"]
        pairs = outcome.rows.select(columns).group_by(columns).aggregate([])
        got |= {(r[:-1], r[-1]) for r in zip(*(pairs[c].to_pylist() for c in columns), strict=True)}
    if got != {(item.key, item.fingerprint) for item in batch}:
        raise RuntimeError(f"{stage.name} did not account for exactly the items that it was given")


class _Waiting:
    """Finished rows that wait for the next commit."""

    def __init__(self, stage: Stage, store: Store, begun: float) -> None:
        self.stage, self.store, self.begun = stage, store, begun
        self.rows: list[pa.Table] = []
        self.failures: list[Failure] = []
        self.last = time.monotonic()
        self.commits = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.rows is not None and outcome.rows.num_rows:
            self.rows.append(outcome.rows)
        self.failures.extend(outcome.failures)
        now = time.monotonic()
        patience = min(max(_COMMIT_SHARE * (now - self.begun), _COMMIT_S[0]), _COMMIT_S[1])
        if now - self.last >= patience or sum(rows.nbytes for rows in self.rows) >= _COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        # Taken out first: if a commit fails, the clean-up must not try the same rows again.
        rows, failures, self.rows, self.failures = self.rows, self.failures, [], []
        if rows:
            self.store.append(self.stage.writes, pa.concat_tables(rows))
            self.commits += 1
            if self.commits % _COMMITS_A_TIDY == 0:
                self.store.tidy(self.stage.writes)
        if failures:
            self.store.append("quarantine", _quarantine_rows(self.stage.name, failures))
        self.last = time.monotonic()


def _quarantine_rows(stage: str, failures: Sequence[Failure]) -> pa.Table:
    rows = [
        {"stage": stage, "key": key_text(f.key), "reason": f.reason, "message": f.message, "fingerprint": f.fingerprint}
        for f in failures
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE)
