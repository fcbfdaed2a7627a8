"""The stages that judge frames: one embedding a frame, then one score for each question and frame."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.scorer import Loader, open_clip_loader
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Location, Store
from pipeline.windows import TEXTS, cut_tokens, option_windows, split_text

EMBED_VERSION = 1
SCORE_VERSION = 2
COMBINES = ("max", "mean")
_READ_BYTES = 256 << 20  # of pixels in memory at once; what is read next while the model works is as much again

_Asked = tuple[str, tuple[str, ...]]  # a question, and those of its options that are scored


class _Scoring:
    """What both stages are made from.

    Args:
        model: a folder, "hf-hub:owner/repo" or "name:pretrained" of open_clip, or the loader of any other encoder.
        precision: of an open_clip model: fp32 or bf16.
        batch: frames in one pass of an open_clip model; None: as many as memory suggests.
    """

    scope: str | None = None
    deadline_s: float | None = None

    def __init__(self, model: str | Loader, precision: str = "fp32", batch: int | None = None) -> None:
        self.loader = model if isinstance(model, Loader) else open_clip_loader(model, precision, batch)


class EmbedFrames(_Scoring):
    """Encode every cached frame once, however many questions are asked about its video."""

    name = "embed-frames"
    reads: tuple[str, ...] = ("frames",)
    writes = "frame_embeddings"
    batch_size = 4

    def plan(self, store: Store) -> list[Item]:
        reader = FrameReader(store)
        recipe = (EMBED_VERSION, self.loader.fingerprint)
        return [
            Item(
                (video,),
                fingerprint(self.name, *recipe, reader.fingerprint(video)),
                weight=reader.count(video),
            )
            for video in reader.videos
        ]

    def setup(self, place: Location, device: str) -> None:
        self._reader = FrameReader(Store(place))
        self._encoder = self.loader.load(device)

    def process(self, items: Sequence[Item]) -> Outcome:
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        for item in items:
            try:
                vectors = self._encode(item.key[0])
            except ValueError as error:  # the cache's bytes do not match their checksums
                failures.append(Failure(item.key, item.fingerprint, "damaged frames", str(error)))
                continue
            rows.append(
                {
                    "video_id": item.key[0],
                    "scorer": self.loader.label,
                    "dim": vectors.shape[1],
                    "embeddings": vectors.ravel(),
                    "fingerprint": item.fingerprint,
                }
            )
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.FRAME_EMBEDDINGS), failures)

    def _encode(self, video: str) -> npt.NDArray[np.float16]:
        """Embeddings of all cached frames of a video, float16 [n, dim]; a long video is never whole in memory.

        Raises:
            ValueError: stored frames are damaged.
            RuntimeError: the encoder broke its contract.
        """
        count = self._reader.count(video)
        height, width = self._reader.size(video)
        step = max(1, min(self._encoder.frames_a_pass, _READ_BYTES // (height * width * 3)))
        parts = []
        for frames in read_ahead(self._reader, video, count, step):
            vectors = self._encoder.encode_frames(frames)
            if not is_unit(vectors, len(frames)):
                raise RuntimeError(
                    f"{self.loader.label}: {len(frames)} frames became embeddings {vectors.shape}, "
                    "which are not one finite vector of unit length a frame"
                )
            parts.append(vectors.astype(np.float16))
        return np.concatenate(parts)


class ScoreFrames(_Scoring):
    """Score every frame of a sample's video by its cosine with the question.

    The stem alone is scored, unless `text` asks for its options too: wrong options pull frames in. What does not fit
    the model's context is split into windows. Items are planned in the order of their questions, so that a question
    asked about many videos is encoded once.

    Args:
        model, precision, batch: as for EmbedFrames.
        text: "question": the stem. "question+options": the stem, and each option behind it (`option_windows`).
        combine: what a frame's cosines with several windows become: their "max" or their "mean".
    """

    name = "score-frames"
    reads: tuple[str, ...] = ("samples", "frame_embeddings")
    writes = "frame_scores"
    batch_size = 256

    def __init__(
        self,
        model: str | Loader,
        precision: str = "fp32",
        batch: int | None = None,
        text: str = "question",
        combine: str = "max",
    ) -> None:
        super().__init__(model, precision, batch)
        for option, value, choices in (("--text", text, TEXTS), ("--combine", combine, COMBINES)):
            if value not in choices:
                raise UserError(f"{option} {value}", f"one of {', '.join(choices)}", "strive-data score-frames --help")
        self.text, self.combine = text, combine

    def plan(self, store: Store) -> list[Item]:
        embedded = store.table("frame_embeddings", columns=["video_id", "fingerprint"]).to_pylist()
        row_of = {row["video_id"]: (offset, row["fingerprint"]) for offset, row in enumerate(embedded)}
        samples = store.table("samples", columns=["sample_id", "video_id", "question", "options"]).to_pylist()
        items = []
        for sample in sorted(samples, key=lambda row: (row["question"], row["sample_id"])):
            if sample["video_id"] in row_of:
                # The embeddings' fingerprint holds that of the model, the precision and the frames.
                offset, embedding = row_of[sample["video_id"]]
                asked = (sample["question"], tuple(sample["options"]) if self.text == "question+options" else ())
                print_ = fingerprint(self.name, SCORE_VERSION, asked, self.text, self.combine, embedding)
                items.append(Item((sample["sample_id"],), print_, (asked, offset)))
        return items

    def setup(self, place: Location, device: str) -> None:
        self._embeddings = Store(place).snapshot("frame_embeddings")
        self._encoder = self.loader.load(device)
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def process(self, items: Sequence[Item]) -> Outcome:
        count, context = self._encoder.count_tokens, self._encoder.context
        stems: dict[_Asked, list[str]] = {}
        texts: dict[_Asked, list[str]] = {}
        for asked in dict.fromkeys(item.payload[0] for item in items):
            stems[asked] = split_text(asked[0], count, context)
            texts[asked] = list(dict.fromkeys([*stems[asked], *option_windows(asked[0], asked[1], count, context)]))
        cut = {asked: cut_tokens(windows, count, context) for asked, windows in texts.items()}
        self._learn(list(dict.fromkeys(window for windows in texts.values() for window in windows)))

        offsets = sorted({item.payload[1] for item in items})
        taken = self._embeddings.take(offsets, ["dim", "embeddings"])
        frames = {
            offset: taken["embeddings"][i].values.to_numpy(zero_copy_only=False).reshape(-1, taken["dim"][i].as_py())
            for i, offset in enumerate(offsets)
        }
        rows = []
        for item in items:
            asked, offset = item.payload
            vectors = np.stack([self._known[window] for window in texts[asked]])
            rows.append(
                {
                    "sample_id": item.key[0],
                    "scorer": self.loader.label,
                    "scores": cosines(vectors, frames[offset], self.combine),
                    "windows": len(stems[asked]),
                    "cut_tokens": cut[asked],
                    "fingerprint": item.fingerprint,
                }
            )
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.FRAME_SCORES))

    def _learn(self, windows: list[str]) -> None:
        """Embed the windows of a batch that the batch before did not have, and forget those that it alone had."""
        fresh = [window for window in windows if window not in self._known]
        known = {window: self._known[window] for window in windows if window in self._known}
        if fresh:
            vectors = self._encoder.encode_windows(fresh)
            if not is_unit(vectors, len(fresh)):
                raise RuntimeError(
                    f"{self.loader.label}: {len(fresh)} texts became embeddings {vectors.shape}, "
                    "which are not one finite vector of unit length a text"
                )
            known |= dict(zip(fresh, vectors, strict=True))
        self._known = known


def read_ahead(reader: FrameReader, video: str, count: int, step: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames 0..count of a video in order, `step` at a time; the next are read while the caller works on these.

    Raises:
        ValueError: stored frames are damaged.
    """
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        ranges = [range(start, min(start + step, count)) for start in range(0, count, step)]
        coming = pool.submit(reader.read, video, ranges[0])
        for following in ranges[1:]:
            frames = coming.result()
            coming = pool.submit(reader.read, video, following)
            yield frames
        yield coming.result()


