"""Settings that must not change a run do not: the real command, the same loss trajectory, the same weights.

One process = two is in tests/test_ranks.py; a kill at any moment = none in tests/faults. Differences of a
rounding are allowed where the order of additions differs, none where it does not.
"""

from pathlib import Path
from typing import Any

import pytest

from pipeline.fingerprint import folder_fingerprint
from tests import toy_store
from tests.ranks_world import commands
from tests.toy_run import SETTINGS, rows_of
from tests.trajectories import assert_near, assert_near_weights, words_of
from trainer import grpo, passes, policy, pools, rollout
from trainer.checkpoint import newest_whole
from trainer.packing import Row
from trainer.pools import LiveRow

RUN = SETTINGS | {"steps": 3, "groups": 4, "temperature": 1.3}
SFT: dict[str, Any] = {"dataset": "toy", "steps": 3, "groups": 4, "lr": 1e-3, "device": "cpu"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_store.a_store(tmp_path_factory.mktemp("toy") / "store").path


class World:
    """The runs of this file: each is made once, and compared with others."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.store, self.folder = store, folder

    def run(self, name: str, *more: str, **changes: Any) -> Path:
        """The folder of `strive-train run`, or of `sft` for a name that begins so."""
        out = self.folder / name
        commands([words_of(name, (SFT if name.startswith("sft") else RUN) | changes, self.store, out, *more)])
        return out


@pytest.fixture(scope="module")
def world(store: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(store, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def usual(world: World) -> Path:
    """A run with one micro-batch a step, by the shared prompt pass."""
    out = world.run("usual")
    assert sum(bool(row["grad_norm"]) for row in rows_of(out)) >= 2, "too few steps learned: equality shows nothing"
    return out


@pytest.fixture(scope="module")
def usual_sft(world: World) -> Path:
    return world.run("sft-usual")


def assert_same(out: Path, other: Path) -> None:
    """To the bit."""
    assert rows_of(out) == rows_of(other)
    mine, its = newest_whole(out), newest_whole(other)
    assert mine
    assert its
    assert folder_fingerprint(mine) == folder_fingerprint(its)


def assert_close(out: Path, other: Path) -> None:
    """To a rounding."""
    assert_near(rows_of(out), rows_of(other))
    assert_near_weights(out, other, RUN["lr"])


def test_one_micro_batch_of_eight_is_eight_of_one(world: World, usual: Path) -> None:
    """Also: prompt passes that are kept from the rollout equal those that are run again in the update."""
    assert_close(world.run("micro", micro_tokens=1, rollout_batch=1), usual)


def test_one_micro_batch_is_many_in_fine_tuning(world: World, usual_sft: Path) -> None:
    assert_near(rows_of(world.run("sft-micro", micro_tokens=1)), rows_of(usual_sft))


def a_row_each(many: Any) -> Any:
    """A full row for every response, its prompt repeated: what is compared with."""

    def split(*arguments: Any) -> list[LiveRow]:
        rows = []
        for r in many(*arguments):
            old = r.old_logprobs or [None] * len(r.row.segments)
            for segment, advantage, logprobs in zip(r.row.segments, r.advantages, old, strict=True):
                one = Row(r.row.prompt, [segment])
                rows.append(LiveRow(one, advantage[None], None if logprobs is None else [logprobs], r.features))
        return rows

    return split


def test_packed_is_plain(world: World, usual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own forward over one full row a response, and its own cache, against the shared prompt pass."""
    split = a_row_each(pools.rows_on_own_views)
    monkeypatch.setattr(grpo, "rows_on_own_views", split)
    for module in (policy, rollout):
        monkeypatch.setattr(module, "text_model", lambda _: None)
    widths: list[int] = []

    def counting(rows: Any, *arguments: Any) -> Any:
        widths.extend(len(row.segments) for row in rows)
        return pack(rows, *arguments)

    pack = passes.pack
    monkeypatch.setattr(passes, "pack", counting)
    plain = world.run("plain")
    assert set(widths) == {1}
    assert_close(plain, usual)


def test_resumed_is_straight(world: World, usual: Path) -> None:
    world.run("resumed", steps=2)
    assert_same(world.run("resumed", "--resume"), usual)


@pytest.mark.parametrize("name", ["run", "sft"])
def test_cached_vision_is_encoded_vision(world: World, usual: Path, usual_sft: Path, name: str) -> None:
    """First while the folder is filled, then by another run that reads it, then by one that is resumed over it."""
    expected, kept = (usual_sft if name == "sft" else usual), str(world.folder / "features")
    first = world.run(f"{name}-filling", "--cache-vision", kept)
    assert_near(rows_of(first), rows_of(expected))
    count = len(list(Path(kept).glob("*/*")))
    assert count > 0
    assert_same(world.run(f"{name}-reading", "--cache-vision", kept), first)
    world.run(f"{name}-half", "--cache-vision", kept, steps=2)
    assert_same(world.run(f"{name}-half", "--resume", "--cache-vision", kept), first)
    assert len(list(Path(kept).glob("*/*"))) == count


@pytest.mark.parametrize("name", ["run", "sft", "run-vision", "sft-vision", "run-lora"])
def test_layers_that_are_computed_again_change_nothing(world: World, name: str) -> None:
    """Gradient checkpointing, also of a vision tower that learns, and under adapters."""
    changes: dict[str, Any] = {"steps": 2} | (
        {"freeze_vision": False} if "vision" in name else {"lora_rank": 4} if "lora" in name else {}
    )
    plain = world.run(f"{name}-kept", **changes)
    again = world.run(f"{name}-again", **changes, gradient_checkpointing=True)
    assert any(row["grad_norm"] for row in rows_of(plain))
    assert_near(rows_of(again), rows_of(plain), 1e-6)


def test_one_view_joint_is_grpo(world: World) -> None:
    """GRPO compares with the mean of the responses to one prompt; with one view the pool is no more than that."""
    joint = world.run("joint", variants=1, responses=8)
    assert any(row["grad_norm"] for row in rows_of(joint))
    assert_same(world.run("grpo", variants=1, responses=8, advantage="per-view"), joint)
