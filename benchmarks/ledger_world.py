"""A synthetic store whose ledger is full: samples of every task with views, and eight draws of each on its anchor.

python -m benchmarks.ledger_world DIR --samples 250000 --videos 20000
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

import toyworld
from pipeline import schemas
from pipeline.checksum import checksum
from pipeline.framereader import FrameReader
from pipeline.probes import Sampling, askable
from pipeline.store import Store
from trainer.identity import policy_fingerprint

SOURCES = ("nextgqa", "charades-sta", "star", "clevrer", "home")
FRAMES = 32  # cached frames of a video, half a second apart
SIDE = 4  # pixels
VIEWS, VIEW_FRAMES = 4, 16
DRAWS = 8
_SAMPLES_A_COMMIT = 50_000
_OPTIONS = ["a red ball", "the blue cube", "two children", "nobody at all"]

Texts = npt.NDArray[np.object_]


def make(folder: Path, samples: int, videos: int, policy: str, seed: int = 0) -> Store:
    """Write the store, through `Store.append` alone, and the ledger as a complete one of `policy`."""
    store = Store(folder, create=True)
    rng = np.random.default_rng(seed)
    _frames(store, videos, rng)
    for start in range(0, samples, _SAMPLES_A_COMMIT):
        numbers = np.arange(start, min(start + _SAMPLES_A_COMMIT, samples))
        rows = _samples(numbers, videos, rng)
        store.append("samples", rows)
        store.append("variants", _variants(rows, rng))
    for rows in _rollouts(store, policy, rng):
        store.append("rollouts", rows)
    return store


def _frames(store: Store, videos: int, rng: np.random.Generator) -> None:
    count = videos * FRAMES
    pixels = rng.integers(0, 256, (count, SIDE * SIDE * 3), dtype=np.uint8)
    columns = {
        "video_id": np.repeat(_video_ids(np.arange(videos)), FRAMES),
        "index": np.tile(np.arange(FRAMES, dtype=np.int32), videos),
        "time_s": np.tile(np.arange(FRAMES) / 2, videos),
        "height": np.full(count, SIDE, np.int32),
        "width": np.full(count, SIDE, np.int32),
        "codec": ["raw"] * count,
        "checksum": np.array([checksum(frame) for frame in pixels], np.uint64),
        "backend": ["synthetic"] * count,
        "pixels": pa.array([frame.tobytes() for frame in pixels], pa.large_binary()),
        "fingerprint": np.repeat(_hex(rng, videos), FRAMES),
    }
    store.append("frames", pa.table(columns))


def _samples(numbers: npt.NDArray[np.int64], videos: int, rng: np.random.Generator) -> pa.Table:
    """Rows of SAMPLES; tasks, sources and videos in turn, ids in no order."""
    tasks = [schemas.TASKS[i % len(schemas.TASKS)] for i in numbers.tolist()]
    sources = [SOURCES[i // len(schemas.TASKS) % len(SOURCES)] for i in numbers.tolist()]
    starts = np.round(rng.uniform(0, 8, len(numbers)), 2).tolist()
    answers = {"choice": "B", "grounded_choice": "C", "number": "3", "open": "the dog runs away", "grounding": ""}
    columns = {
        "sample_id": _hex(rng, len(numbers)),
        "source": sources,
        "dataset": sources,
        "split": ["train"] * len(numbers),
        "video_id": _video_ids(numbers % videos),
        "task": tasks,
        "question": [f"What does the person number {i} do after the door has been closed?" for i in numbers.tolist()],
        "options": [_OPTIONS if task in ("choice", "grounded_choice") else [] for task in tasks],
        "answer": [answers[task] for task in tasks],
        "spans": pa.array(
            [[[a, a + 4.0]] if "ground" in task else [] for task, a in zip(tasks, starts, strict=True)],
            schemas.SAMPLES.field("spans").type,
        ),
        "clip": pa.array([[]] * len(numbers), schemas.SPAN),
        "origin": ["{}"] * len(numbers),
        "fingerprint": _hex(rng, len(numbers)),
    }
    return pa.table(columns)


def _variants(samples: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Rows of VARIANTS: an anchor of every other frame, and views of frames by chance."""
    count = samples.num_rows * VIEWS
    number = np.tile(np.arange(VIEWS, dtype=np.int32), samples.num_rows)
    chosen = np.sort(rng.random((count, FRAMES)).argpartition(VIEW_FRAMES, axis=1)[:, :VIEW_FRAMES], axis=1)
    chosen[number == 0] = np.arange(0, FRAMES, FRAMES // VIEW_FRAMES)
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * VIEW_FRAMES)
    box = pa.array(np.tile(np.array([0, 0, 1, 1], np.float32), count))
    columns = {
        "sample_id": samples["sample_id"].to_numpy().repeat(VIEWS),
        "video_id": samples["video_id"].to_numpy().repeat(VIEWS),
        "variant": number,
        "kind": np.where(number == 0, "anchor", "importance"),
        "indices": pa.ListArray.from_arrays(ends, pa.array(chosen.ravel().astype(np.int32))),
        "times": pa.ListArray.from_arrays(ends, pa.array(chosen.ravel() / 2)),
        "crop": pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * 4), box),
        "scale": np.ones(count, np.float32),
        "seed": rng.integers(0, 1 << 62, count),
        "coverage": rng.random(count),
        "overlap": rng.random(count),
        "fingerprint": _hex(rng, samples.num_rows).repeat(VIEWS),
    }
    return pa.table(columns)


