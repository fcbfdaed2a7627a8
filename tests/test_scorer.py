"""Models that judge frames: the families of open_clip, any other encoder, long questions, and the size of a pass."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from open_clip.model import CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipeline import runner, schemas
from pipeline.checksum import checksum
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.pixels import LEAST, MOST, MOST_ON_CPU, frames_a_pass, free_bytes
from pipeline.scorer import Loader, Scorer, open_clip_loader, resolve
from pipeline.scores import EmbedFrames, ScoreFrames, cosines, read_ahead
from pipeline.store import Store
from pipeline.windows import split_text
from tests.curation_world import FRAMES, a_sample, a_scorer, add_samples, add_videos

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
FILLER = "now look at all of it with care."


class ColourEncoder:
    """Knows three words and three colours; a text that does not fit is cut, as tokenizers do, without a word."""

    def __init__(self, context: int, frames_a_pass: int = 4, length: float = 1.0) -> None:
        self.context, self.frames_a_pass, self.length = context, frames_a_pass, length
        self.given: list[int] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        self.given.append(len(frames))
        return self._unit(frames.mean(axis=(1, 2)) + 1e-3)

    def encode_windows(self, windows: Sequence[str]) -> np.ndarray:
        seen = [window.split()[: self.context - 2] for window in windows]
        return self._unit(np.array([[word.count(colour) for colour in COLOURS] for word in map(" ".join, seen)]) + 1e-3)

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        return (self.length * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def load_colours(device: str) -> ColourEncoder:
    return ColourEncoder(context=32)


def load_long_vectors(device: str) -> ColourEncoder:
    return ColourEncoder(context=32, length=3.0)


def colours(load: Any = load_colours) -> Loader:
    return Loader(load, "colours", "colours-1")


def add_coloured_video(store: Store, name: str, order: Sequence[str], side: int = 16) -> None:
    rows = []
    for index, colour in enumerate(order):
        data = np.full((side, side, 3), COLOURS[colour], np.uint8).tobytes()
        row = {"video_id": name, "index": index, "time_s": index / 2, "height": side, "width": side, "codec": "raw"}
        rows.append(row | {"checksum": checksum(data), "backend": "test", "pixels": data, "fingerprint": name})
    store.append("frames", pa.Table.from_pylist(rows, schema=schemas.FRAMES))


@pytest.fixture
def coloured(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_coloured_video(store, "v", ["red", "green", "blue", "green", "red", "blue", "green"])
    return store


def scores(store: Store, **columns: Any) -> dict[str, list[float]]:
    runner.run(EmbedFrames(colours()), store)
    runner.run(ScoreFrames(colours(), **columns), store)
    return {row["sample_id"]: row["scores"] for row in store.table("frame_scores").to_pylist()}


def a_siglip(folder: Path) -> Path:
    """A folder with a tiny model of SigLIP's kind: a timm tower with attention pooling, text pooled at the last of 64
    tokens, padded by the end token, read by a tokenizer of transformers. Random weights, one token a byte."""
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
    text = {"context_length": 64, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1, "pool_type": "last"}
    text |= {"no_causal_mask": True, "proj_bias": True, "hf_tokenizer_name": "local"}
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({"</s>": 0, "<pad>": 1, **{letter: i + 2 for i, letter in enumerate(letters)}}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    torch.manual_seed(0)
    model = CustomTextCLIP(64, vision, text, init_logit_bias=-10)
    folder.mkdir(parents=True)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>").save_pretrained(folder)
    config = {
        "model_cfg": {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True}
        | {"vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    return folder


def test_siglip_scores_are_open_clips_own_cosines(tmp_path: Path) -> None:
    folder = a_siglip(tmp_path / "siglip")
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v"])
    long = "Which one? " * 30
    add_samples(store, [a_sample("short", "v", question="is it red?"), a_sample("long", "v", question=long)])
    for stage in (EmbedFrames(str(folder)), ScoreFrames(str(folder))):
        runner.run(stage, store)
    rows = {row["sample_id"]: row for row in store.table("frame_scores").to_pylist()}
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    frames = FrameReader(store).read("v", range(FRAMES))
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(Image.fromarray(f)) for f in frames]), normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(["is it red?"]), normalize=True)
    expected = (images @ text.T)[:, 0].numpy()
    assert rows["short"]["scores"] == pytest.approx(expected.tolist(), abs=2e-3)
    scorer = Scorer(resolve(str(folder)), "cpu", "fp32")
    windows = split_text(long, scorer.count_tokens, scorer.context)
    assert (scorer.context, rows["short"]["windows"], rows["long"]["windows"]) == (64, 1, len(windows))
    assert all(scorer.count_tokens(window) <= 64 for window in windows)
    assert (rows["short"]["cut_tokens"], rows["long"]["cut_tokens"]) == (0, 0)


@pytest.mark.parametrize("context", [32, 64, 77])
@pytest.mark.parametrize("tokens", [77, 300, 2000])
def test_the_last_words_of_a_long_question_decide(tmp_path: Path, context: int, tokens: int) -> None:
    """Two questions that a tokenizer cuts to the same tokens have other windows, and other scores."""
    scorer = Scorer(resolve(str(a_scorer(tmp_path / "clip", context=context))), "cpu", "fp32")
    filler = f"{FILLER} " * (tokens // 9)
    pair = [f"{filler}Where is the {thing}?" for thing in ("red cup on the table", "dog that runs away")]
    assert all(scorer.count_tokens(question) >= tokens - 9 for question in pair)
    cut = scorer.tokenizer(pair)
    assert torch.equal(cut[0], cut[1]) or tokens <= 77
    (first, first_cut), (second, second_cut) = scorer.encode_texts(pair)
    assert (first_cut, second_cut) == (0, 0)
    frames = scorer.encode_frames(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))
    assert np.abs(first[-1] - second[-1]).max() > 1e-3
    assert np.abs(cosines(first[-1:], frames.astype(np.float16)) - cosines(second[-1:], frames)).max() > 1e-4


@pytest.mark.parametrize("length", [20, 77, 300, 2000])
def test_any_encoder_serves_and_sees_the_last_word(coloured: Store, length: int) -> None:
    filler = f"{FILLER} " * (length // 8)
    rows = [a_sample(colour, "v", question=f"{filler}It is {colour}") for colour in COLOURS]
    add_samples(coloured, rows)
    found = scores(coloured)
    order = ["red", "green", "blue", "green", "red", "blue", "green"]
    for colour in COLOURS:
        best = np.flatnonzero(np.asarray(found[colour]) > 0.9).tolist()
        assert best == [i for i, shown in enumerate(order) if shown == colour]
    table = coloured.table("frame_scores").to_pylist()
    assert {row["scorer"] for row in table} == {"colours"}
    assert {row["cut_tokens"] for row in table} == {0}
    assert {row["windows"] > 1 for row in table} == {length > 30}


def test_options_are_scored_on_request_only(coloured: Store) -> None:
    add_samples(coloured, [a_sample("a", "v", question="which?", options=["blue", "green"], answer="A")])
    plain = scores(coloured)["a"]
    assert max(plain) - min(plain) < 1e-3
    both = scores(coloured, text="question+options")["a"]
    assert [round(score, 1) for score in both] == [0.6, 1.0, 1.0, 1.0, 0.6, 1.0, 1.0]
    mean = scores(coloured, text="question+options", combine="mean")["a"]
    assert max(mean) < 0.9
    row = coloured.table("frame_scores").to_pylist()[0]
    assert (row["windows"], row["cut_tokens"]) == (1, 0)  # the question was not split; its options stand apart


def test_what_is_scored_is_part_of_the_fingerprint(coloured: Store) -> None:
    add_samples(coloured, [a_sample("a", "v"), a_sample("b", "v", "number")])
    runner.run(EmbedFrames(colours()), coloured)
    ways = [{}, {"combine": "mean"}, {"text": "question+options"}]
    assert [runner.run(ScoreFrames(colours(), **way), coloured).done for way in ways] == [2, 2, 2]
    assert runner.run(ScoreFrames(colours(), batch=3, **ways[2]), coloured).to_do == 0
    other = Loader(load_colours, "colours", "colours-2")
    assert [runner.run(stage(other), coloured).done for stage in (EmbedFrames, ScoreFrames)] == [1, 2]


def test_a_stage_with_an_own_encoder_is_pickled(coloured: Store) -> None:
    stage = pickle.loads(pickle.dumps(EmbedFrames(colours())))
    assert runner.run(stage, coloured).done == 1


def test_the_example_in_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "scorers.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    store = Store(tmp_path / "strive-store", create=True)
    add_videos(store, ["v"])
    add_samples(store, [a_sample("a", "v")])
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert store.count("frame_scores") == 1


def test_vectors_that_are_no_unit_vectors_stop_the_run(coloured: Store) -> None:
    with pytest.raises(RuntimeError, match="unit length"):
        runner.run(EmbedFrames(colours(load_long_vectors)), coloured)


def test_frames_are_read_ahead_in_order_and_in_passes(coloured: Store) -> None:
    reader = FrameReader(coloured)
    whole = reader.read("v", range(7))
    parts = list(read_ahead(reader, "v", 7, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate(parts), whole)
    stage = EmbedFrames(colours())
    stage.setup(str(coloured.path), "cpu")
    stage.process(stage.plan(coloured))
    assert stage._encoder.given == [4, 3]


def test_the_size_of_a_pass_follows_from_memory() -> None:
    mib = 1 << 20
    assert frames_a_pass(mib, 320 * mib, on_cpu=False) == 10
    assert frames_a_pass(mib, 0, on_cpu=False) == LEAST
    assert frames_a_pass(mib, 1 << 40, on_cpu=False) == MOST
    assert frames_a_pass(mib, 1 << 40, on_cpu=True) == MOST_ON_CPU
    assert free_bytes("cpu") > 0


def test_a_pass_of_another_size_gives_the_same_embeddings(tmp_path: Path) -> None:
    spec = resolve(str(a_scorer(tmp_path / "clip")))
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 60, 3), dtype=np.uint8)
    one, nine = (Scorer(spec, "cpu", "fp32", batch).encode_frames(frames) for batch in (1, 9))
    assert one == pytest.approx(nine, abs=1e-5)
    assert Scorer(spec, "cpu", "fp32").frames_a_pass == MOST_ON_CPU


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: EmbedFrames(folder, "fp64"),
        lambda folder: open_clip_loader(folder, batch=0),
        lambda folder: ScoreFrames(folder, text="answer"),
        lambda folder: ScoreFrames(folder, combine="sum"),
    ],
)
def test_a_wrong_option_is_a_user_error(tmp_path: Path, make: Any) -> None:
    with pytest.raises(UserError):
        make(str(a_scorer(tmp_path / "clip")))
