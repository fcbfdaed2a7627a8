"""Frame embeddings and question scores, with a tiny open_clip model of random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline import runner
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.pixels import prepare
from pipeline.scorer import Scorer, resolve
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.status import status
from pipeline.store import Store
from pipeline.windows import split_text
from tests.curation_world import FRAMES, a_sample, a_scorer, add_samples, add_videos

LONG = (
    "The man opens the red door; then he walks away. What is on the table behind him when he comes back home at night?"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(resolve(str(folder)), "cpu", "fp32")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    same = {"question": "is it red?"}
    rows = [a_sample("a", "v1", **same), a_sample("b", "v2", **same), a_sample("c", "v1", question=LONG)]
    add_samples(store, [*rows, a_sample("gone", "quarantined")])
    return store


def run_both(store: Store, folder: Path, precision: str = "fp32") -> list[runner.Report]:
    return [runner.run(stage(str(folder), precision), store) for stage in (EmbedFrames, ScoreFrames)]


def scores_of(store: Store) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in store.table("frame_scores").to_pylist()}


def test_scores_are_open_clips_own_cosines(store: Store, folder: Path) -> None:
    run_both(store, folder)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    frames = FrameReader(store).read("v1", list(range(FRAMES)))
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(Image.fromarray(f)) for f in frames]), normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(["is it red?"]), normalize=True)
    expected = (images @ text.T)[:, 0].numpy()
    assert scores_of(store)["a"]["scores"] == pytest.approx(expected.tolist(), abs=2e-3)
    assert (scores_of(store)["a"]["windows"], scores_of(store)["a"]["cut_tokens"]) == (1, 0)


def test_embeddings_are_unit_half_floats(store: Store, folder: Path) -> None:
    run_both(store, folder)
    row = store.table("frame_embeddings").to_pylist()[0]
    vectors = np.asarray(row["embeddings"], np.float16).reshape(FRAMES, row["dim"])
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx(1.0, abs=2e-3)
    assert row["scorer"].startswith("clip@")


def test_a_frame_and_a_text_are_encoded_once(
    store: Store, folder: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    texts: list[str] = []
    encode_frames, encode_windows = Scorer.encode_frames, Scorer.encode_windows

    def counted_frames(self: Scorer, pixels: Any) -> Any:
        frames.append(len(pixels))
        return encode_frames(self, pixels)

    def counted_texts(self: Scorer, some: Sequence[str]) -> Any:
        texts.extend(some)
        return encode_windows(self, some)

    monkeypatch.setattr(Scorer, "encode_frames", counted_frames)
    monkeypatch.setattr(Scorer, "encode_windows", counted_texts)
    monkeypatch.setattr(ScoreFrames, "batch_size", 1)
    run_both(store, folder)
    assert sum(frames) == 2 * FRAMES
    assert sorted(texts) == sorted({*split_text(LONG, scorer.count_tokens, scorer.context), "is it red?"})


def test_a_second_run_has_nothing_to_do_and_a_new_question_one(store: Store, folder: Path) -> None:
    assert [report.done for report in run_both(store, folder)] == [2, 3]
    assert [report.to_do for report in run_both(store, folder)] == [0, 0]
    add_samples(store, [a_sample("d", "v2")])
    assert [report.done for report in run_both(store, folder)] == [0, 1]


def test_new_frames_or_another_model_redo_what_they_touch(store: Store, folder: Path, tmp_path: Path) -> None:
    run_both(store, folder)
    store.delete("frames", "video_id = 'v2'")
    assert [(report.done, report.stale) for report in run_both(store, folder)] == [(0, 1), (0, 1)]
    add_videos(store, ["v2"], recipe="4 fps")
    assert [report.done for report in run_both(store, folder)] == [1, 1]
    other = a_scorer(tmp_path / "other", seed=1)
    assert [(report.done, report.stale) for report in run_both(store, other)] == [(2, 2), (3, 3)]


def test_a_worker_gives_the_same_rows(store: Store, folder: Path) -> None:
    run_both(store, folder)
    alone = scores_of(store)
    store.delete("frame_scores", "true")
    runner.run(ScoreFrames(str(folder)), store, workers=1)
    assert scores_of(store) == alone


def test_bf16_is_close(store: Store, folder: Path) -> None:
    run_both(store, folder)
    exact = scores_of(store)["a"]["scores"]
    assert [report.stale for report in run_both(store, folder, "bf16")] == [2, 3]
    assert scores_of(store)["a"]["scores"] == pytest.approx(exact, abs=0.03)


def test_damaged_frames_go_to_quarantine(store: Store, folder: Path) -> None:
    rows = store.table("frames", filter="video_id = 'v2'")
    store.delete("frames", "video_id = 'v2'")
    place = rows.schema.get_field_index("checksum")
    store.append("frames", rows.set_column(place, "checksum", [[1] * rows.num_rows]).cast(rows.schema))
    embedded, scored = run_both(store, folder)
    assert (embedded.done, embedded.reasons, scored.done) == (1, {"damaged frames": 1}, 2)


def test_a_long_question_is_windowed_and_scored_by_its_best_window(store: Store, folder: Path, scorer: Scorer) -> None:
    run_both(store, folder)
    row = scores_of(store)["c"]
    windows = split_text(LONG, scorer.count_tokens, scorer.context)
    assert row["windows"] == len(windows) > 1
    assert row["cut_tokens"] == 0
    assert status(store)["questions"] == {"scored": 3, "split": 1, "cut_tokens": 0}
    assert " ".join(windows) == LONG
    vectors = [scorer.encode_texts([window])[0][0] for window in windows]
    frames = scorer.encode_frames(FrameReader(store).read("v1", list(range(FRAMES))))
    best = np.max([frames @ vector[0] for vector in vectors], axis=0)
    assert row["scores"] == pytest.approx(best.tolist(), abs=2e-3)


def test_tokens_are_counted_as_open_clip_does(scorer: Scorer) -> None:
    for text in ("", "is it red?", LONG, "naïve ÉCLAIR 12345"):
        padded = scorer.tokenizer([text], context_length=200)[0]
        assert scorer.count_tokens(text) == int((padded != 0).sum())


@pytest.mark.parametrize("shape", [(64, 64), (90, 160), (160, 90), (32, 32)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_tensor_preprocessing_equals_open_clips(shape: tuple[int, int], mode: str) -> None:
    row, column = np.mgrid[0 : shape[0], 0 : shape[1]]
    smooth = np.stack([row * 255 / shape[0], column * 255 / shape[1], (row + column) % 64 * 3], -1).astype(np.uint8)
    config = {
        "size": 32,
        "interpolation": "bicubic",
        "resize_mode": mode,
        "fill_color": 0,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25),
    }
    theirs = open_clip.image_transform(
        32, is_train=False, mean=config["mean"], std=config["std"], resize_mode=mode, interpolation="bicubic"
    )(Image.fromarray(smooth))
    ours = prepare(smooth[None], config)[0]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.15  # of about 4 in range: resampling of uint8, rounded differently


@pytest.mark.parametrize("model", ["no/such/folder", "ViT-B-32:no_such_weights", "NoModel:openai", "hf-hub:", "x"])
def test_an_unknown_model_is_a_user_error(model: str) -> None:
    with pytest.raises(UserError):
        EmbedFrames(model)


def test_a_folder_without_a_model_is_a_user_error(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"open_clip_config\.json"):
        EmbedFrames(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(UserError, match=r"its weights as \.safetensors"):
        Scorer(resolve(str(tmp_path)), "cpu", "fp32")


def test_known_names_are_resolved_without_loading() -> None:
    assert resolve("ViT-B-32:openai").pretrained == "openai"
    assert resolve("hf-hub:timm/model").name == "hf-hub:timm/model"
    assert resolve("hf-hub:timm/a").fingerprint != resolve("hf-hub:timm/b").fingerprint
