"""Stages on a Ray cluster of this machine: the same rows as from local workers, whoever dies meanwhile."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from cli.options import chosen_engine
from pipeline.cluster import RayEngine
from pipeline.cluster.actors import marked, seen
from pipeline.errors import UserError
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.schemas import TABLES
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.store.location import Location
from pipeline.variants import BuildVariants
from pipeline.videofile import content_id
from pipeline.videos import Probe
from pipeline.workers import Engine
from tests.clips import write_clip
from tests.curation_world import a_pool, a_sample, a_scorer, add_samples, choose
from tests.ray_world import Slow, begun, wait_until
from tests.tables import content
from tests.test_drawing_failures import dying
from tests.test_runner import Asks, Bar, counts, questions

MIXED = {f"k{i}": text for i, text in enumerate(["ok", "fail", "partly", "long", "ok", "partly", "long", "fail", "ok"])}


@pytest.fixture(scope="module")
def ray() -> Iterator[Engine]:
    """Two workers, one cluster for all tests."""
    with RayEngine() as engine:
        yield engine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def everything(store: Store) -> dict[str, pa.Table]:
    return {name: content(store, name) for name in TABLES}


def test_rows_failures_and_notes_are_those_of_local_workers(ray: Engine, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", create=True)
    bar = Bar()
    here = run(Asks(MIXED), store, workers=2)
    there = run(Asks(MIXED), other, workers=2, engine=ray, progress=bar)
    assert counts(there) == counts(here) and (there.reasons, there.notes) == (here.reasons, here.notes)
    assert (bar.total, bar.steps, bar.stopped) == (9, 9, 1)
    assert everything(other) == everything(store)
    assert run(Asks(MIXED), other, workers=2, engine=ray).to_do == 0


def test_every_stage_of_the_line_gives_the_same_rows(ray: Engine, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{i}.mp4", 20, tint=i, size=(64, 64)) for i in range(5)]
    files = {content_id(clip): str(clip) for clip in clips}
    model = str(a_scorer(tmp_path / "clip"))

    def stages() -> list[Stage]:  # models that a stage has loaded in this process would not travel
        first = [Probe("test", files), CacheFrames(fps=5, hold_bytes=20_000)]
        return [*first, EmbedFrames(model), ScoreFrames(model), BuildVariants(frames=4)]

    stores = [Store(tmp_path / name, create=True) for name in ("here", "there")]
    for store, engine in zip(stores, (None, ray), strict=True):
        add_samples(store, [a_sample(f"s{i}", video) for i, video in enumerate(sorted(files))])
        for stage in stages():
            run(stage, store, workers=1 if engine else 0, engine=engine)
    here, there = (everything(store) for store in stores)
    assert all(here[name].num_rows for name in ("videos", "frames", "frame_embeddings", "frame_scores", "variants"))
    assert there == here


def test_draws_are_the_same_when_a_worker_dies_of_them_once(ray: Engine, tmp_path: Path) -> None:
    here, there = a_pool(tmp_path / "here", each=2), a_pool(tmp_path / "there", each=2)
    choose(here, asker={"batch": 4})
    load = partial(dying, tmp_path / "died")
    choose(there, asker={"batch": 4, "load": load, "workers": 2, "engine": ray})
    assert (tmp_path / "died").exists()
    assert everything(there) == everything(here)
    assert there.curated("d").equals(here.curated("d"))


def test_an_item_that_hangs_or_kills_costs_itself_only(ray: Engine, store: Store) -> None:
    items = {"a": "ok", "b": "hang", "c": "ok", "d": "die", "e": "ok", "f": "fail"}
    report = run(Asks(items, batch_size=3, deadline_s=2.0), store, workers=2, engine=ray)
    assert counts(report) == (6, 0, 0, 3, 3, 0)
    assert report.reasons == {"deadline": 1, "worker died": 1, "unlucky": 1}
    assert sorted(questions(store)) == ["a", "c", "e"]
    messages = {r["key"]: r["message"] for r in store.table("quarantine").to_pylist()}
    assert messages["b"] == "not done in 2.0 s"
    assert "its process died" in messages["d"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_worker_that_is_killed_costs_its_batch_which_is_done_again(
    ray: Engine, store: Store, tmp_path: Path, batch_size: int
) -> None:
    log = tmp_path / "log"
    stage = Slow({f"k{i:02}": "ok" for i in range(18)}, batch_size=batch_size, deadline_s=None, log=str(log))
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: len(begun(log)) >= 6, "six items are begun")
        killed.append(begun(log)[-1][0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = run(stage, store, workers=2, engine=ray)
    killer.join()
    assert counts(report) == (18, 0, 0, 18, 0, 0)
    assert questions(store) == {f"k{i:02}": "ok 1" for i in range(18)}
    work = begun(log)
    assert killed
    assert 1 <= len(work) - 18 <= batch_size, "the batch in flight is done again, and nothing else"


def test_a_mistake_and_a_fault_come_back_as_from_local_workers(ray: Engine, store: Store) -> None:
    with pytest.raises(UserError, match="model nowhere"):
        run(Asks({"a": "ok"}, broken_setup=True), store, workers=1, engine=ray)
    with pytest.raises(RuntimeError, match=r"(?s)in a worker.*ZeroDivisionError: a fault of the program"):
        run(Asks({"a": "ok", "b": "raise"}, batch_size=1), store, workers=1, engine=ray)
    assert sorted(questions(store)) == ["a"]
    assert store.count("quarantine") == 0
    with pytest.raises(UserError, match="GPUs a worker: Ray finds 0"):
        run(Asks({"c": "ok"}), store, workers=1, engine=ray, device="cuda")


def test_nothing_is_started_for_nothing(store: Store) -> None:
    with RayEngine("127.0.0.1:1") as engine:
        assert run(Asks({}), store, workers=2, engine=engine).planned == 0
        with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:1: nobody answers there"):
            run(Asks({"a": "ok"}), store, workers=2, engine=engine)


def test_a_mark_tells_a_store_from_another_one_under_the_same_path(store: Store) -> None:
    before = sorted(store.path.iterdir())
    with marked(store.location) as mark:
        assert seen(mark, 0.0)
    assert not seen(mark, 0.0)
    assert sorted(store.path.iterdir()) == before
    with marked(Location("s3://bucket/store")) as mark:
        assert mark == ""


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: chosen_engine("slurm", None), "local or ray"),
        (lambda: chosen_engine("local", "auto"), "only a Ray cluster"),
        (lambda: chosen_engine("local", None, 0.5), "only a Ray cluster"),
        (lambda: chosen_engine("ray", "ray://head:10001"), "auto or host:port"),
        (lambda: chosen_engine("ray", "head"), "auto or host:port"),
        (lambda: chosen_engine("ray", None, 1.5), "a part of 1, or a whole number"),
        (lambda: chosen_engine("ray", None, 0.5, "cpu"), "--device cpu uses none"),
    ],
)
def test_options_that_do_not_go_together(choose: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose()
