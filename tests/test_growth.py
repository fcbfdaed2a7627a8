"""What keeps the cost of a sample flat: every stage at once on a small world, and the parts that were not flat."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import growth, growth_world
from pipeline.runner import _Waiting
from pipeline.stage import Outcome
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.store_rows import frames
from trainer import stream
from trainer.rows import Rows
from trainer.stream import Stream


def test_every_stage_works_once_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    growth_world.write(folder, 60)
    store = Store(folder / "store", create=True)
    first = {name: growth_world.RUN[name](folder, store) for name in growth.STAGES}
    assert first == {"ingest": 60, "cache": 3, "scores": 63, "variants": 60, "ledger": 120, "select": 0, "stream": 8}
    assert not any(growth_world.RUN[name](folder, store) for name in growth.IDLE)
    assert not any(growth_world.RUN[name](folder, store) for name in growth.LOOKS)
    assert len(store.curated("default")) == 60

    assert growth_world.RUN[growth.CHANGED](folder, store) == 60

    steps = _orders(Stream(store, "default", None, count=2, view="importance", groups=7, seed=3), 20)
    assert len(steps) == 20 * 7 and sorted(steps[:60]) == sorted(steps[60:120]) and steps[:60] != steps[60:120]


def _orders(source: Stream, steps: int) -> list[str]:
    return [group.sample["sample_id"] for step in range(steps) for group in source.batch(step)]


def test_the_order_of_an_epoch_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as long as the dataset: computed for every group, an epoch would take its square."""
    folder = tmp_path / "world"
    growth_world.write(folder, 40)
    store = Store(folder / "store", create=True)
    for name in growth.STAGES[:-1]:
        growth_world.RUN[name](folder, store)
    source = Stream(store, "default", None, count=1, view="anchor", groups=4, seed=0)
    expected = [source.rows[int(i)]["sample_id"] for e in (0, 1) for i in stream.weighted_order(0, e, source.weights)]
    calls: list[int] = []
    whole = stream.weighted_order
    monkeypatch.setattr(stream, "weighted_order", lambda *a: calls.append(1) or whole(*a))
    assert _orders(source, 20) == expected
    assert len(calls) == 2


def test_rows_are_those_of_the_table() -> None:
    table = pa.table({"a": [1, 2, 3], "b": [[{"x": 1}], [], [{"x": 2}]], "c": ["u", "v", "w"]})
    table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    rows, listed = Rows(table), table.to_pylist()
    assert list(rows) == listed and [rows[i] for i in range(-3, 3)] == listed * 2 and rows[1:] == listed[1:]
    assert rows.column("c") == ["u", "v", "w"] and list(rows.without("b")) == table.drop_columns(["b"]).to_pylist()
    assert not Rows(table.slice(0, 0)) and not list(Rows(table.slice(0, 0)))
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            rows[wrong]


def test_the_bytes_that_wait_are_counted_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted anew for each batch, a commit's batches would take their square. A commit starts from zero."""
    store = Store(tmp_path, create=True)
    part = frames("v", 3)
    monkeypatch.setattr("pipeline.runner._COMMIT_BYTES", 4 * part.nbytes)
    monkeypatch.setattr("pipeline.runner._COMMIT_S", (1e9, 1e9))
    stage = BuildVariants()
    monkeypatch.setattr(stage, "writes", "frames")
    waiting = _Waiting(stage, store, 0.0)
    counts = []
    for number in range(10):
        waiting.add(Outcome(frames(f"v{number}", 3)))
        counts.append(store.count("frames"))
    assert counts == [0, 0, 0, 12, 12, 12, 12, 24, 24, 24]


def test_thousands_of_items_are_removed_in_few_commits(tmp_path: Path) -> None:
    """One filter for every few hundred keys would look at all rows as often, and leave as many versions."""
    store = Store(tmp_path, create=True)
    names = [f"v{number:05d}" for number in range(4000)]
    index = np.tile(np.arange(2, dtype=np.int32), len(names))
    rows = frames("v", 1).to_pylist()[0]
    columns = {name: pa.array([rows[name]] * len(index), frames("v", 1).schema.field(name).type) for name in rows}
    columns |= {"video_id": pa.array(np.repeat(names, 2)), "index": pa.array(index)}
    store.append("frames", pa.table(columns))
    before = len(list((store.table_path("frames") / "_versions").glob("*.manifest")))
    store.remove_items("frames", [(name,) for name in names[1::2]] + [("nobody",)])
    assert set(store.table("frames", ["video_id"])["video_id"].to_pylist()) == set(names[::2])
    assert store.count("frames") == len(names)
    assert len(list((store.table_path("frames") / "_versions").glob("*.manifest"))) == before + 1
    store.remove_items("frames", [(name,) for name in names], "index = 1")
    assert store.table("frames", ["index"])["index"].unique().to_pylist() == [0]


def test_ratios_are_of_the_largest_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The arithmetic of the benchmark, on runs whose cost is known."""

    def stage(folder: Path, samples: int, name: str) -> dict[str, float]:
        folder.mkdir(exist_ok=True)
        marker = folder / name
        idle = name in growth.LOOKS or name == "select" or marker.exists()
        marker.touch()
        scale = 2.0 if name == "cache" and samples == 100 else 1.0
        took = {"seconds": samples / 50, "processor_s": scale * samples / 100, "start_s": 1.0}
        return took | {"items": 0 if idle else samples, "base_mib": 100.0, "peak_mib": 100.0 + samples}

    monkeypatch.setattr(growth, "stage", stage)
    found = growth.measure(tmp_path, (50, 100))
    assert found["cost_ratio_100_vs_50"] == {name: 2.0 if "cache" in name else 1.0 for name in found["runs"]["100"]}
    assert found["memory_ratio_100_vs_50"]["ingest"] == 1.0
    assert found["idle_processor_s"] == len(growth.IDLE) * 1.0 + 1.0
    assert found["idle_resume_s"] == len(growth.IDLE) * 2.0 and found["peak_gib"] == round(200 / 1024, 3)
