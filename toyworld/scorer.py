"""The toy scorer: a tiny CLIP that tells how relevant a frame is to a question, saved as an open_clip model.

It learns on frames of ever new scenes, with phrases and questions of every kind. In a small vocabulary many
phrases are right for one frame, so the loss is the sigmoid loss on the exact matrix of what matches what, not InfoNCE.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from safetensors.torch import save_file
from simplejpeg import decode_jpeg, encode_jpeg
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from pipeline.decode import decode
from pipeline.samplers import stratified_importance, uniform
from pipeline.scorer import Scorer, resolve
from pipeline.variants import BuildVariants
from toyworld.dataset import encode
from toyworld.phrases import CLASSES, classes, phrases, targets
from toyworld.questions import Question, ask, in_view
from toyworld.scenes import (
    FPS,
    SECONDS,
    SIZE,
    Event,
    Pixels,
    Scene,
    make_scene,
    render,
    scene_of,
)
from toyworld.tokenizer import build_clip_tokenizer, vocabulary

CACHE_FPS = 4
TIMES = np.arange(SECONDS * CACHE_FPS) / CACHE_FPS
CONTEXT = 32
BATCH_FRAMES, BATCH_PHRASES = 160, 128
SCENE_FRAMES, SCENE_EMPTY = 8, 2  # frames of a scene in a batch, and how many of them show no event
PEAK_RATE = 1.5e-3
HEAD_SCALE = 10.0  # embeddings have length 1: too short for a sure class

Log = Callable[[str], None]
Floats = npt.NDArray[np.float64]


def model_config(patch: int = 24) -> dict[str, Any]:
    """The open_clip configuration of the model and of its preprocessing."""
    tokens = vocabulary()
    return {
        "model_cfg": {
            "embed_dim": 64,
            "custom_text": True,
            "init_logit_scale": float(np.log(10.0)),
            "init_logit_bias": -6.0,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": patch,
                "width": 128,
                "layers": 3,
                "head_width": 32,
                "pool_type": "avg",
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(tokens),
                "hf_tokenizer_name": "toyworld",  # only says that the tokenizer lies in the same folder
                "width": 128,
                "heads": 4,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": tokens["<|im_end|>"],
                "pad_id": tokens["<|endoftext|>"],
            },
        },
        "preprocess_cfg": {
            "size": SIZE,
            "mode": "RGB",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
        },
    }


def cached_clip(scene: Scene, folder: Path) -> Pixels:
    """The 48 frames of a clip as the store would hold them, encoded and decoded: uint8 [48, 96, 96, 3]."""
    path = folder / "clip.mp4"
    encode(render(scene), path)
    frames: Pixels = decode(path, TIMES.tolist(), None).frames
    return frames


def shown_at(scene: Scene) -> list[Event | None]:
    """The event that each of the 48 cached frames shows."""
    return [next((e for e in scene.events if e.span[0] <= t < e.span[1]), None) for t in TIMES]


def train(out: Path, seed: int = 0, steps: int = 700, log: Log = print, test_clips: int = 60) -> dict[str, Any]:
    """Train from scratch on one thread and save the model in fp16.

    Args:
        out: folder for open_clip_config.json, open_clip_model.safetensors and the tokenizer.
        steps: batches of BATCH_FRAMES frames, all of new scenes. test_clips: held-out clips for `evaluate`.

    Returns:
        What `evaluate` says of the saved folder, with "seconds".
    """
    began = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    texts = phrases()
    config = model_config()
    tokenizer = build_clip_tokenizer(CONTEXT)
    model = open_clip.model.CustomTextCLIP(**{k: v for k, v in config["model_cfg"].items() if k != "custom_text"})
    causal = model.text.attn_mask
    # Phrases about a colour or a shape alone are few, yet only they make a shape more than a small part of it:
    # they are in every batch. Linear heads, thrown away later, ask what the frame shows: texts alone teach it slowly.
    alone = np.array([phrase.color is None or phrase.shape is None for phrase in texts])
    simple, others = np.flatnonzero(alone), np.flatnonzero(~alone)
    heads = torch.nn.Linear(config["model_cfg"]["embed_dim"], sum(CLASSES))
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *heads.parameters()], lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        # 1) Frames, mostly with an event; phrases; and what matches what.
        frames, shown = fresh_batch(rng)
        picked = np.r_[simple, rng.choice(others, BATCH_PHRASES - len(simple), replace=False)]
        pairs = targets([texts[i] for i in picked], shown)
        # 2) Every eighth batch of texts has unknown words in between, up to the full context.
        ids = tokenized(tokenizer, [texts[i].text for i in picked], rng if step % 8 == 7 else None)
        model.text.attn_mask = causal[: ids.shape[1], : ids.shape[1]]
        # 3) Sigmoid loss over all pairs, and the names of what the frame shows.
        image = model.encode_image(normalised(frames), normalize=True)
        text = model.encode_text(ids, normalize=True)
        logits = image @ text.T * model.logit_scale.exp() + model.logit_bias
        loss = F.binary_cross_entropy_with_logits(logits, pairs, reduction="sum") / BATCH_FRAMES / 10
        truths = torch.tensor([classes(event) for event in shown]).T
        named = zip(heads(HEAD_SCALE * image).split(CLASSES, dim=1), truths, strict=True)
        loss = loss + torch.stack([F.cross_entropy(scores, truth) for scores, truth in named]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            log(f"scorer: step {step + 1} of {steps}, loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s")
    _save(model, tokenizer, config, out)
    reached = {**evaluate(out, seed, test_clips), "seconds": time.perf_counter() - began}
    log(f"scorer: {json.dumps(reached)}")
    return reached


def tokenized(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], noise: np.random.Generator | None = None
) -> torch.Tensor:
    """Token ids [len(texts), longest], padded; with `noise`, unknown words are strewn into each text."""
    rows = [tokenizer(text)["input_ids"] for text in texts]
    if noise is not None:
        for row in rows:
            for _ in range(int(noise.integers(0, CONTEXT - len(row) + 1))):
                row.insert(int(noise.integers(0, len(row))), tokenizer.unk_token_id)
    longest = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])


def normalised(frames: Pixels) -> torch.Tensor:
    """uint8 [n, 96, 96, 3] to float32 [n, 3, 96, 96] in [-1, 1], as preprocess_cfg says."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def fresh_batch(rng: np.random.Generator) -> tuple[Pixels, list[Event | None]]:
    """Frames of scenes drawn for this batch alone, uint8 [BATCH_FRAMES, 96, 96, 3], and the event that each shows.

    A few hundred clips hold too few different events: their shapes are learned by heart. JPEG with halved colour
    resolution stands in for the video codec, and is much faster.
    """
    frames: list[Pixels] = []
    shown: list[Event | None] = []
    while len(frames) < BATCH_FRAMES:
        scene = make_scene(rng)
        events = shown_at(scene)
        full = np.array([event is not None for event in events])
        chosen = [
            *rng.choice(np.flatnonzero(full), SCENE_FRAMES - SCENE_EMPTY, replace=False),
            *rng.choice(np.flatnonzero(~full), SCENE_EMPTY, replace=False),
        ]
        shown += [events[i] for i in chosen]
        frames += photographed(scene, chosen, rng)
    return np.stack(frames), shown


