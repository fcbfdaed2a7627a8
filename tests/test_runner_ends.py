"""The runner: items that are not needed after all, runs that end early, and batches that keep together."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import runner, schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.runner import Report, run
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Store


@dataclass
class Draws:
    """Writes one rollout an item: (sample, draw) -> what becomes of it."""

    items: dict[tuple[str, int], str]
    batch_size: int = 2
    name: str = "draws"
    reads: tuple[str, ...] = ()
    writes: str = "rollouts"
    scope: str | None = None
    deadline_s: float | None = None
    batches: list[list[tuple[str, int]]] = field(default_factory=list)

    def plan(self, store: Store) -> list[Item]:
        return [Item((sample, 0, n), fingerprint(sample, n), what) for (sample, n), what in sorted(self.items.items())]

    def setup(self, store_path: str, device: str) -> None:
        return

    def process(self, items: Sequence[Item]) -> Outcome:
        self.batches.append([(item.key[0], item.key[2]) for item in items])
        out = Outcome(None)
        rows = []
        for item in items:
            match item.payload:
                case "spare":
                    out.spared.append((item.key, item.fingerprint))
                case "fail":
                    out.failures.append(Failure(item.key, item.fingerprint, "unlucky", "always"))
                case "unreachable":
                    out.error = ("server", "not there", "start it")
                    break
                case "crash":
                    out.fault = "Traceback: CUDA error"
                    break
                case "forget":
                    continue
                case "twice":
                    out.spared.append((item.key, item.fingerprint))
                    rows.append(self.row(item))
                case _:
                    rows.append(self.row(item))
        out.rows = pa.Table.from_pylist(rows, schema=schemas.ROLLOUTS)
        return out

    def row(self, item: Item) -> dict[str, object]:
        sample, variant, draw = item.key
        row = dict.fromkeys(schemas.ROLLOUTS.names) | {"sample_id": sample, "variant": variant, "draw": draw}
        return row | {"fingerprint": item.fingerprint}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def drawn(store: Store) -> list[tuple[str, int]]:
    return sorted((row["sample_id"], row["draw"]) for row in store.table("rollouts").to_pylist())


def adds_up(report: Report) -> bool:
    done = report.already + report.quarantined + report.done + report.failed + report.spared
    return report.planned == done


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_spared_has_no_row_and_no_quarantine_and_is_asked_for_again(store: Store, workers: int) -> None:
    items = {("a", 0): "ok", ("a", 1): "spare", ("b", 0): "fail", ("b", 1): "spare"}
    for already in (0, 1):
        report = run(Draws(items), store, workers=workers)
        assert (report.spared, report.already, report.quarantined) == (2, already, already)
        assert adds_up(report)
    assert drawn(store) == [("a", 0)]
    assert store.count("quarantine") == 1
    needed = run(Draws(items | {("a", 1): "ok"}), store, workers=workers)
    assert (needed.done, needed.spared, drawn(store)) == (1, 1, [("a", 0), ("a", 1)])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("how", "error", "message"), [("unreachable", UserError, "start it"), ("crash", RuntimeError, "CUDA error")]
)
def test_a_run_that_ends_early_keeps_what_it_finished(
    store: Store, workers: int, how: str, error: type[Exception], message: str
) -> None:
    keys = [(sample, draw) for sample in "abcd" for draw in range(3)]
    items = dict.fromkeys(keys, "ok") | {("a", 2): "spare", ("b", 2): "fail", ("c", 1): how}
    stage = Draws(items, batch_size=2)
    with pytest.raises(error, match=message):
        run(stage, store, workers=workers)
    assert drawn(store) == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)]
    assert store.table("quarantine")["key"].to_pylist() == ['["b", 0, 2]']
    report = run(Draws(dict.fromkeys(keys, "ok")), store, workers=workers)
    assert (report.done, report.already, report.quarantined) == (12 - 5 - 1, 5, 1)
    assert adds_up(report)


def test_an_end_excuses_what_is_missing_and_nothing_else(store: Store) -> None:
    for items in ({("a", 0): "forget"}, {("a", 0): "twice"}, {("a", 0): "twice", ("b", 0): "unreachable"}):
        with pytest.raises(RuntimeError, match="account"):
            run(Draws(items), store)
    assert drawn(store) == []


def test_the_draws_of_a_sample_stay_in_one_batch(store: Store) -> None:
    """A resumed run once cut a sample's draws in two, and the second half did not know that its verdict stood."""
    keys = [(sample, draw) for sample in "abc" for draw in range(3)]
    run(Draws(dict.fromkeys(keys[:2], "ok")), store)
    stage = Draws(dict.fromkeys(keys, "ok"))
    run(stage, store)
    assert stage.batches == [keys[2:6], keys[6:]]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40).map(sorted), st.integers(1, 5))
def test_batches_hold_every_item_once_in_order(samples: list[str], size: int) -> None:
    items = [Item((sample, i), "f") for i, sample in enumerate(samples)]
    batches = runner._batches(items, size)
    assert [item for batch in batches for item in batch] == items
    counts = [len({item.key[0] for item in batch}) for batch in batches]
    assert all(count == size for count in counts[:-1]) and all(0 < count <= size for count in counts)
    homes = [item_sample for batch in batches for item_sample in {item.key[0] for item in batch}]
    assert len(homes) == len(set(homes)), "a sample lies in two batches"


@dataclass
class Mortal(Draws):
    """Kills its process: at an item or in its setup, the first times or always."""

    mark: str = ""
    in_setup: bool = False
    deaths: int = 1
    batch_size: int = 1

    def setup(self, store_path: str, device: str) -> None:
        if self.in_setup:
            self.die()

    def process(self, items: Sequence[Item]) -> Outcome:
        if not self.in_setup and items[0].key[0] == "b":
            self.die()
        return super().process(items)

    def die(self) -> None:
        with open(self.mark, "ab") as file:
            if file.tell() < self.deaths:
                file.write(b"x")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("in_setup", [True, False])
def test_a_worker_that_is_killed_from_outside_costs_no_item(tmp_path: Path, in_setup: bool) -> None:
    store = Store(tmp_path / "s", create=True)
    stage = Mortal({("a", 0): "", ("b", 0): ""}, mark=str(tmp_path / "mark"), in_setup=in_setup)
    report = run(stage, store, workers=1)
    assert (tmp_path / "mark").read_bytes() == b"x"
    assert (report.done, report.failed, store.count("rollouts"), store.count("quarantine")) == (2, 0, 2, 0)


def test_workers_that_always_die_end_the_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    stage = Mortal({("a", 0): ""}, mark=str(tmp_path / "mark"), in_setup=True, deaths=99)
    with pytest.raises(RuntimeError, match=r"workers of draws die before their first item \(SIGKILL\)"):
        run(stage, store, workers=1)
    stage = Mortal({("b", 0): ""}, mark=str(tmp_path / "mark"), deaths=99)
    assert run(stage, store, workers=1).reasons == {"worker died": 1}