def is_unit(vectors: npt.NDArray[np.float32], count: int) -> bool:
    """Whether these are `count` finite vectors of unit length, to a hundredth."""
    if vectors.ndim != 2 or len(vectors) != count:
        return False
    return bool((np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01).all())


def cosines(
    windows: npt.NDArray[np.float32], frames: npt.NDArray[np.float16], combine: str = "max"
) -> npt.NDArray[np.float32]:
    """The best or the mean cosine over a question's windows, for each frame.

    Args:
        windows: float32 [w, dim], unit length.
        frames: float16 [n, dim], unit length.
        combine: max or mean.

    Returns:
        float32 [n].
    """
    each = frames.astype(np.float32) @ windows.T
    combined: npt.NDArray[np.float32] = each.max(axis=1) if combine == "max" else each.mean(axis=1)
    return combined


def scored(store: Store) -> dict[str, Any]:
    """What stands in `frame_scores`, and which samples are left out of it and why.

    Returns:
        samples, scored, split (questions of several windows), cut_tokens, and left_out by reason.
    """
    cached = set(FrameReader(store).videos)
    samples = store.table("samples", ["sample_id", "video_id"]).to_pylist()
    rows = store.table("frame_scores", ["sample_id", "windows", "cut_tokens"]).to_pylist()
    have = {row["sample_id"] for row in rows}
    missing = [row for row in samples if row["sample_id"] not in have]
    no_frames = sum(row["video_id"] not in cached for row in missing)
    return {
        "samples": len(samples),
        "scored": len(rows),
        "split": sum(row["windows"] > 1 for row in rows),
        "cut_tokens": sum(row["cut_tokens"] for row in rows),
        "left_out": {"no frames": no_frames, "frames not embedded": len(missing) - no_frames},
    }