def photographed(scene: Scene, chosen: Sequence[int], rng: np.random.Generator) -> list[Pixels]:
    """Cached frames of a scene by number, each uint8 [96, 96, 3], with the losses of a codec."""
    return [
        decode_jpeg(encode_jpeg(picture, quality=int(rng.integers(60, 96)), colorsubsampling="420"))
        for picture in render(scene, [int(i) * FPS // CACHE_FPS for i in chosen])
    ]


def _save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(out)


def evaluate(folder: Path, seed: int = 0, clips: int = 60) -> dict[str, Any]:
    """How well a saved scorer finds the evidence in clips it has not seen.

    Returns:
        "auc", "hit_importance" and "hit_uniform", each {kind: mean over questions}; with "_mean", over all kinds.
        AUC: chance that a frame of the event that the question names scores higher than another frame of the clip.
        Hit: share of questions whose evidence is all in view, for views drawn by score
        with the defaults of build-variants, and for uniform ones of as many frames.
    """
    scorer = Scorer(resolve(str(folder)), "cpu", "fp32")
    rng = np.random.default_rng(seed)
    kinds: dict[str, dict[str, list[float]]] = {"auc": {}, "hit_importance": {}, "hit_uniform": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for clip in range(clips):
            scene = scene_of(seed, "scorer-test", clip)
            questions = ask(scene, rng)
            image = scorer.encode_frames(cached_clip(scene, Path(temporary)))
            text = np.concatenate([vectors for vectors, _ in scorer.encode_texts([q.question for q in questions])])
            for question, scores in zip(questions, (text @ image.T).astype(np.float64), strict=True):
                for name, value in _measures(question, scores, int(rng.integers(1 << 32))).items():
                    kinds[name].setdefault(question.kind, []).append(value)
    result: dict[str, Any] = {}
    for name, values in kinds.items():
        result[name] = {kind: round(float(np.mean(v)), 4) for kind, v in values.items()}
        result[f"{name}_mean"] = round(float(np.mean(np.concatenate(list(values.values())))), 4)
    return result


def _measures(question: Question, scores: Floats, seed: int) -> dict[str, float]:
    start, end = question.evidence[0]
    named = (start <= TIMES) & (end > TIMES)
    views = BuildVariants()  # for its defaults
    drawn = stratified_importance(scores, TIMES, views.frames, seed, views.mix, views.temperature, views.bins).indices
    return {
        "auc": auc(scores[named], scores[~named]),
        "hit_importance": float(in_view(question.evidence, TIMES[drawn].tolist())),
        "hit_uniform": float(in_view(question.evidence, TIMES[uniform(len(TIMES), views.frames)].tolist())),
    }


def auc(positive: Floats, negative: Floats) -> float:
    """Chance that a positive scores higher than a negative; ties count half."""
    above = positive[:, None] > negative[None]
    return float(np.mean(above + 0.5 * (positive[:, None] == negative[None])))
