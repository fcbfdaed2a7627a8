"""A small store made by hand for the tests of the upper pipeline, a tiny image-text model, and a policy of rules."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import runner, schemas
from pipeline.answerer import Request, Response
from pipeline.checksum import checksum
from pipeline.curate import select
from pipeline.drawing import Asker
from pipeline.fingerprint import fingerprint, seed_of
from pipeline.plan import Plan, SelectReport
from pipeline.rewards import RewardRule
from pipeline.store import Store
from pipeline.variants import BuildVariants
from pipeline.verdicts import Rule, thresholds

SIDE, FRAMES = 64, 24
OPTIONS = ["red", "blue", "green", "white"]
TASKS = ("choice", "grounding", "grounded_choice")
WORDS = ("always", "never", "half", "sight")
"""First words of questions: how the policy of rules fares with them."""


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


def add_durations(store: Store, names: Sequence[str]) -> None:
    """Rows of `videos`: boundary-weighted IoU needs their lengths."""
    row = {"path": "", "codec": "h264", "bytes": 1, "width": SIDE, "height": SIDE, "rotation": 0, "fps": 2.0}
    row |= {"duration_s": FRAMES / 2, "frame_count": FRAMES, "variable_rate": False, "status": "ok", "fingerprint": "f"}
    store.append("videos", pa.Table.from_pylist([row | {"video_id": v} for v in names], schema=schemas.VIDEOS))


def a_pool(
    folder: Path, tasks: Sequence[str] = TASKS, words: Sequence[str] = WORDS, each: int = 3, views: int = 3
) -> Store:
    """Samples `task-word-i` on two videos, with views; the last of each word is for validation."""
    store = Store(folder, create=True)
    videos = ["v1", "v2"]
    add_videos(store, videos)
    add_durations(store, videos)
    samples = [
        a_sample(
            f"{task}-{word}-{i}",
            videos[i % 2],
            task,
            question=f"{word} what?",
            split="val" if i == each - 1 else "train",
        )
        for task in tasks
        for word in words
        for i in range(each)
    ]
    add_samples(store, samples)
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(m=views), store)
    return store


def statistics(**columns: Any) -> dict[str, Any]:
    """The statistics of a curated row; other columns as given."""
    return {
        "policy": "test",
        "draws": 8,
        "reward_mean": 0.5,
        "reward_low": 0.2,
        "reward_high": 0.8,
        "reward_var": 0.25,
        "between_share": None,
        "format_rate": 1.0,
        "blind_draws": 0,
        "blind_mean": None,
        "one_frame_draws": 0,
        "one_frame_mean": None,
        "weight": 1.0,
    } | columns


def write_tag(store: Store, name: str, rows: pa.Table, tag: str = "v1", facts: Mapping[str, str] | None = None) -> int:
    """Write a curated dataset by hand; its verdicts say that every sample of the pool was kept."""
    kept = rows.append_column("reason", pa.array([""] * rows.num_rows, pa.string()))
    return store.write_curated(name, rows, kept.select(schemas.VERDICTS.names), tag, dict(facts or {}))


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
    asked = 0  # responses drawn in this process, by policies that answer like this one too

    def prepare(self, requests: Sequence[Request]) -> Sequence[Request]:
        return requests

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        return [[self.respond(request, seed, temperature) for seed in request.seeds] for request in requests]

    def respond(self, request: Request, seed: int, temperature: float) -> Response:
        RulePolicy.asked += 1
        word = request.question.split()[0]
        rng = np.random.default_rng(seed_of(seed, request.frames.tobytes().hex()[:64], request.times.tolist()))
        right = {"always": 1.0, "never": 0.0, "half": 0.5, "sight": 0.5 * bool(len(request.frames))}.get(word, 0.6)
        letter = "B" if rng.random() < right else "C"
        start = 3.0 if rng.random() < right else 3.6
        answers = {"grounding": f"{start} - 5.0", "grounded_choice": f"{letter} {start} - 5.0"}
        answer = answers.get(request.task, letter if request.options else "3" if letter == "B" else "4")
        return Response(f"<think> {temperature} </think> <answer> {answer} </answer>", 9, -1.5)


def rule_policy(device: str) -> RulePolicy:
    """What a stage loads in its worker."""
    return RulePolicy()


def a_rule(min_var: str | None = "0.1", reward: RewardRule | None = None, **bounds: float | None) -> Rule:
    """When a sample is kept; None: no filter by variance."""
    joined = reward or RewardRule()
    return Rule(None if min_var is None else thresholds(min_var, joined), reward=joined, **bounds)


def choose(
    store: Store,
    rule: Rule | None = None,
    *,
    asker: Mapping[str, Any] | None = None,
    command: str = "",
    policy_name: str = "rules",
    **plan: Any,
) -> SelectReport:
    """Select by the policy of rules; `RulePolicy.asked` then counts what this selection drew."""
    RulePolicy.asked = 0
    asking = {"load": rule_policy, "fingerprint": "rules", **(asker or {})}
    chosen = Plan(**{"name": "d", **plan})
    return select(store, chosen, rule or a_rule(), Asker(**asking), policy_name=policy_name, command=command)
