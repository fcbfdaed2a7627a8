"""One runner for all stages: what is missing is computed, what is stale is removed, what failed is recorded."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.schemas import KEYS, QUARANTINE
from pipeline.stage import Failure, Item, Key, Outcome, Stage
from pipeline.store import Store, literal
from pipeline.workers import Engine, execute

_COMMIT_BYTES = 256 << 20  # commit at the latest when so much waits in memory
_COMMIT_S = (0.5, 10.0)  # or after this many seconds: little at first, more in a long run, where commits add up
_COMMIT_SHARE = 0.05  # of the time that the run has taken so far
_LONGEST_MESSAGE = 4000  # characters of a failure's message that are kept
_COMMITS_A_TIDY = 256  # each leaves a version behind


class Progress(Protocol):
    """Shows how far a run is, in whole units of its items' weights."""

    def start(self, label: str, total: int) -> None: ...

    def advance(self, n: int) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Report:
    """What a run came to, in items.

    planned = already + quarantined + done + failed + spared; `spared` ones turned out not to be needed. `stale` items
    were removed because their inputs or parameters had changed or they are no longer planned. `reasons` counts what is
    left out, in this run and before, and `notes` what was kept although something is missing from it: items with a note
    are done.
    """

    stage: str
    planned: int = 0
    already: int = 0
    quarantined: int = 0
    done: int = 0
    failed: int = 0
    spared: int = 0
    stale: int = 0
    rows: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

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
    engine: Engine | None = None,
    progress: Progress | None = None,
    retry_quarantined: bool = False,
) -> Report:
    """Bring the table that a stage writes to what the stage plans.

    Args:
        workers: 0 computes in this process (no deadlines); more spawns as many.
        engine: who computes instead of these, given the number of workers. Rows are committed by this process alone.
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
        failed, noted = _drop_stale_quarantine(stage, store, planned, done, retry_quarantined)
        missing = [i for i in items if (i.key, i.fingerprint) not in done and key_text(i.key) not in failed]
        report.quarantined = len(failed)
        report.already = report.planned - report.quarantined - len(missing)
        reasons, notes = Counter(failed.values()), Counter(noted.values())
        steps = _Steps(progress, stage.name, missing)
        waiting = _Waiting(stage, store, begun)
        try:
            for batch, outcome in _outcomes(stage, store, missing, workers, device, engine):
                _check(stage, batch, outcome)
                waiting.add(outcome)
                report.rows += outcome.rows.num_rows if outcome.rows is not None else 0
                report.rows += sum(written.rows for written in outcome.written)
                report.failed += len(outcome.failures)
                report.spared += len(outcome.spared)
                report.done += len(batch) - len(outcome.failures) - len(outcome.spared)
                reasons.update(failure.reason for failure in outcome.failures)
                notes.update(note.reason for note in outcome.notes)
                steps.add(batch)
                if outcome.error:
                    raise UserError(*outcome.error)
                if outcome.fault:
                    raise RuntimeError(f"{stage.name} failed:\n{outcome.fault}")
        finally:  # what is finished is kept, whatever stopped the run
            waiting.commit()
            if progress:
                progress.stop()
        store.tidy(stage.writes, reclaim=report.stale > 0 or report.failed > 0)  # a killed worker may leave files
        store.tidy("quarantine")
    report.reasons, report.notes = dict(reasons.most_common()), dict(notes.most_common())
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
) -> tuple[dict[str, str], dict[str, str]]:
    """Forget what no longer counts; return {key: reason} of the failures that do, and of the notes."""
    rows = store.table("quarantine", filter=f"stage = {literal(stage.name)}").to_pylist()
    finished = {key_text(key): fingerprint for key, fingerprint in done}
    current = {key_text(key): fingerprint for key, fingerprint in planned.items()}

    def counts(row: dict[str, Any]) -> bool:
        key, fingerprint = row["key"], row["fingerprint"]
        if row["kept"]:
            return bool(finished.get(key) == fingerprint)
        return bool(not retry and key not in finished and current.get(key) == fingerprint)

    stale = [(stage.name, row["key"]) for row in rows if not counts(row)]
    if stale:
        store.remove_items("quarantine", stale)
    gone = {key for _, key in stale}
    left = [row for row in rows if row["key"] not in gone]
    failed = {row["key"]: row["reason"] for row in left if not row["kept"]}
    return failed, {row["key"]: row["reason"] for row in left if row["kept"]}


def _outcomes(
    stage: Stage, store: Store, items: Sequence[Item], workers: int, device: str, engine: Engine | None
) -> Iterator[tuple[Sequence[Item], Outcome]]:
    if not items:
        return
    batches = _batches(items, stage.batch_size)
    if workers or engine:
        store.create(stage.writes)
        yield from (engine or execute)(stage, store.location, batches, workers, device)
        return
    stage.setup(store.location, device)
    for batch in batches:
        yield batch, stage.process(batch)


def _batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """The items as batches of `size`; neighbours whose keys begin alike stay together and count as one."""
    groups = [list(group) for _, group in groupby(items, key=lambda item: item.key[0])]
    return [[item for group in groups[i : i + size] for item in group] for i in range(0, len(groups), size)]


def _check(stage: Stage, batch: Sequence[Item], outcome: Outcome) -> None:
    """Every item of a batch has rows or a failure, under the fingerprint that was planned, and nothing else does."""
    failed = {(failure.key, failure.fingerprint) for failure in outcome.failures}
    got = {(written.key, written.fingerprint) for written in outcome.written}
    if outcome.rows is not None:
        columns = [*KEYS[stage.writes], "fingerprint"]
        pairs = outcome.rows.select(columns).group_by(columns).aggregate([])
        got |= {(r[:-1], r[-1]) for r in zip(*(pairs[c].to_pylist() for c in columns), strict=True)}
    noted = Counter((note.key, note.fingerprint) for note in outcome.notes)
    spared = set(outcome.spared)
    planned = {(item.key, item.fingerprint) for item in batch}
    seen = got | failed | spared
    complete = seen <= planned if outcome.error or outcome.fault else seen == planned
    complete = complete and len(seen) == len(got) + len(failed) + len(spared)
    if not complete or not noted.keys() <= got or max(noted.values(), default=1) > 1:
        raise RuntimeError(f"{stage.name} did not account for exactly the items that it was given")


class _Steps:
    """Tells a progress bar of finished items, by their weights: in whole units that add up to the total."""

    def __init__(self, progress: Progress | None, label: str, items: Sequence[Item]) -> None:
        self.progress = progress
        self.weight = sum(item.weight for item in items)
        self.total = max(1, round(self.weight)) if items else 0
        self.done, self.shown = 0.0, 0
        if progress:
            progress.start(label, self.total)

    def add(self, batch: Sequence[Item]) -> None:
        self.done += sum(item.weight for item in batch)
        new = round(self.total * self.done / self.weight) - self.shown
        self.shown += new
        if self.progress:
            self.progress.advance(new)


class _Waiting:
    """Finished rows that wait for the next commit."""

    def __init__(self, stage: Stage, store: Store, begun: float) -> None:
        self.stage, self.store, self.begun = stage, store, begun
        self.rows: list[pa.Table] = []
        self.bytes = 0
        self.fragments: list[str] = []
        self.left_out: list[dict[str, Any]] = []
        self.last = time.monotonic()
        self.commits = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.rows is not None and outcome.rows.num_rows:
            self.rows.append(outcome.rows)
            self.bytes += outcome.rows.nbytes
        self.fragments += [fragment for written in outcome.written for fragment in written.fragments]
        self.left_out += [_quarantine_row(self.stage.name, failure, False) for failure in outcome.failures]
        self.left_out += [_quarantine_row(self.stage.name, note, True) for note in outcome.notes]
        now = time.monotonic()
        patience = min(max(_COMMIT_SHARE * (now - self.begun), _COMMIT_S[0]), _COMMIT_S[1])
        if now - self.last >= patience or self.bytes >= _COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        # Taken out first: if a commit fails, the clean-up must not try the same rows again.
        rows, fragments, left_out = self.rows, self.fragments, self.left_out
        self.rows, self.fragments, self.left_out, self.bytes = [], [], [], 0
        if left_out:  # first: rows must never be seen without the note that says what is missing from them
            self.store.append("quarantine", pa.Table.from_pylist(left_out, schema=QUARANTINE))
        if rows:
            self.store.append(self.stage.writes, pa.concat_tables(rows))
        if fragments:
            self.store.commit_fragments(self.stage.writes, fragments)
        if rows or fragments:
            self.commits += 1
            if self.commits % _COMMITS_A_TIDY == 0:
                self.store.tidy(self.stage.writes, running=True)
        self.last = time.monotonic()


def _quarantine_row(stage: str, failure: Failure, kept: bool) -> dict[str, Any]:
    message = failure.message
    if len(message) > _LONGEST_MESSAGE:  # it may repeat a text of any size
        message = message[:_LONGEST_MESSAGE] + " ..."
    # A fingerprint that no plan has makes a passing failure stale for the next run, which then tries again.
    return {
        "stage": stage,
        "key": key_text(failure.key),
        "reason": failure.reason,
        "message": message,
        "kept": kept,
        "fingerprint": "" if failure.passing else failure.fingerprint,
    }
