"""kill -9 of score-frames and select at ten random moments: the store opens, no row is lost or doubled."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import runner
from pipeline.answerer import Request, Response
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, RulePolicy, a_sample, a_scorer, add_samples, add_scores, add_videos
from tests.curation_world import choose as choose_from

MOMENTS = 10
TABLES = {"score": ("frame_embeddings", "frame_scores"), "choose": ("rollouts",)}


class SlowPolicy(RulePolicy):
    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        time.sleep(0.05)
        return super().answer(requests, temperature=temperature, max_tokens=max_tokens)


def slow_policy(device: str) -> SlowPolicy:
    return SlowPolicy()


def score(path: str, folder: str) -> None:
    """What `strive-data score-frames` does, with a commit after every batch."""
    runner._COMMIT_S = (0.0, 0.0)
    EmbedFrames.batch_size, ScoreFrames.batch_size = 1, 4
    for stage in (EmbedFrames(folder), ScoreFrames(folder)):
        runner.run(stage, Store(path))


def choose(path: str) -> None:
    """What `strive-data select` does, with a commit after every batch."""
    runner._COMMIT_S = (0.0, 0.0)
    choose_from(Store(path), asker={"load": slow_policy}, draws=4)


@pytest.fixture(scope="module")
def zygote() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.zygote", "torch,open_clip,pyarrow,polars,pytest,decord"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def call(zygote: subprocess.Popen[str], function: str, arguments: Sequence[str], seconds: float | None) -> Any:
    assert zygote.stdin
    assert zygote.stdout
    zygote.stdin.write(json.dumps([__name__, function, arguments, seconds]) + "\n")
    zygote.stdin.flush()
    return json.loads(zygote.stdout.readline())


def rows_of(path: Path, function: str) -> dict[str, list[str]]:
    store = Store(path)
    rows = {name: sorted(map(str, store.table(name).to_pylist())) for name in TABLES[function]}
    if function == "choose" and "d" in store.curated_names():
        rows["curated"] = sorted(map(str, store.curated("d").to_pylist()))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, samples, scores of another scorer, and variants: what both commands start from."""
    store = Store(tmp_path_factory.mktemp("pristine") / "s", create=True)
    videos = [f"v{i}" for i in range(24)]
    add_videos(store, videos)
    samples = [a_sample(f"{video}-{k}", video) for video in videos for k in range(4)]
    add_samples(store, samples)
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(), store)
    return store.path


@pytest.mark.parametrize("function", ["score", "choose"])
def test_ten_kills(function: str, zygote: Any, pristine: Path, folder: Path, tmp_path: Path) -> None:
    more = [str(folder)] if function == "score" else []
    whole = tmp_path / "whole"
    shutil.copytree(pristine, whole)
    code, seconds = call(zygote, function, [str(whole), *more], None)
    assert code == 0
    expected = rows_of(whole, function)

    moments = random.Random(7)
    killed = partial = 0
    for trial in range(MOMENTS):
        path = tmp_path / f"kill{trial}"
        shutil.copytree(pristine, path)
        # One moment in each tenth of the run, so that all of its phases are met.
        code, _ = call(zygote, function, [str(path), *more], seconds * (trial + moments.random()) / MOMENTS)
        killed += code == -9
        found = rows_of(path, function)
        for name, rows in found.items():
            mine = [row for row in rows if row in set(expected[name])]
            assert len(set(rows)) == len(rows), "a row is doubled"
            assert name == "frame_scores" or mine == rows, "a row that no whole run writes"
        partial += any(0 < len(rows) < len(expected[name]) for name, rows in found.items())
        code, _ = call(zygote, function, [str(path), *more], None)
        assert code == 0
        assert rows_of(path, function) == expected
        shutil.rmtree(path)
    assert killed >= MOMENTS // 3  # the others were done before their moment came
    assert partial >= 1