def _rollouts(store: Store, policy: str, rng: np.random.Generator) -> Iterator[pa.Table]:
    """Rows of ROLLOUTS, draw by draw as runs leave them: samples of every hardness, a quarter always answered alike."""
    asked = askable(store, FrameReader(store), policy, "anchor", Sampling())
    tasks = pl.DataFrame(pl.from_arrow(store.table("samples", ["sample_id", "task"])))
    asked = asked.join(tasks, on="sample_id", maintain_order="left")
    for part in asked.iter_slices(_SAMPLES_A_COMMIT):
        count = part.height * DRAWS
        chance = rng.beta(1.0, 1.0, part.height)
        same = rng.random(part.height) < 0.25
        chance[same] = np.round(chance[same])
        right = (rng.random((part.height, DRAWS)) < chance[:, None]).ravel()
        graded = np.where(right, 1.0, np.round(rng.random(count) * chance.repeat(DRAWS), 4))
        task = part["task"].to_numpy().repeat(DRAWS)
        numbers = rng.integers(0, 1 << 62, count)
        answered, credited = task != "grounding", np.isin(task, ("number", "open"))
        placed = np.isin(task, ("grounding", "grounded_choice"))
        columns = {
            "sample_id": part["sample_id"].to_numpy().repeat(DRAWS),
            "variant": np.zeros(count, np.int32),
            "draw": np.tile(np.arange(DRAWS, dtype=np.int32), part.height),
            "policy": [policy] * count,
            "seed": numbers,
            "text": [f"<think>It turns at {n % 97} and {n % 89}.</think><answer>{n % 7}</answer>" for n in numbers],
            "tokens": rng.integers(8, 40, count, dtype=np.int32),
            "logprob": -rng.random(count),
            "accuracy": pa.array(right.astype(np.float64), mask=~answered),
            "credit": pa.array(graded, mask=~credited),
            "iou": pa.array(graded, mask=~placed),
            "boundary_iou": pa.array(graded * 0.9, mask=~placed),
            "format": (rng.random(count) < 0.95).astype(np.float64),
            "parse_error": [""] * count,
            "fingerprint": part["fingerprint"].to_numpy().repeat(DRAWS),
        }
        yield pa.table(columns)


def _hex(rng: np.random.Generator, count: int) -> Texts:
    """object [count]: 16 hex digits each."""
    text = rng.bytes(8 * count).hex()
    return np.array([text[i : i + 16] for i in range(0, len(text), 16)], dtype=object)


def _video_ids(numbers: npt.NDArray[np.int64]) -> Texts:
    """object [n]: ids that follow from the numbers."""
    return np.array([f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}" for number in numbers.tolist()], dtype=object)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger_world", allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="of the store; must not exist")
    parser.add_argument("--samples", type=int, required=True, help="questions, each with eight draws")
    parser.add_argument("--videos", type=int, required=True, help="videos that they are about")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder}: it is there already, name a new folder")
    make(options.folder, options.samples, options.videos, policy_fingerprint(toyworld.POLICY))


if __name__ == "__main__":
    main()
