"""The offline line on toy clips: nothing is done twice, a change redoes what depends on it, a loss is restored."""

import functools
from pathlib import Path

import pytest

from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.ledger import DrawRollouts
from pipeline.probes import Sampling
from pipeline.runner import Report, run
from pipeline.schemas import KEYS, TABLES
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.tables import assert_same, content
from toyworld import CLIP, POLICY, dataset
from trainer.identity import policy_fingerprint
from trainer.policy import load_answerer

CLIPS = 3


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return dataset.write(tmp_path_factory.mktemp("toyworld"), CLIPS, 0, "line")


def line(store: Store, annotations: list[Path], fps: float = 4.0) -> dict[str, Report]:
    """Every stage once, as the commands run them; ingest reports are checked by their own tests."""
    for file in annotations:
        ingest(store, file, None, f"toy-{file.stem}", "train", "auto", None, workers=0)
    load = functools.partial(load_answerer, str(POLICY))
    everyone = dict.fromkeys(store.table("samples", ["sample_id"])["sample_id"].to_pylist(), ())
    draw = DrawRollouts(load, policy_fingerprint(POLICY), "anchor", Sampling(max_tokens=24), everyone, draws=2)
    stages = [CacheFrames(fps=fps), EmbedFrames(str(CLIP)), ScoreFrames(str(CLIP)), BuildVariants(), draw]
    return {stage.name: run(stage, store) for stage in stages}


def test_a_second_run_has_nothing_to_do_and_a_changed_rate_redoes_the_frames_and_what_follows(
    annotations: list[Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", create=True)
    first = line(store, annotations)
    assert all(report.done == report.planned > 0 and not report.failed for report in first.values())
    again = line(store, annotations)
    assert all(report.to_do == report.stale == 0 for report in again.values())
    before = {name: content(store, name) for name in TABLES}
    changed = line(store, annotations, fps=2.0)
    for name, report in changed.items():
        assert report.done == report.planned == report.stale, f"{name} has to be redone as a whole, and only once"
    for name in ("videos", "samples"):
        assert content(store, name).equals(before[name]), f"{name} do not depend on the rate of the frames"
    line(store, annotations, fps=4.0)
    for name in TABLES:
        assert_same(content(store, name), before[name])


@pytest.mark.parametrize("tables", [["frames"], ["frames", "frame_embeddings", "frame_scores", "variants", "rollouts"]])
def test_rows_that_were_removed_come_back_exactly(annotations: list[Path], tmp_path: Path, tables: list[str]) -> None:
    store = Store(tmp_path / "store", create=True)
    line(store, annotations)
    before = {name: content(store, name) for name in TABLES}
    video = before["videos"]["video_id"][0].as_py()
    samples = store.table("samples", ["sample_id"], f"video_id = '{video}'")["sample_id"].to_pylist()
    for name in tables:
        wanted = {"video_id": [video], "sample_id": samples}[KEYS[name][0]]
        store.delete(name, f"{KEYS[name][0]} IN ({', '.join(repr(w) for w in wanted)})")
        assert store.count(name) < before[name].num_rows
    reports = line(store, annotations)
    assert reports["cache-frames"].done == 1
    assert reports["select"].done == (2 * len(samples) if "rollouts" in tables else 0)
    for name in TABLES:
        assert_same(content(store, name), before[name])
