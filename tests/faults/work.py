"""What the storm disturbs: each stage by its command, and training. A commit after every batch, so that kills fall
between many of them."""

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.data import app
from pipeline import runner
from pipeline.errors import UserError
from pipeline.frames import CacheFrames
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.store import Store
from toyworld.scenes import SECONDS, SIZE

MISTAKE = 2
STEPS = 3


def command(*words: object) -> None:
    """A command of strive-data, as its program runs it: a mistake is a line on stderr and exit code 2."""
    try:
        app([str(word) for word in words], standalone_mode=False, prog_name="strive-data")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(MISTAKE)


def often() -> None:
    """Small batches, and a commit after each."""
    runner._COMMIT_S = (0.0, 0.0)
    EmbedFrames.batch_size, ScoreFrames.batch_size = 1, 4


def ingest(store: str, world: str, workers: int = 0) -> None:
    often()
    for file in sorted(Path(world).glob("*.json*")):
        name = file.name.partition(".")[0]
        words = ["--videos", Path(world) / "videos", "--source", name, "--split", "train", "--workers", workers]
        command("ingest", file, "--store", store, *words)


def cache_frames(store: str, world: str, workers: int = 1) -> None:
    often()
    if workers == 1:
        command("cache-frames", "--store", store, "--fps", 2, "--workers", 1)
    else:  # workers write their rows themselves, as those of long videos; decord still reads
        pixels = 2 * SECONDS * 3 * SIZE * SIZE  # of a clip: its rows have a little more
        try:
            runner.run(CacheFrames(fps=2.0, hold_bytes=pixels), Store(store), workers=workers)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            os._exit(MISTAKE)


def cache_frames_on_ray(store: str, world: str) -> None:
    often()
    command("cache-frames", "--store", store, "--fps", 2, "--engine", "ray", "--workers", 2)


def score_frames(store: str, world: str, workers: int = 0) -> None:
    often()
    command("score-frames", "--store", store, "--device", "cpu", "--workers", workers)


def build_variants(store: str, world: str, workers: int = 0) -> None:
    often()
    command("build-variants", "--store", store, "--workers", workers)


def select(store: str, world: str, workers: int = 0, more: Sequence[str] = ()) -> None:
    often()
    words = ["--keep-all", "--draws", 4, "--max-tokens", 24, "--device", "cpu", "--workers", workers, *more]
    command("select", "--store", store, *words)


def select_served(store: str, world: str, url: str) -> None:
    """Draws from a server that has less than a second for an answer."""
    select(
        store,
        world,
        0,
        ["--endpoint", url, "--policy", "toy", "--timeout", "0.7", "--retries", "0", "--concurrency", "2"],
    )


def everything(store: str, world: str) -> None:
    """All stages, one after the other."""
    for stage in (ingest, cache_frames, score_frames, build_variants, select):
        stage(store, world)


def train_run(store: str, out: str) -> None:
    """Start a run, or go on with it; a checkpoint after every step, and something to remember beside the weights."""
    from tests.toy_run import SETTINGS
    from trainer import train
    from trainer.config import RunConfig

    changes = {"store": store, "out": out, "steps": STEPS, "checkpoint_every": 1, "scale": "task-ema", "refill": 1}
    changes["cache_vision"] = str(Path(out).parent / "features")
    _training(lambda: train.run(RunConfig.model_validate(SETTINGS | changes), resume=True))


def train_sft(store: str, out: str) -> None:
    """The same, imitating."""
    from tests.toy_run import SETTINGS
    from trainer import sft
    from trainer.config import SftConfig

    kept = {name: SETTINGS[name] for name in ("dataset", "policy", "device")}
    changes = {"store": store, "out": out, "steps": 2 * STEPS, "checkpoint_every": 1, "groups": 2, "lr": 1e-4}
    _training(lambda: sft.run(SftConfig.model_validate(kept | changes), resume=True))


def train_run_dying(store: str, out: str, name: str, number: str) -> None:
    """A run that is killed within its checkpoints, when a function of `checkpoint` is called for the nth time."""
    from trainer import checkpoint

    inner, calls = getattr(checkpoint, name), []

    def killing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments)

    setattr(checkpoint, name, killing)
    train_run(store, out)


def _training(begin: Any) -> None:
    try:
        begin()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(MISTAKE)


def verify(store: str, world: str, *words: str) -> None:
    """Ends with 0 when all is well, with 1 when something is wrong."""
    _leave("verify", *words, "--store", store)


def dump(store: str, file: str) -> None:
    """All rows of a store, for another process: damaged files may take the reader along."""
    from tests.faults.tally import tables_of

    try:
        Path(file).write_bytes(pickle.dumps(tables_of(Store(store))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(MISTAKE)


def _leave(*words: str) -> None:
    try:
        code = app(list(words), standalone_mode=False, prog_name="strive-data")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(MISTAKE)
    os._exit(code if isinstance(code, int) else 0)
