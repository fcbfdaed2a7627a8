"""A world of toy clips with planted copies: encoded again at another quality, trimmed, resized."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

import toyworld
from pipeline import runner
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.scores import EmbedFrames
from pipeline.store import Store
from toyworld import dataset

KINDS = ("coarse", "h265", "head", "tail", "small", "large", "all")
FPS = 8
QUALITY = {"coarse": 36, "all": 32, "h265": 28}
SIDES = {"small": 64, "large": 160, "all": 64}

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class World:
    """A store with embedded frames, and the pairs of video_ids that were planted in it.

    names: {video_id: file name}; duplicates: (original, copy), both for training; leaks: (training, evaluation);
    shared: the one video on which both have samples.
    """

    store: Store
    names: dict[str, str]
    duplicates: set[frozenset[str]]
    leaks: set[frozenset[str]]
    shared: str


def pictures(path: Path) -> Pictures:
    """uint8 [n, H, W, 3]: all frames of a file."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def plant(source: Path, path: Path, kind: str, seed: int = 0) -> Path:
    """A copy of a clip. coarse: low quality; h265: another codec; head, tail: 10-30 % cut off at the beginning or the
    end; small, large: two thirds or five thirds of the size; all: cut at both ends, small and coarse at once."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    frames = pictures(source)
    cut = {"all": 0.15}.get(kind, rng.uniform(0.1, 0.3))
    first = int(cut * len(frames)) if kind in ("head", "all") else 0
    last = len(frames) - (int(cut * len(frames)) if kind in ("tail", "all") else 0)
    codec, options = "libx264", {"preset": "veryfast", "crf": str(QUALITY.get(kind, 23)), "g": "30", "threads": "1"}
    if kind == "h265":
        codec = "libx265"
        options = {"preset": "ultrafast", "x265-params": f"crf={QUALITY[kind]}:pools=none:frame-threads=1:log-level=0"}
    side = SIDES.get(kind, int(frames.shape[1]))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for pixels in _resized(frames[first:last], side):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def make_world(folder: Path, clips: int, fps: float = 4.0, seed: int = 0) -> World:
    """Of `clips` distinct clips a third has a copy in the same split, another third has one in the split "val", the
    rest has none; every sixth of those is in "val". One clip for training is asked about in "val" as well.

    Args:
        fps: of the cached frames.
    """
    dataset.write(folder, clips, seed, "train")
    rows: list[tuple[str, str]] = []
    twins: dict[str, set[frozenset[str]]] = {"train": set(), "val": set()}
    for i in range(clips):
        source = dataset.clip_path(folder, seed, "train", i)
        home = "val" if i % 3 == 2 and i % 18 == 17 else "train"
        rows.append((source.name, home))
        if i % 3 < 2:
            split = ("train", "val")[i % 3]
            kind = KINDS[i // 3 % len(KINDS)]
            copy = plant(source, folder / "videos" / f"copy-{i:04d}-{kind}.mp4", kind, i)
            rows.append((copy.name, split))
            twins[split].add(frozenset((source.name, copy.name)))
    shared = dataset.clip_path(folder, seed, "train", 2).name
    rows.append((shared, "val"))
    lines = [
        {
            "video": f"videos/{name}",
            "question": f"What happens in {split} at {i}?",
            "answer": "it moves",
            "task": "open",
        }
        | {"split": split}
        for i, (name, split) in enumerate(rows)
    ]
    annotations = folder / "copies.jsonl"
    annotations.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    store = Store(folder / "store", create=True)
    ingest(store, annotations, format="generic", workers=0)
    runner.run(CacheFrames(fps=fps), store)
    runner.run(EmbedFrames(str(toyworld.CLIP)), store)
    names = {row["video_id"]: Path(row["path"]).name for row in store.table("videos", ["video_id", "path"]).to_pylist()}
    id_of = {name: video for video, name in names.items()}
    ids = {split: {frozenset(id_of[name] for name in pair) for pair in pairs} for split, pairs in twins.items()}
    return World(store, names, ids["train"], ids["val"], id_of[shared])


def precision_recall(found: set[frozenset[str]], truth: set[frozenset[str]]) -> tuple[float, float]:
    """Share of what was found that is true, and share of what is true that was found; 1 where there is nothing."""
    right = len(found & truth)
    return right / len(found) if found else 1.0, right / len(truth) if truth else 1.0


def _resized(frames: Pictures, side: int) -> Iterator[Pictures]:
    for frame in frames:
        yield frame if frame.shape[0] == side else np.asarray(Image.fromarray(frame).resize((side, side)))
