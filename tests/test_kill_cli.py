"""kill -9 of the real score-frames and select, with the toy world's models: nothing lost, nothing doubled."""

import shutil
import sys
from pathlib import Path

import pytest

from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.runner import run
from pipeline.schemas import TABLES
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.kill import kill_at_random_moments
from tests.tables import assert_same, content, keys
from toyworld import CLIP, dataset

CLIPS = 10
COMMANDS = {
    "score-frames": ["frame_embeddings", "frame_scores"],
    "select": ["rollouts"],
}


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the frames of a few toy clips."""
    folder = tmp_path_factory.mktemp("kill")
    store = Store(folder / "store", create=True)
    for file in dataset.write(folder / "toyworld", CLIPS, 0, "kill"):
        ingest(store, file, None, f"toy-{file.stem}", "train", "auto", None, workers=0)
    run(CacheFrames(fps=4.0), store)
    return store.path


@pytest.mark.timeout(800)  # twenty starts of a program that loads PyTorch
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_killed_command_loses_and_doubles_nothing(cached: Path, tmp_path: Path, name: str) -> None:
    before, work = tmp_path / "before", tmp_path / "store"
    shutil.copytree(cached, before)
    if name == "select":
        for stage in (EmbedFrames(str(CLIP)), ScoreFrames(str(CLIP)), BuildVariants()):
            run(stage, Store(before))
    command = [sys.executable, "-m", "cli.data", name, "--store", work]

    def reset() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(before, work)

    def check() -> None:
        store = Store(work)
        for table in TABLES:
            rows = store.table(table, keys(table))
            assert rows.group_by(keys(table)).aggregate([]).num_rows == rows.num_rows, f"{table} has a row twice"

    assert kill_at_random_moments(command, work, reset=reset, check=check) >= 5
    killed = {table: content(Store(work), table) for table in COMMANDS[name]}
    reset()
    kill_at_random_moments(command, work, reset=reset, check=check, moments=0)
    for table, rows in killed.items():
        assert rows.num_rows > 0
        assert_same(rows, content(Store(work), table))
    assert Store(work).count("quarantine") == 0
