"""A small store made by hand for the tests of the upper pipeline, a tiny image-text model, and a policy of rules."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.checksum import checksum
from pipeline.fingerprint import fingerprint, seed_of
from pipeline.ledger import Request, Response
from pipeline.store import Store

SIDE, FRAMES = 64, 24
OPTIONS = ["red", "blue", "green", "white"]


def add_videos(store: Store, names: Sequence[str], frames: int = FRAMES, recipe: str = "2 fps") -> None:
    """Cached frames of random pixels, half a second apart."""
    rows = []
    for name in names:
        pixels = np.random.default_rng(seed_of(name)).integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8)
        for index in range(frames):
            data = pixels[index].tobytes()
            row = {"video_id": name, "index": index, "time_s": index / 2, "height": SIDE, "width": SIDE, "codec": "raw"}
            row |= {
                "checksum": checksum(data),
                "backend": "test",
                "pixels": data,
                "fingerprint": fingerprint(name, recipe),
            }
            rows.append(row)
    store.append("frames", pa.Table.from_pylist(rows, schema=schemas.FRAMES))


def a_sample(key: str, video: str, task: str = "choice", **columns: Any) -> dict[str, Any]:
    """A row of `samples`; other columns as given."""
    choice = task in ("choice", "grounded_choice")
    row = {
        "sample_id": key,
        "source": "test",
        "dataset": "test",
        "split": "train",
        "video_id": video,
        "task": task,
        "question": f"what is {key}?",
        "options": OPTIONS if choice else [],
        "answer": "B" if choice else "" if task == "grounding" else "3",
        "spans": [[3.0, 5.0]] if task in ("grounding", "grounded_choice") else [],
        "clip": [],
        "origin": "{}",
    } | columns
    return row | {"fingerprint": fingerprint({k: v for k, v in row.items() if k != "origin"})}


def add_samples(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    store.append("samples", pa.Table.from_pylist(list(rows), schema=schemas.SAMPLES))


def add_scores(store: Store, scores: dict[str, Sequence[float]]) -> None:
    rows = [
        {
            "sample_id": key,
            "scorer": "test",
            "scores": list(values),
            "windows": 1,
            "cut_tokens": 0,
            "fingerprint": fingerprint(key, [str(v) for v in values]),
        }
        for key, values in scores.items()
    ]
    store.append("frame_scores", pa.Table.from_pylist(rows, schema=schemas.FRAME_SCORES))


def a_scorer(folder: Path, seed: int = 0, image_size: int = SIDE, context: int = 16) -> Path:
    """A folder in open_clip's layout with a model of random weights."""
    import open_clip
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    vision = {"image_size": image_size, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": context, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(seed)
    model = CLIP(16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    return folder


class RulePolicy:
    """Answers without a model: how often it is right follows from the question, and each answer from the seed alone."""

    fingerprint = "rules"
    asked = 0  # responses drawn in this process

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        return [[self.respond(request, seed, temperature) for seed in request.seeds] for request in requests]

    def respond(self, request: Request, seed: int, temperature: float) -> Response:
        type(self).asked += 1
        word = request.question.split()[0]
        rng = np.random.default_rng(seed_of(seed, request.frames.tobytes().hex()[:64], request.times.tolist()))
        right = {"always": 1.0, "never": 0.0, "half": 0.5}.get(word, 0.6)
        letter = "B" if rng.random() < right else "C"
        start = 3.0 if rng.random() < right else 3.6
        answers = {"grounding": f"{start} - 5.0", "grounded_choice": f"{letter} {start} - 5.0"}
        answer = answers.get(request.task, letter if request.options else "3" if letter == "B" else "4")
        return Response(f"<think> {temperature} </think> <answer> {answer} </answer>", 9, -1.5)


def rule_policy(device: str) -> RulePolicy:
    """What a stage loads in its worker."""
    return RulePolicy()
