"""What it costs to score frames against questions: score-frames, the bare image encoder, and the usual script."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import decord
import numpy as np
import numpy.typing as npt
import open_clip
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.decode import RATE, SECONDS, cached, write_clip
from pipeline.fingerprint import fingerprint
from pipeline.framereader import FrameReader
from pipeline.pixels import prepare
from pipeline.runner import run
from pipeline.schemas import SAMPLES
from pipeline.scorer import Loader, Scorer, resolve
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.store import Store

MODEL = "ViT-B-32"
PAIRS = 24  # (frame, question) pairs that the usual script is timed on in a round
QUESTIONS = [f"What does the person in the red coat do after picking up {n} boxes from the table?" for n in range(10)]
MAX_DIFFERENCE = 0.01  # of cosines: bytes resized by PIL and by torch, embeddings stored in half precision


def save_model(folder: Path) -> Path:
    """A folder in open_clip's layout with the full-size model; its weights are random, which costs the same."""
    torch.manual_seed(0)
    model = open_clip.create_model(MODEL, pretrained=None)
    folder.mkdir()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    config = {"model_cfg": open_clip.get_model_config(MODEL), "preprocess_cfg": {"mean": mean, "std": std}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def add_questions(store: Store, video_id: str) -> None:
    """Ten questions about the video, as rows of `samples`."""
    rows = []
    for number, question in enumerate(QUESTIONS):
        row = {"sample_id": f"q{number}", "source": "benchmark", "dataset": "benchmark", "split": "train"}
        row |= {"video_id": video_id, "task": "open", "question": question, "answer": "", "origin": "{}"}
        rows.append({**row, "options": [], "spans": [], "clip": [], "fingerprint": fingerprint(row)})
    store.append("samples", pa.Table.from_pylist(rows, schema=SAMPLES))


def score_frames(store: Store, loader: Loader) -> None:
    """Both stages of score-frames through the runner, from an empty start; only loading the model is left out."""
    for name in ("frame_embeddings", "frame_scores"):
        if store.count(name):
            store.delete(name, "true")
    for stage in (EmbedFrames(loader), ScoreFrames(loader)):
        report = run(stage, store)
        if report.failed or not report.done:
            raise RuntimeError(f"{report.stage} did not score: {report.reasons}")


class Interleaved:
    """The scorer, and behind each of its passes, timed apart, the bare image tower on as many tensors in memory.

    Taking turns by the pass holds the ratio steady on a machine that does other work: a whole video takes seconds.
    """

    def __init__(self, scorer: Scorer, pixels: torch.Tensor) -> None:
        self.scorer, self.pixels = scorer, pixels
        self.context, self.frames_a_pass = scorer.context, scorer.frames_a_pass
        self.count_tokens, self.encode_windows = scorer.count_tokens, scorer.encode_windows
        self.bare_s = 0.0

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        vectors = self.scorer.encode_frames(frames)
        start = time.perf_counter()
        with torch.inference_mode():
            self.scorer.model.encode_image(self.pixels[: len(frames)])
        self.bare_s += time.perf_counter() - start
        return vectors


class UsualScript:
    """Decode, PIL, and one forward of both towers for each frame and each question."""

    def __init__(self, scorer: Scorer, folder: Path) -> None:
        self.model = scorer.model
        _, self.preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    def video(self, clip: Path, positions: npt.NDArray[np.int64]) -> float:
        """Seconds for all frames and questions: decoding in one go, and pairs, a few of them timed."""
        start = time.perf_counter()
        frames = decord.VideoReader(str(clip)).get_batch(positions).asnumpy()
        decoded = time.perf_counter()
        for k in range(PAIRS):
            self.pair(frames[k * len(frames) // PAIRS], QUESTIONS[k % len(QUESTIONS)])
        pair = (time.perf_counter() - decoded) / PAIRS
        return decoded - start + pair * len(frames) * len(QUESTIONS)

    def pair(self, frame: npt.NDArray[np.uint8], question: str) -> float:
        """Cosine of one frame and one question."""
        with torch.inference_mode():
            image = self.preprocess(Image.fromarray(frame)).unsqueeze(0)
            image_features, text_features = self.model(image, self.tokenizer([question]))[:2]
            return float((image_features @ text_features.T).item())


def memory_mb(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak since `forget_peak`) of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) // 1024
    raise RuntimeError(f"the system does not tell {field}")


def forget_peak() -> None:
    """Let the peak of this process's memory begin at what it uses now."""
    Path("/proc/self/clear_refs").write_text("5")


def check(store: Store, usual: UsualScript, frames: npt.NDArray[np.uint8]) -> None:
    """Stored scores must be the cosines that the usual script finds.

    Raises:
        RuntimeError: they are not.
    """
    for row in store.table("frame_scores").to_pylist()[:2]:
        question = QUESTIONS[int(row["sample_id"][1:])]
        for index in (0, len(frames) - 1):
            difference = abs(row["scores"][index] - usual.pair(frames[index], question))
            if difference > MAX_DIFFERENCE:
                raise RuntimeError(f"frame {index}, {question!r}: cosines differ by {difference:.4f}")


def measure(rounds: int, batch: int | None, threads: int) -> dict[str, Any]:
    """Score one video for ten questions in each way, in turns; medians of the time a video, and of their ratios."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        write_clip(clip)
        store, video_id = cached(clip, folder / "store", "raw")
        add_questions(store, video_id)
        reader = FrameReader(store)
        frames = reader.read(video_id, range(reader.count(video_id)))
        positions = np.round(reader.times(video_id) * RATE).astype(np.int64)
        weights = save_model(folder / "model")
        scorer = Scorer(resolve(str(weights)), "cpu", "fp32", batch)
        both = Interleaved(scorer, prepare(frames[: scorer.frames_a_pass], scorer.preprocess))
        usual = UsualScript(scorer, weights)
        usual.pair(frames[0], QUESTIONS[0])  # what runs first warms the allocator and the caches
        before = memory_mb("VmRSS")
        forget_peak()
        score_frames(store, Loader(lambda device: scorer, MODEL, "benchmark"))
        peak = memory_mb("VmHWM")
        check(store, usual, frames)
        seconds: dict[str, list[float]] = {"score_frames": [], "bare_encoder": [], "usual_script": []}
        for _ in range(rounds):
            both.bare_s, start = 0.0, time.perf_counter()
            score_frames(store, Loader(lambda device: both, MODEL, "benchmark"))
            seconds["score_frames"].append(time.perf_counter() - start - both.bare_s)
            seconds["bare_encoder"].append(both.bare_s)
            seconds["usual_script"].append(usual.video(clip, positions))
    typical = {way: median(values) for way, values in seconds.items()}
    to_bare, to_usual = (
        median(other / ours for other, ours in zip(seconds[way], seconds["score_frames"], strict=True))
        for way in ("bare_encoder", "usual_script")
    )
    return {
        "vs_bare_encoder": round(to_bare, 3),
        "vs_usual_script": round(to_usual, 1),
        "frames_per_s": round(len(frames) / typical["score_frames"], 1),
        "frames": len(frames),
        "questions": len(QUESTIONS),
        "batch": scorer.frames_a_pass,
        "threads": threads,
        "rounds": rounds,
        "memory_mb": {"before": before, "peak": peak},
        "milliseconds": {way: round(1000 * value, 1) for way, value in typical.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--batch", type=int, help="frames in one pass (default: from the free memory)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the model, in every way")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds, arguments.batch, arguments.threads)
    print(
        f"{MODEL} on CPU, {figures['threads']} threads, passes of {figures['batch']}: {figures['frames']} frames of "
        f"{SECONDS} s and {figures['questions']} questions, median of {figures['rounds']} rounds"
    )
    for name, value in figures["milliseconds"].items():
        print(f"  {name:13s} {value:10.1f} ms")
    print(
        f"  score-frames has {figures['vs_bare_encoder']} of the bare encoder's speed and is "
        f"{figures['vs_usual_script']} times as fast as the usual script; "
        f"memory {figures['memory_mb']['before']} MiB before, {figures['memory_mb']['peak']} MiB at its peak"
    )
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
