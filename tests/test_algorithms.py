"""The trainer's choices on the toy world: what reduces to what, and that each does what it says, within its budget."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import Store
from tests.toy_run import SETTINGS, a_run
from tests.toy_store import a_store
from trainer.config import RunConfig
from trainer.feed import Feed
from trainer.grpo import Trainer
from trainer.policy import load_policy
from trainer.pools import Pool, waves
from trainer.stream import Stream


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("toy") / "store").path


@pytest.fixture(scope="module")
def usual(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The curves of a run with the defaults, on enough samples that a task has several live pools."""
    rows = a_run(store, tmp_path_factory.mktemp("usual"), groups=8, steps=1, temperature=1.3)
    assert any(row["grad_norm"] for row in rows), "no live pool: nothing below would show anything"
    return rows


def a_stream(store: Path, **changes: Any) -> Stream:
    known: dict[str, Any] = {"count": 2, "view": "anchor", "groups": 1, "seed": 0}
    return Stream(Store(store), "toy", None, **known | changes)


def a_trainer(store: Path, **changes: Any) -> Trainer:
    config = RunConfig.model_validate(SETTINGS | {"store": store} | changes)
    return Trainer(config, load_policy(config.policy), Accelerator(cpu=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"train_subset": 8},  # all of a pool of 2 x 4
        {"clip": [0.1, 0.1]},  # on the first update of a rollout every ratio is 1
        {"kl": 1e-12},
        {"rollout_batch": 3, "checkpoint_every": 1},
    ],
    ids=["subset", "clip", "kl", "portions"],
)
def test_what_changes_nothing_changes_nothing(
    store: Path, tmp_path: Path, usual: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    found = a_run(store, tmp_path, groups=8, steps=1, temperature=1.3, **changes)
    for row, expected in zip(found, usual, strict=True):
        for name, value in expected.items():
            assert row[name] == value or row[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("advantage", ["per-view", "hierarchical"])
def test_with_one_view_every_advantage_is_grpo_to_the_bit(store: Path, tmp_path: Path, advantage: str) -> None:
    one = {"variants": 1, "responses": 6}
    joint = a_run(store, tmp_path / "joint", **one)
    assert a_run(store, tmp_path / advantage, **one, advantage=advantage) == joint
    assert any(row["grad_norm"] for row in joint)


@pytest.mark.parametrize(
    "changes",
    [
        {"advantage": "per-view"},
        {"advantage": "hierarchical"},
        {"scale": "none"},
        {"scale": "task-ema"},
        {"loss": "sequence"},
        {"loss": "constant"},
        {"train_subset": 3},
        {"update_on": "anchor"},
    ],
    ids=lambda changes: "-".join(map(str, *changes.items())),
)
def test_each_choice_trains_on_the_same_rollouts_in_its_own_way(
    store: Path, tmp_path: Path, usual: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    found = a_run(store, tmp_path, groups=8, steps=1, temperature=1.3, **changes)
    live = next(i for i, row in enumerate(usual) if row["grad_norm"])
    for name in ("reward_mean", "reward_std", "dead_group_share", "rollouts", "tokens"):
        assert found[live][name] == usual[live][name], name
    assert found[live]["grad_norm"] > 0
    assert found[live]["grad_norm"] != pytest.approx(usual[live]["grad_norm"], rel=1e-3)
    if changes == {"scale": "none"}:
        assert found[live]["grad_norm"] < usual[live]["grad_norm"], "deviations of rewards in 0..1 are below 1"


@given(st.integers(2, 8), st.integers(1, 8))
@settings(deadline=None)
def test_two_waves_hold_the_budget(views: int, responses: int) -> None:
    first, second = waves(views, responses)
    assert sum(first) + sum(second) == views * responses
    assert sum(first) == first[0] == views * responses // 2
    assert second[0] == 0
    assert max(second[1:]) - min(second[1:]) <= 1


def test_variants_are_drawn_only_where_the_anchor_left_a_pool_dead(store: Path) -> None:
    trainer = a_trainer(store, two_wave=True, variants=4, responses=2)
    with Feed(a_stream(store, count=4)) as feed:
        pools = trainer.draw(0, feed.take(8))
    assert {len(pool.views) for pool in pools} == {1, 4}, "both kinds have to occur"
    for pool in pools:
        sizes = [len(view.responses) for view in pool.views]
        assert sizes == ([4] if len(pool.views) == 1 else [4, 2, 1, 1])
        anchor = [pool.views[0].rewards]
        assert (len({r for view in anchor for r in view}) > 1) == (len(pool.views) == 1)


def test_two_waves_ask_the_anchor_what_one_wave_asks_it(store: Path) -> None:
    """The seeds of a draw do not depend on the wave that it belongs to."""
    found: list[Pool] = []
    for two_wave in (False, True):
        trainer = a_trainer(store, two_wave=two_wave, responses=4)
        with Feed(a_stream(store)) as feed:
            found += trainer.draw(0, feed.take(1))
    one, two = ([s.tokens.tolist() for s in pool.views[0].responses] for pool in found)
    assert one == two[:4]


def test_a_step_of_two_waves_counts_what_it_drew(store: Path, tmp_path: Path) -> None:
    rows = a_run(store, tmp_path, two_wave=True, variants=4, responses=2, groups=6)
    assert all(6 * 4 <= row["rollouts"] <= 6 * 8 for row in rows)
    assert any(row["rollouts"] < 6 * 8 for row in rows)
    assert any(row["grad_norm"] for row in rows)


def test_dead_pools_are_replaced_by_the_next_samples_and_no_more_than_asked(store: Path) -> None:
    trainer = a_trainer(store, refill=2, groups=4)
    with Feed(a_stream(store)) as feed:
        first = trainer.draw(0, feed.take(4))
        dead = sum(pool.dead for pool in first)
        assert dead, "no pool is dead: the test shows nothing"
        kept, replaced = trainer.refill(0, first, feed)
        assert feed.position == 4 + len(replaced)
    assert dead <= len(replaced) <= 2 * 4
    assert all(pool.dead for pool in replaced)
    assert len(kept) == 4
    assert sum(pool.dead for pool in kept) < dead
    for before, after in zip(first, kept, strict=True):
        assert before is after or before.dead


def test_a_sample_that_comes_twice_in_a_step_is_answered_anew(store: Path) -> None:
    trainer = a_trainer(store)
    group = a_stream(store).batch(0)
    one, two = trainer.draw(0, [*group, *group])
    texts = [[trainer.policy.text(s) for view in pool.views for s in view.responses] for pool in (one, two)]
    assert texts[0] != texts[1]


def test_an_update_on_the_anchor_sees_the_anchor(store: Path) -> None:
    """Its gradient is that of responses behind the anchor, written on its own; old log-probs are the present ones."""
    trainer = a_trainer(store, update_on="anchor", groups=6)
    with Feed(a_stream(store)) as feed:
        pools = trainer.draw(0, feed.take(6))
    advantages = trainer.advantages(pools)
    live = trainer.live(pools, advantages)
    alive = [pool for pool in pools if not pool.dead]
    assert len(live) == len(alive) > 0
    found = trainer.update(live)
    assert found["approx_kl"] == found["clip_fraction"] == 0.0
    for row, pool in zip(live, alive, strict=True):
        assert torch.equal(row.row.prompt.ids, pool.views[0].prompt.ids)
        assert len(row.row.segments) == 8
    drawn = [[len(s.tokens) for view in pool.views for s in view.responses] for pool in alive]
    assert [row.lengths for row in live] == drawn


def test_a_subset_trains_on_the_extremes(store: Path) -> None:
    trainer = a_trainer(store, train_subset=2, groups=6)
    with Feed(a_stream(store)) as feed:
        pools = trainer.draw(0, feed.take(6))
    kept = trainer.subsets(0, pools)
    for pool, subset in zip(pools, kept, strict=True):
        rewards = np.concatenate(pool.rewards)
        assert sorted(np.concatenate(subset.rewards)) == [rewards.min(), rewards.max()]
        assert subset.dead == pool.dead
        texts = {id(s) for view in pool.views for s in view.responses}
        assert all(id(s) in texts for view in subset.views for s in view.responses)
    assert sum(len(row.lengths) for row in trainer.live(kept, trainer.advantages(kept))) == 2 * sum(
        not pool.dead for pool in pools
    )


def test_the_penalty_is_nothing_at_the_start_and_grows_as_the_policy_leaves(store: Path, tmp_path: Path) -> None:
    rows = [row for row in a_run(store, tmp_path, kl=0.1, steps=5, lr=1e-3) if row["grad_norm"]]
    assert len(rows) >= 2
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert rows[-1]["kl"] > 1e-4


def test_the_penalty_alone_brings_a_policy_back(store: Path) -> None:
    trainer = a_trainer(store, kl=1.0, lr=1e-4)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.weights.trained:
            parameter += 0.1 * parameter.std() * torch.randn_like(parameter)
    with Feed(a_stream(store)) as feed:
        pools = trainer.draw(0, feed.take(2))
    nothing_earned = [[torch.full((len(view.rewards),), 1e-9) for view in pool.views] for pool in pools]
    live = trainer.live(pools, nothing_earned)
    distances = [trainer.update(live)["kl"] for _ in range(8)]
    assert distances[0] is not None
    assert distances[-1] is not None
    assert distances[-1] < 0.5 * distances[0]
