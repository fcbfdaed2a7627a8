"""Exports as other trainers read them: through their real loaders where these install, else by the documented layout.

docs/exports.md names the repositories of the files that the tests cite.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from pipeline import schemas
from pipeline.framereader import FrameReader
from pipeline.prompts import SYSTEM, question_text
from tests import tiny_policy
from tests.curation_world import SIDE
from tests.export_world import LENGTH_S, TASKS, a_store, all_tasks, curated_row, lines, run

IMAGE_CHAT = tiny_policy.CHAT.replace("'video'", "'image'").replace("video_pad", "image_pad")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `datasets` library, without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


# Layouts, as documented by the files that docs/exports.md names.


def test_video_r1_layout(tmp_path: Path) -> None:
    """src/r1-v/src/open_r1/grpo.py: the columns it reads; trainer/grpo_trainer.py: cwd + Video-R1-data + path[1:]."""
    report = run(a_store(tmp_path, *all_tasks()), "video-r1", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "train.json").read_text())
    assert report.left_out == {"no problem_type for grounded_choice": 1, "no problem_type for grounding": 1}
    assert [row["problem_type"] for row in rows] == ["multiple choice", "numerical", "free-form"]
    assert rows[0]["options"] == ["A. red", "B. blue", "C. green", "D. white"]
    assert rows[0]["solution"] == "<answer>B</answer>"
    for row in rows:
        assert set(row) >= {"problem_id", "problem", "data_type", "problem_type", "options", "solution", "path"}
        assert row["data_type"] == "video"
        placed = Path(str(tmp_path / "out") + row["path"][1:])
        assert placed.read_bytes() == b"a video file"


def test_temporal_r1_layout(tmp_path: Path) -> None:
    """verl/utils/dataset_video.py: yaml, a dataset a json file; verl/utils/reward_score/tvg.py: shares."""
    rows = [curated_row("g1", task="grounding"), curated_row("g2", task="grounding", dataset="../../b", split="val")]
    several = curated_row("g3", task="grounding", spans=[[1.0, 2.0], [4.0, 5.0]])
    report = run(a_store(tmp_path, *rows, several, curated_row("c")), "temporal-r1", tmp_path / "out")
    assert report.left_out == {"no place for choice": 1, "several spans": 1}
    listed = yaml.safe_load((tmp_path / "out" / "train.yaml").read_text())["datasets"]
    assert len(listed) == 2
    for entry in listed:
        content = json.loads(Path(entry["json_path"]).read_text())
        assert Path(entry["json_path"]).parent == tmp_path / "out" / "data"
        assert len({row["dataset"] for row in content}) == 1
        for row in content:
            assert row["solution"] == [3.0 / LENGTH_S, 5.0 / LENGTH_S]
            assert row["video_length"] == LENGTH_S
            assert (Path(entry["data_folder"]) / row["video"]).read_bytes() == b"a video file"


@pytest.mark.parametrize("medium", ["clips", "frames"])
def test_ms_swift_layout(tmp_path: Path, hub: Any, medium: str) -> None:
    """docs/source_en/Customization/Custom-dataset.md: messages, a tag for each medium, absolute paths, further keys."""
    report = run(a_store(tmp_path, *all_tasks()), "ms-swift", tmp_path / "out", medium=medium)
    assert (report.exported, report.left_out) == (5, {})
    key, tag = {"clips": ("videos", "<video>"), "frames": ("images", "<image>")}[medium]
    for row in hub.load_dataset("json", data_files=str(tmp_path / "out" / "train.jsonl"), split="train"):
        assert [message["role"] for message in row["messages"]] == ["system", "user"]
        assert row["messages"][0]["content"] == SYSTEM
        assert row["messages"][1]["content"].count(tag) == len(row[key]) == (3 if medium == "frames" else 1)
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in row[key])
    solutions = {row["sample_id"]: row["solution"] for row in lines(tmp_path / "out" / "train.jsonl")}
    assert solutions["gc"] == "<answer>B 3.0 - 5.0</answer>"
    assert solutions["g"] == "<answer>3.0 - 5.0</answer>"


@pytest.mark.parametrize("medium", ["clips", "frames"])
def test_easyr1_layout(tmp_path: Path, hub: Any, medium: str) -> None:
    """verl/utils/dataset.py: json by load_dataset, as many tags in the prompt as media, image_dir before paths."""
    run(a_store(tmp_path, *all_tasks()), "easyr1", tmp_path / "out", medium=medium)
    key, tag = {"clips": ("videos", "<video>"), "frames": ("images", "<image>")}[medium]
    found = hub.load_dataset("json", data_files=str(tmp_path / "out" / "train.jsonl"), split="train")
    assert {row["sample_id"]: row["answer"] for row in found} == {
        "c": "B", "g": "3.0 - 5.0", "gc": "B 3.0 - 5.0", "n": "3", "o": "3",
    }  # fmt: skip
    for row in found:
        assert row["problem"].count(tag) == len(row[key])
        assert all((tmp_path / "out" / path).is_file() for path in row[key])
        assert ("images" in row) != ("videos" in row)


def test_frames_stand_behind_their_true_times(tmp_path: Path) -> None:
    run(a_store(tmp_path, curated_row("c")), "easyr1", tmp_path / "out", medium="frames", view="importance")
    (row,) = lines(tmp_path / "out" / "train.jsonl")
    wanted = question_text("what is c?", ["red", "blue", "green", "white"])
    assert row["problem"] == f"[3.00 s]<image>[3.50 s]<image>[4.50 s]<image>\n{wanted}"
    assert row["times"] == [3.0, 3.5, 4.5]


# Real loaders.


def test_hf_opens_with_its_card_and_its_frames_as_images(tmp_path: Path, hub: Any) -> None:
    store = a_store(tmp_path, *all_tasks())
    cards = store.curated_path("default") / "cards"
    cards.mkdir(exist_ok=True)
    (cards / "v1.md").write_text('---\npretty_name: "mine"\ntags:\n- video\n---\n\n# mine\n\ntext of the card\n')
    run(store, "hf", tmp_path / "out", medium="frames")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "text of the card" in readme
    head = yaml.safe_load(readme.split("---\n")[1])
    assert (head["pretty_name"], head["tags"]) == ("mine", ["video"])
    found = hub.load_dataset(str(tmp_path / "out"), split="train")
    curated = store.curated("default", "v1").to_pylist()
    assert [{name: row[name] for name in schemas.CURATED.names} for row in found.remove_columns("images")] == curated
    reader = FrameReader(store)
    for row in found:
        assert [image.size for image in row["images"]] == [(SIDE, SIDE)] * 3
        frames = reader.read("v1", np.arange(reader.count("v1"))).astype(int)  # noise: no two are alike
        apart = [[np.abs(np.array(image) - frame).mean() for frame in frames] for image in row["images"]]
        assert np.argmin(apart, axis=1).tolist() == [2, 10, 18]
        assert np.max(np.min(apart, axis=1)) < 0.2 * np.median(apart)
        assert (row["times"], row["duration_s"]) == ([1.0, 5.0, 9.0], LENGTH_S)


def test_hf_with_clips_opens_too(tmp_path: Path, hub: Any) -> None:
    run(a_store(tmp_path, *all_tasks()), "hf", tmp_path / "out")
    found = hub.load_dataset(str(tmp_path / "out"), split="train")
    assert found["sample_id"] == sorted(TASKS)
    assert {Path(path).name for path in found["video"]} == {"AB 1.mp4"}


def test_trl_folder_is_conversational_and_every_placeholder_has_its_image(tmp_path: Path, hub: Any) -> None:
    from trl.data_utils import is_conversational, prepare_multimodal_messages

    report = run(a_store(tmp_path, *all_tasks()), "trl", tmp_path / "out", view="all")
    found = hub.load_dataset(str(tmp_path / "out"), split="train")
    assert (len(found), report.rows, report.exported) == (10, 10, 5)
    for row in found:
        assert is_conversational(row)
        messages = prepare_multimodal_messages(row["prompt"], images=row["images"])
        shown = [part["image"] for part in messages[1]["content"] if part["type"] == "image"]
        assert [image.size for image in shown] == [(SIDE, SIDE)] * 3
        said = [part["text"] for part in messages[1]["content"] if part["type"] == "text"]
        assert said[:-1] == [f"[{time:.2f} s]" for time in row["times"]]
        assert said[-1] == question_text(f"what is {row['sample_id']}?", row["options"])


def test_trl_trains_a_step_on_the_folder(tmp_path: Path, hub: Any) -> None:
    """The real GRPOTrainer, one step on two responses; the tiny policy's chat template shows images here."""
    from trl import GRPOConfig, GRPOTrainer

    run(a_store(tmp_path, curated_row("g", task="grounding")), "trl", tmp_path / "out", view="importance")
    model, processor = tiny_policy.build()
    processor.chat_template = IMAGE_CHAT
    asked: list[dict[str, Any]] = []

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        asked.append(columns)
        return [float(place) for place in range(len(completions))]

    config = GRPOConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    train = hub.load_dataset(str(tmp_path / "out"), split="train")
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward, args=config, train_dataset=train, processing_class=processor
    )
    assert trainer.train().global_step == 1
    assert trainer.state.log_history[0]["grad_norm"] > 0
    (columns,) = asked
    assert columns["solution"] == ["<answer>3.0 - 5.0</answer>"] * 2
    assert columns["times"] == [[3.0, 3.5, 4.5]] * 2
    assert columns["spans"] == [[[3.0, 5.0]]] * 2


def test_polars_and_the_datasets_library_open_jsonl(tmp_path: Path, hub: Any) -> None:
    several = curated_row("two", task="grounding", spans=[[1.0, 2.0], [4.0, 5.0]], clip=[0.5, 9.0])
    report = run(a_store(tmp_path, *all_tasks(), several), "jsonl", tmp_path / "out", medium="frames", view="all")
    assert (report.samples, report.rows, report.left_out) == (6, 12, {})
    found = pl.read_ndjson(tmp_path / "out" / "train.jsonl")
    assert found.height == 12
    assert found["id"].n_unique() == 12
    loaded = hub.load_dataset(str(tmp_path / "out"), split="train")
    (row, _) = [row for row in loaded if row["sample_id"] == "two"]
    assert (row["spans"], row["clip"]) == ([[1.0, 2.0], [4.0, 5.0]], [0.5, 9.0])
    with Image.open(tmp_path / "out" / row["frames"][0]) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE))
