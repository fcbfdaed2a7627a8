"""Training runs on the shipped toy policy: what must not change a run does not; a resumed run equals a straight one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipeline.errors import UserError
from tests.toy_store import a_store, curate
from toyworld import POLICY
from trainer import train
from trainer.config import RunConfig, SftConfig
from trainer.evaluate import evaluate
from trainer.grpo import Trainer
from trainer.metrics import read_rows
from trainer.policy import load_policy
from trainer.rollout import Sampled
from trainer.sft import run as run_sft
from trainer.stream import Group, Stream, chosen_variants, order, refuse_evaluation


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("toy") / "store").path


def a_run(store: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """Train two steps and return the metrics without what is measured by a clock."""
    settings = {
        "store": store,
        "dataset": "toy",
        "policy": str(POLICY),
        "out": out,
        "variants": 2,
        "responses": 4,
        "groups": 3,
        "steps": 2,
        "lr": 1e-4,
        "max_tokens": 20,
        "device": "cpu",
    }
    resume = changes.pop("resume", False)
    train.run(RunConfig.model_validate(settings | changes), resume=resume)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(out / "metrics.jsonl")]


def test_a_response_earns_what_the_rule_of_the_settings_says() -> None:
    policy = load_policy(POLICY)
    ids = policy.processor.tokenizer("<think> red </think> <answer> 2 - 4 </answer>", return_tensors="pt")["input_ids"][
        0
    ]
    response = Sampled(ids, torch.zeros(len(ids)))
    sample = {"task": "grounding", "options": [], "answer": "", "spans": [[2.0, 6.0]]}
    group = Group(sample, views=[], variants=[], epoch=0, duration_s=8.0)
    for reward, earned in (("", 0.5), ("span=boundary", 0.5 * 0.75), ("format=0.25", (0.5 + 0.25) / 1.25)):
        config = RunConfig(policy=str(POLICY), reward=reward, device="cpu")
        assert Trainer(config, policy, Accelerator(cpu=True)).score(group, response).total == pytest.approx(earned)


def same(a: list[dict[str, Any]], b: list[dict[str, Any]], tolerance: float) -> bool:
    return len(a) == len(b) and all(
        abs(x[k] - y[k]) <= tolerance if isinstance(x[k], float) else x[k] == y[k]
        for x, y in zip(a, b, strict=True)
        for k in x
    )


def test_a_run_learns_from_live_pools_and_leaves_a_folder_that_transformers_opens(store: Path, tmp_path: Path) -> None:
    rows = a_run(store, tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["rollouts"] == 24 for row in rows)
    assert any(row["grad_norm"] for row in rows), "no live pool in two steps: the test would prove nothing"
    saved = tmp_path / "checkpoint-00000002"
    model = AutoModelForImageTextToText.from_pretrained(saved)
    AutoProcessor.from_pretrained(saved)
    first = AutoModelForImageTextToText.from_pretrained(POLICY, dtype=torch.float32)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, dict(first.named_parameters())[n])]
    assert moved
    assert not any(".visual." in name for name in moved), "a frozen tower must not move"


def test_the_same_settings_give_the_same_run(store: Path, tmp_path: Path) -> None:
    assert a_run(store, tmp_path / "a") == a_run(store, tmp_path / "b")


def test_micro_batches_do_not_change_a_run(store: Path, tmp_path: Path) -> None:
    assert same(a_run(store, tmp_path / "a"), a_run(store, tmp_path / "b", micro_tokens=1), 1e-4)


def test_a_tower_that_is_trained_gets_gradient(store: Path, tmp_path: Path) -> None:
    a_run(store, tmp_path, freeze_vision=False)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-00000002")
    first = AutoModelForImageTextToText.from_pretrained(POLICY, dtype=torch.float32)
    assert not torch.equal(model.model.visual.patch_embed.proj.weight, first.model.visual.patch_embed.proj.weight)


def test_a_resumed_run_equals_a_straight_one(store: Path, tmp_path: Path) -> None:
    straight = a_run(store, tmp_path / "a", steps=4)
    a_run(store, tmp_path / "b", steps=2, checkpoint_every=1)
    resumed = a_run(store, tmp_path / "b", steps=4, resume=True)
    assert resumed == straight


def test_rows_after_the_checkpoint_are_done_again(store: Path, tmp_path: Path) -> None:
    straight = a_run(store, tmp_path, steps=2, checkpoint_every=2)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 3}) + '\n{"step": 4, "rew')  # killed after a step that no checkpoint holds
    resumed = a_run(store, tmp_path, steps=4, resume=True)
    assert [row["step"] for row in resumed] == [1, 2, 3, 4]
    assert resumed[:2] == straight


def test_what_a_kill_left_of_an_old_checkpoint_goes_when_the_run_is_over_already(store: Path, tmp_path: Path) -> None:
    """Killed in the removal that follows the last checkpoint: no later one cleans up."""
    rows = a_run(store, tmp_path, steps=1)
    left = tmp_path / ".unfinished-checkpoint-00000000"
    shutil.copytree(tmp_path / "checkpoint-00000001", left)
    assert a_run(store, tmp_path, steps=1, resume=True) == rows
    assert not left.exists() and (tmp_path / "checkpoint-00000001").exists()


def test_a_second_run_in_one_folder_is_refused(store: Path, tmp_path: Path) -> None:
    a_run(store, tmp_path, steps=1)
    with pytest.raises(UserError, match="--resume"):
        a_run(store, tmp_path, steps=1)


def test_one_view_of_grpo_is_the_view_that_was_asked_for(store: Path) -> None:
    from pipeline.store import Store

    for view, number in (("anchor", 0), ("importance", 1)):
        stream = Stream(Store(store), "toy", None, count=1, view=view, groups=2, seed=0)
        for group in stream.batch(0):
            assert list(group.variants) == [number]
            stored = next(v for v in group.sample["variants"] if v["variant"] == number)
            assert group.views[0].times.tolist() == stored["times"]


def test_the_stream_is_a_function_of_the_step(store: Path) -> None:
    from pipeline.store import Store

    stream = Stream(Store(store), "toy", "v1", count=4, view="anchor", groups=5, seed=3)
    ids = [[g.sample["sample_id"] for g in groups] for _, groups in stream.batches(0, 5)]
    assert ids == [[g.sample["sample_id"] for g in stream.batch(step)] for step in range(5)]
    flat = [i for step in ids for i in step]
    n = len(stream)
    assert sorted(flat[:n]) == sorted(flat[n : 2 * n]) == sorted({*flat}), "an epoch holds every sample once"
    assert flat[:n] != flat[n : 2 * n], "epochs differ in order"


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(1, 60))
def test_the_order_is_a_permutation(seed: int, epoch: int, n: int) -> None:
    assert sorted(order(seed, epoch, n).tolist()) == list(range(n))
    assert order(seed, epoch, n).tolist() == order(seed, epoch, n).tolist()


@given(st.sets(st.integers(1, 9), max_size=6), st.integers(2, 8))
def test_every_pool_has_its_m_views(others: set[int], count: int) -> None:
    chosen = chosen_variants([0, *others], count, "anchor")
    assert len(chosen) == count
    assert set(chosen) <= {0, *others}
    assert 0 in chosen


def test_frames_cached_under_other_settings_stop_a_run(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store", clips=1)
    curate(store, "old", [row | {"frames_fingerprint": "old"} for row in store.curated("toy").to_pylist()])
    with pytest.raises(UserError, match="cache-frames"):
        Stream(store, "old", None, count=1, view="anchor", groups=1, seed=0)


def test_sft_brings_the_right_answers_nearer(store: Path, tmp_path: Path) -> None:
    config = SftConfig(
        store=store, dataset="toy", policy=str(POLICY), out=tmp_path, steps=10, lr=3e-4, groups=4, device="cpu"
    )
    summary = run_sft(config)
    assert summary["loss_last"] < 0.7 * summary["loss_first"]
    AutoModelForImageTextToText.from_pretrained(summary["checkpoint"])


def test_evaluation_grades_every_sample_once_a_view(store: Path, tmp_path: Path) -> None:
    figures = evaluate(
        store, dataset="toy", policy=POLICY, view="all", out=tmp_path / "predictions.jsonl", max_tokens=24
    )
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert figures["samples"] == 12
    assert figures["n"] == len(lines) == 24
    assert set(figures["by_view"]) == {"anchor", "importance"}
    assert set(figures["by_task"]) == {"choice", "number", "grounding"}
    assert figures["format_rate"] == sum(line["format"] for line in lines) / 24


@pytest.mark.parametrize("split", ["test", "val", "val_1", "validation", "Test", "eval", "dev", "test-mini"])
def test_evaluation_samples_are_never_trained_on_by_accident(tmp_path: Path, split: str) -> None:
    store = a_store(tmp_path / "store", clips=1)
    rows = store.curated("toy").to_pylist()
    rows[0] |= {"split": split, "dataset": "nextgqa"}
    curate(store, "mixed", rows)

    def stream(name: str, allow: bool) -> Stream:
        return Stream(store, name, None, count=1, view="anchor", groups=1, seed=0, allow_eval=allow)

    with pytest.raises(UserError, match=rf"1 of nextgqa/{split}.*--allow-eval"):
        stream("mixed", False)
    assert len(stream("mixed", True)) == len(stream("toy", False)) == len(rows)


@pytest.mark.parametrize("split", ["train", "training", "rl", "testimony", "evaluated", "mine"])
def test_other_splits_are_trained_on(split: str) -> None:
    refuse_evaluation("any", [{"split": split, "dataset": "any"}])
