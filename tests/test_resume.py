"""A run that was ended and resumed equals one that was not, to the bit, whatever its algorithm has to remember."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.fingerprint import folder_fingerprint
from pipeline.store import Store
from tests.toy_run import SETTINGS, a_run, rows_of
from tests.toy_store import a_store, curate
from toyworld import POLICY
from trainer import sft, train
from trainer.checkpoint import load, newest_whole
from trainer.config import RunConfig, SftConfig
from trainer.live import LiveLine


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("toy") / "store").path


def newest(out: Path) -> Path:
    found = newest_whole(out)
    assert found is not None
    return found


CHOICES: list[dict[str, Any]] = [
    {"scale": "task-ema", "refill": 1, "warmup": 2},
    {"lora_rank": 4, "kl": 0.1, "lr": 1e-2},
    {"kl": 0.1, "two_wave": True, "freeze_vision": False},
    {"train_subset": 3, "update_on": "anchor", "advantage": "per-view"},
]


@pytest.mark.parametrize("changes", CHOICES, ids=lambda changes: "-".join(changes))
def test_a_resumed_run_equals_a_straight_one(store: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    straight = a_run(store, tmp_path / "a", steps=4, **changes)
    a_run(store, tmp_path / "b", steps=3, checkpoint_every=2, **changes)
    assert a_run(store, tmp_path / "b", steps=4, resume=True, **changes) == straight
    assert folder_fingerprint(newest(tmp_path / "a")) == folder_fingerprint(newest(tmp_path / "b"))
    assert any(row["grad_norm"] for row in straight[:3]), "nothing was learned before the end"
    assert all(abs(row["approx_kl"] or 0) < 1e-6 for row in straight), "rollout and update differ"
    if "refill" in changes:
        _, state = load(newest(tmp_path / "b"))
        replaced = sum(row["replaced"] for row in straight)
        assert replaced > 0
        assert state["position"] == 4 * 3 + replaced
        assert state["learner"]["scales"]


def an_sft(store: Path, out: Path, *, resume: bool = False, **changes: Any) -> list[dict[str, Any]]:
    settings = {"store": store, "dataset": "toy", "policy": str(POLICY), "out": out, "steps": 4, "groups": 3}
    sft.run(SftConfig.model_validate(settings | {"lr": 1e-3, "device": "cpu"} | changes), resume=resume)
    return rows_of(out)


@pytest.mark.parametrize("changes", [{"warmup": 3}, {"lora_rank": 4, "lr": 1e-2}], ids=["full", "lora"])
def test_fine_tuning_resumes_too(store: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    straight = an_sft(store, tmp_path / "a", **changes)
    an_sft(store, tmp_path / "b", **changes | {"steps": 3 if "warmup" not in changes else 4, "checkpoint_every": 2})
    if "warmup" in changes:  # as if it had been killed after its second step
        last = newest(tmp_path / "b")
        last.rename(tmp_path / "gone")
    assert an_sft(store, tmp_path / "b", resume=True, **changes) == straight
    assert folder_fingerprint(newest(tmp_path / "a")) == folder_fingerprint(newest(tmp_path / "b"))


class Signals(LiveLine):
    """Shows nothing; sends this process a signal once a step has been shown."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__(0, shown=False)
        self.after, self.number, self.told = step, number, list[str]()

    def show(self, row: Any) -> None:
        if row["step"] == self.after:
            os.kill(os.getpid(), self.number)

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(
    store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    shown = Signals(2, number)
    config = RunConfig.model_validate(SETTINGS | {"store": store, "out": tmp_path / "run", "steps": 4})
    found = train.run(config, shown)
    assert found["stopped"] == number.name
    assert found["steps"] == 2
    assert newest(tmp_path / "run").name == "checkpoint-00000002"
    assert number.name in shown.told[0]
    assert signal.getsignal(number) is before
    assert a_run(store, tmp_path / "run", steps=4, resume=True) == a_run(store, tmp_path / "straight", steps=4)


def test_a_finished_run_that_is_resumed_stays_as_it_is(store: Path, tmp_path: Path) -> None:
    rows = a_run(store, tmp_path)
    before = folder_fingerprint(newest(tmp_path))
    assert a_run(store, tmp_path, resume=True) == rows
    assert folder_fingerprint(newest(tmp_path)) == before


def test_a_run_says_what_it_was_computed_with(store: Path, tmp_path: Path) -> None:
    a_run(store, tmp_path, steps=1)
    a_run(store, tmp_path, steps=2, resume=True)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["dataset"]["name"] == "toy"
    assert found["dataset"]["samples"] == 12
    assert found["policy"] == {"name": str(POLICY), "fingerprint": folder_fingerprint(POLICY)}
    assert [session["from_step"] for session in found["sessions"]] == [0, 1]
    assert found["sessions"][0]["versions"]["torch"]
    assert set(found["sessions"][0]) == {"from_step", "at", "versions", "git"}


def test_a_run_goes_on_with_the_samples_that_it_began_with(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store", clips=2)
    a_run(store.path, tmp_path / "run", steps=1)
    rows = Store(store.path).curated("toy").to_pylist()
    curate(store, "other", [row | {"fingerprint": "changed"} for row in rows])
    config = RunConfig.model_validate(
        SETTINGS | {"store": store.path, "out": tmp_path / "run", "steps": 2, "dataset": "other"}
    )
    settings = tmp_path / "run" / "config.json"
    settings.write_text(settings.read_text().replace('"toy"', '"other"'))
    with pytest.raises(UserError, match="curated dataset 'other': is not what the run to resume was begun with"):
        train.run(config, resume=True)


def test_adapters_go_on_with_the_policy_that_they_began_on(store: Path, tmp_path: Path) -> None:
    a_run(store, tmp_path / "run", steps=1, lora_rank=2)
    an_sft(store, tmp_path / "other", steps=1)
    other = str(newest(tmp_path / "other"))
    with pytest.raises(UserError, match=r"policy.*is not what the run to resume was begun with"):
        a_run(store, tmp_path / "run", steps=2, lora_rank=2, policy=other, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_with_its_batch(store: Path, tmp_path: Path) -> None:
    """The penalty overflows at the first live step; the policy is still the one of the checkpoint before."""
    with pytest.raises(UserError, match=r"loss nan.*broken-step-.*lower --lr") as caught:
        a_run(store, tmp_path, kl=1e300, steps=6, checkpoint_every=1)
    [file] = tmp_path.glob("broken-step-*.json")
    content = json.loads(file.read_text())
    assert f"step {content['step']}" in str(caught.value)
    assert content["values"]["loss"] == "nan"
    assert len(content["batch"]) == 3
    responses = [one for sample in content["batch"] for view in sample["views"] for one in view]
    assert len(responses) == 3 * 2 * 4
    assert {"text", "reward", "advantage", "tokens", "logprob"} == set(responses[0])
    assert all(row["step"] < content["step"] for row in rows_of(tmp_path))
    found = newest_whole(tmp_path)
    assert (found is None) == (content["step"] == 1)


def test_weights_that_overflow_stop_the_run_with_its_batch(store: Path, tmp_path: Path) -> None:
    """Their log-probabilities are no numbers: the rollouts show it before the update does."""
    with pytest.raises(UserError, match=r"log-probabilities nan"):
        a_run(store, tmp_path, lr=1e30, steps=8, groups=4)
    assert list(tmp_path.glob("broken-step-*.json"))


@pytest.mark.parametrize("most", [10**6, 2040])
def test_a_response_longer_than_the_context_is_refused_before_the_run(store: Path, tmp_path: Path, most: int) -> None:
    with pytest.raises(UserError, match=r"--max-tokens \d+ behind a prompt of \d+ tokens: the policy's context is"):
        a_run(store, tmp_path, max_tokens=most)
    assert not list(tmp_path.glob("checkpoint-*"))
