"""The stages that judge frames: one embedding a frame, then one score for each question and frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.scorer import PRECISIONS, Scorer, resolve
from pipeline.stage import Failure, Item, Outcome
from pipeline.store import Store

EMBED_VERSION = 1
SCORE_VERSION = 1
_FRAMES_A_READ = 64


class EmbedFrames:
    """Encode every cached frame once, however many questions are asked about its video.

    Args:
        model: a folder, "hf-hub:owner/repo" or "name:pretrained".
        precision: fp32, or bf16 (three times faster on CPUs that have it, cosines equal to 5e-5).
    """

    name = "embed-frames"
    reads: tuple[str, ...] = ("frames",)
    writes = "frame_embeddings"
    scope: str | None = None
    batch_size = 4
    deadline_s: float | None = None

    def __init__(self, model: str, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UserError(precision, f"the precision is one of {', '.join(PRECISIONS)}", "strive-data score-frames")
        self.spec = resolve(model)
        self.precision = precision

    def plan(self, store: Store) -> list[Item]:
        reader = FrameReader(store)
        recipe = (EMBED_VERSION, self.spec.fingerprint, self.precision)
        return [
            Item((video,), fingerprint(self.name, *recipe, reader.fingerprint(video)))
            for video in sorted(reader.videos)
        ]

    def setup(self, store_path: str, device: str) -> None:
        self._reader = FrameReader(Store(store_path))
        self._scorer = Scorer(self.spec, device, self.precision)

    def process(self, items: Sequence[Item]) -> Outcome:
        rows: list[dict[str, Any]] = []
        failures: list[Failure] = []
        for item in items:
            video = item.key[0]
            try:
                vectors = self._encode(video)
            except ValueError as error:  # the cache's bytes do not match their checksums
                failures.append(Failure(item.key, item.fingerprint, "damaged frames", str(error)))
                continue
            rows.append(
                {
                    "video_id": video,
                    "scorer": self.spec.label,
                    "dim": vectors.shape[1],
                    "embeddings": vectors.ravel(),
                    "fingerprint": item.fingerprint,
                }
            )
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.FRAME_EMBEDDINGS), failures)

    def _encode(self, video: str) -> npt.NDArray[np.float16]:
        """Embeddings of all cached frames of a video, float16 [n, dim]; a long video is never whole in memory."""
        count = self._reader.count(video)
        parts = [
            self._scorer.encode_frames(self._reader.read(video, range(start, min(start + _FRAMES_A_READ, count))))
            for start in range(0, count, _FRAMES_A_READ)
        ]
        return np.concatenate(parts).astype(np.float16)


class ScoreFrames:
    """Score every frame of a sample's video by its cosine with the question.

    The question alone is scored, without its options: wrong options would pull frames in. A question that does not fit
    the model's context is split into windows, and a frame's score is the best over them. Items are planned in the
    order of their questions, so that a question asked about many videos is encoded once.

    Args:
        model: as for EmbedFrames.
        precision: as for EmbedFrames.
    """

    name = "score-frames"
    reads: tuple[str, ...] = ("samples", "frame_embeddings")
    writes = "frame_scores"
    scope: str | None = None
    batch_size = 256
    deadline_s: float | None = None

    def __init__(self, model: str, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UserError(precision, f"the precision is one of {', '.join(PRECISIONS)}", "strive-data score-frames")
        self.spec = resolve(model)
        self.precision = precision

    def plan(self, store: Store) -> list[Item]:
        embedded = store.table("frame_embeddings", columns=["video_id", "fingerprint"]).to_pylist()
        row_of = {row["video_id"]: (offset, row["fingerprint"]) for offset, row in enumerate(embedded)}
        samples = store.table("samples", columns=["sample_id", "video_id", "question"]).to_pylist()
        items = []
        for sample in sorted(samples, key=lambda row: (row["question"], row["sample_id"])):
            if sample["video_id"] in row_of:
                # The embeddings' fingerprint holds that of the model, the precision and the frames.
                offset, embedding = row_of[sample["video_id"]]
                print_ = fingerprint(self.name, SCORE_VERSION, sample["question"], embedding)
                items.append(Item((sample["sample_id"],), print_, (sample["question"], offset)))
        return items

    def setup(self, store_path: str, device: str) -> None:
        self._embeddings = Store(store_path).snapshot("frame_embeddings")
        self._scorer = Scorer(self.spec, device, self.precision)
        self._texts: dict[str, tuple[npt.NDArray[np.float32], int]] = {}

    def process(self, items: Sequence[Item]) -> Outcome:
        questions = dict.fromkeys(item.payload[0] for item in items)
        fresh = [question for question in questions if question not in self._texts]
        known = {question: text for question, text in self._texts.items() if question in questions}
        self._texts = known | dict(zip(fresh, self._scorer.encode_texts(fresh), strict=True))

        offsets = sorted({item.payload[1] for item in items})
        taken = self._embeddings.take(offsets, ["dim", "embeddings"])
        frames = {
            offset: taken["embeddings"][i].values.to_numpy(zero_copy_only=False).reshape(-1, taken["dim"][i].as_py())
            for i, offset in enumerate(offsets)
        }
        rows = []
        for item in items:
            question, offset = item.payload
            windows, cut = self._texts[question]
            rows.append(
                {
                    "sample_id": item.key[0],
                    "scorer": self.spec.label,
                    "scores": cosines(windows, frames[offset]),
                    "windows": len(windows),
                    "cut_tokens": cut,
                    "fingerprint": item.fingerprint,
                }
            )
        return Outcome(pa.Table.from_pylist(rows, schema=schemas.FRAME_SCORES))


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


def cosines(windows: npt.NDArray[np.float32], frames: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """The best cosine over a question's windows, for each frame.

    Args:
        windows: float32 [w, dim], unit length.
        frames: float16 [n, dim], unit length.

    Returns:
        float32 [n].
    """
    best: npt.NDArray[np.float32] = (frames.astype(np.float32) @ windows.T).max(axis=1)
    return best
