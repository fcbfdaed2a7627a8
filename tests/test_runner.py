"""The runner: what is missing is computed once, what is stale goes, what fails is recorded, whoever computes."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.runner import Report, key_text, missing_items, run
from pipeline.store import Store, write_fragments
from tests.runner_world import Asks, Bar


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def questions(store: Store) -> dict[str, str]:
    table = store.table("samples", ["sample_id", "question"])
    assert table.num_rows == len(table["sample_id"].unique())
    return dict(zip(table["sample_id"].to_pylist(), table["question"].to_pylist(), strict=True))


def counts(report: Report) -> tuple[int, int, int, int, int, int]:
    return report.planned, report.already, report.quarantined, report.done, report.failed, report.stale


def test_a_second_run_has_nothing_to_do(store: Store) -> None:
    stage = Asks({f"k{i}": "ok" for i in range(5)})
    assert [item.key for item in missing_items(stage, store)] == [(f"k{i}",) for i in range(5)]
    assert counts(run(stage, store)) == (5, 0, 0, 5, 0, 0)
    again = run(stage, store)
    assert (counts(again), again.to_do) == ((5, 5, 0, 0, 0, 0), 0)
    assert len(stage.seen) == 5
    assert missing_items(stage, store) == []


def test_only_what_changed_is_done_again(store: Store) -> None:
    run(Asks({"a": "x", "b": "y", "c": "z"}), store)
    changed = Asks({"a": "x", "b": "other", "d": "new"})
    assert counts(run(changed, store)) == (3, 1, 0, 2, 0, 2)  # b changed, c is gone
    assert changed.seen == ["b", "d"]
    assert questions(store) == {"a": "x 1", "b": "other 1", "d": "new 1"}
    assert counts(run(Asks(changed.items, version=2), store)) == (3, 0, 0, 3, 0, 3)
    assert questions(store) == {"a": "x 2", "b": "other 2", "d": "new 2"}


def test_removed_rows_are_restored_and_no_others(store: Store) -> None:
    stage = Asks({f"k{i}": "ok" for i in range(5)})
    run(stage, store)
    before = questions(store)
    store.remove_items("samples", [("k1",), ("k3",)])
    stage.seen.clear()
    assert counts(run(stage, store)) == (5, 3, 0, 2, 0, 0)
    assert stage.seen == ["k1", "k3"]
    assert questions(store) == before


def test_a_stage_touches_only_its_scope(store: Store) -> None:
    run(Asks({"a": "x"}, source="one", scope="source = 'one'"), store)
    assert counts(run(Asks({"b": "y"}, source="two", scope="source = 'two'"), store)) == (1, 0, 0, 1, 0, 0)
    assert counts(run(Asks({}, source="two", scope="source = 'two'"), store)) == (0, 0, 0, 0, 0, 1)
    assert questions(store) == {"a": "x 1"}


@pytest.mark.parametrize("workers", [0, 1])
def test_failures_are_recorded_once_and_left_out(store: Store, workers: int) -> None:
    stage = Asks({"a": "ok", "b": "fail", "c": "ok"})
    first = run(stage, store, workers=workers)
    assert (counts(first), first.reasons) == ((3, 0, 0, 2, 1, 0), {"unlucky": 1})
    second = run(stage, store, workers=workers)
    assert (counts(second), second.to_do, second.reasons) == ((3, 2, 1, 0, 0, 0), 0, {"unlucky": 1})
    rows = store.table("quarantine").to_pylist()
    assert [(r["stage"], r["key"], r["reason"], r["message"]) for r in rows] == [
        ("asks", "b", "unlucky", "b always fails")
    ]
    assert counts(run(stage, store, workers=workers, retry_quarantined=True)) == (3, 2, 0, 0, 1, 0)
    assert store.count("quarantine") == 1
    assert counts(run(Asks({"a": "ok", "b": "ok now", "c": "ok"}), store)) == (3, 2, 0, 1, 0, 0)
    assert store.count("quarantine") == 0


def test_other_stages_keep_their_quarantine(store: Store) -> None:
    run(Asks({"a": "fail"}, name="one"), store)
    run(Asks({"a": "fail"}, name="two"), store)
    run(Asks({}, name="two"), store)
    assert store.table("quarantine")["stage"].to_pylist() == ["one"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_compute_the_same_rows(store: Store, tmp_path: Path, workers: int) -> None:
    stage = Asks({f"k{i}": f"text {i}" for i in range(9)})
    run(stage, store)
    other = Store(tmp_path / "other", create=True)
    bar = Bar()
    assert counts(run(stage, other, workers=workers, progress=bar)) == (9, 0, 0, 9, 0, 0)
    assert other.table("samples").sort_by("sample_id").equals(store.table("samples").sort_by("sample_id"))
    assert (bar.total, bar.steps, bar.stopped) == (9, 9, 1)


def test_a_worker_that_hangs_or_dies_costs_its_item_only(store: Store) -> None:
    items = {"a": "ok", "b": "hang", "c": "ok", "d": "die", "e": "ok", "f": "fail"}
    report = run(Asks(items, batch_size=3, deadline_s=0.5), store, workers=1)
    assert counts(report) == (6, 0, 0, 3, 3, 0)
    assert report.reasons == {"deadline": 1, "worker died": 1, "unlucky": 1}
    assert sorted(questions(store)) == ["a", "c", "e"]
    messages = {r["key"]: r["message"] for r in store.table("quarantine").to_pylist()}
    assert "0.5 s" in messages["b"]
    assert "SIGKILL" in messages["d"]


def test_a_mistake_in_the_setup_is_the_users(store: Store) -> None:
    for workers in (0, 1):
        with pytest.raises(UserError, match="model nowhere"):
            run(Asks({"a": "ok"}, broken_setup=True), store, workers=workers)
    assert run(Asks({}, broken_setup=True), store, workers=1).planned == 0  # nothing to do: nothing is loaded


def test_a_fault_of_the_program_is_not_hidden_and_keeps_what_is_finished(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        run(Asks({"a": "ok", "b": "raise"}, batch_size=1), store)
    assert sorted(questions(store)) == ["a"]
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(Asks({"a": "ok", "b": "raise"}, batch_size=1), store, workers=1)
    assert store.count("quarantine") == 0


def test_every_item_must_be_accounted_for(store: Store) -> None:
    with pytest.raises(RuntimeError, match="account"):
        run(Asks({"a": "forget", "b": "ok"}), store)
    for wrong in ("both", "partly, twice"):
        with pytest.raises(RuntimeError, match="account"):
            run(Asks({"a": wrong, "b": "ok"}), store)
    assert store.count("samples") == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_note_stands_as_long_as_the_rows_that_it_is_about(store: Store, workers: int) -> None:
    stage = Asks({"a": "ok", "b": "partly", "c": "fail"})
    for report in (run(stage, store, workers=workers), run(stage, store, workers=workers)):
        assert (report.reasons, report.notes, report.done + report.already) == ({"unlucky": 1}, {"a part": 1}, 2)
    rows = store.table("quarantine").sort_by("key").to_pylist()
    assert [(row["key"], row["kept"], row["reason"]) for row in rows] == [
        ("b", True, "a part"),
        ("c", False, "unlucky"),
    ]
    assert run(stage, store, workers=workers, retry_quarantined=True).notes == {"a part": 1}
    assert store.count("quarantine", "kept") == 1
    store.remove_items("samples", [("b",)])  # redone: its note is replaced
    assert counts(run(stage, store, workers=workers)) == (3, 1, 1, 1, 0, 0)
    assert store.count("quarantine", "kept") == 1
    changed = run(Asks({"a": "ok", "b": "ok now", "c": "fail"}), store)
    assert (changed.done, changed.notes, store.count("quarantine", "kept")) == (1, {}, 0)
    run(stage, store)
    gone = run(Asks({"a": "ok"}), store)
    assert (gone.stale, gone.notes, store.count("quarantine")) == (1, {}, 0)


def test_a_note_without_its_rows_does_not_count(store: Store) -> None:
    """A kill between the two commits leaves the note alone: the item is done again."""
    stage = Asks({"a": "partly"})
    run(stage, store)
    store.remove_items("samples", [("a",)])
    assert [item.key for item in missing_items(stage, store)] == [("a",)]
    assert counts(run(stage, store)) == (1, 0, 0, 1, 0, 0)
    assert (store.count("quarantine"), questions(store)) == (1, {"a": "partly 1"})


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_a_worker_wrote_are_like_others(store: Store, workers: int) -> None:
    items = {"a": "long", "b": "ok", "c": "long", "d": "fail", "e": "long"}
    report = run(Asks(items), store, workers=workers)
    assert (counts(report), report.rows) == ((5, 0, 0, 4, 1, 0), 4)
    assert questions(store) == {key: f"{text} 1" for key, text in items.items() if text != "fail"}
    assert run(Asks(items), store, workers=workers).to_do == 0
    assert counts(run(Asks({"a": "long", "c": "ok"}), store)) == (2, 1, 0, 1, 0, 3)
    assert questions(store) == {"a": "long 1", "c": "ok 1"}


def test_files_of_a_worker_that_was_killed_are_removed(store: Store) -> None:
    run(Asks({"a": "ok"}), store)
    write_fragments(store.path, "samples", [store.table("samples")])
    data = store.table_path("samples") / "data"
    assert len(list(data.iterdir())) == 2
    run(Asks({"a": "ok", "b": "fail"}), store)
    assert len(list(data.iterdir())) == 1
    assert questions(store) == {"a": "ok 1"}


@pytest.mark.parametrize("workers", [0, 1])
def test_progress_is_told_in_whole_units_of_weight(store: Store, workers: int) -> None:
    weights = {"a": 0.4, "b": 250.3, "c": 0.4, "d": 0.4, "e": 1000.0}
    bar = Bar()
    run(Asks(dict.fromkeys(weights, "ok"), weights=weights, batch_size=1), store, workers=workers, progress=bar)
    assert (bar.total, bar.steps, bar.stopped) == (1252, 1252, 1)
    small = Bar()
    run(Asks({"f": "ok", "g": "ok"}, weights={"f": 0.1, "g": 0.1}), store, progress=small)
    assert small.total == small.steps > 0


def test_keys_of_several_columns_have_a_text() -> None:
    assert key_text(("a",)) == "a"
    assert key_text(("a", 0, 3)) == '["a", 0, 3]'


plans = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["x", "y", "fail"]), max_size=6)


@given(st.lists(plans, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_came_before_the_store_ends_as_planned(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, str]]
) -> None:
    store = Store(tmp_path_factory.mktemp("s") / "store", create=True)
    for plan in history:
        report = run(Asks(plan), store)
        assert report.planned == report.already + report.quarantined + report.done + report.failed
        assert questions(store) == {key: f"{text} 1" for key, text in plan.items() if text != "fail"}
        assert sorted(store.table("quarantine")["key"].to_pylist()) == sorted(k for k, t in plan.items() if t == "fail")
        assert run(Asks(plan), store).to_do == 0
