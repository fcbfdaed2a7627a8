"""Selection: the funnel, the thresholds, the curated rows and their card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import runner
from pipeline.curate import SelectReport, Spread, rule_text, select, spread, thresholds, verdict
from pipeline.errors import UserError
from pipeline.groups import is_dead, population_variance
from pipeline.schemas import CURATED, TASKS
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, RulePolicy, a_sample, add_samples, add_scores, add_videos, rule_policy

QUESTIONS = {"always": "all right", "never": "all wrong", "half": ""}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    samples = [
        a_sample(
            f"{task}-{word}-{i}", f"v{1 + i % 2}", task, question=f"{word} what?", split="val" if i == 3 else "train"
        )
        for task in ("choice", "grounding", "grounded_choice")
        for word in QUESTIONS
        for i in range(4)
    ]
    add_samples(store, [*samples, a_sample("no-frames", "quarantined"), a_sample("no-views", "v1")])
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(), store)
    return store


def choose(store: Store, min_var: float | None = 0.1, **options: Any) -> SelectReport:
    RulePolicy.asked = 0
    return select(store, "d", min_var, load_policy=rule_policy, policy_fingerprint="rules", **options)


def test_the_funnel_adds_up_and_names_its_reasons(store: Store) -> None:
    report = choose(store)
    assert report.pool == 38 == report.kept + sum(report.dropped.values())
    assert (report.dropped["no frames"], report.dropped["no variants"], report.dropped["no rollouts"]) == (1, 1, 0)
    assert report.dropped["all wrong"] >= 4
    assert report.dropped["all right"] >= 4
    for funnel in report.per_task.values():
        assert funnel["pool"] == sum(count for name, count in funnel.items() if name != "pool")
    assert sum(funnel["kept"] for funnel in report.per_task.values()) == report.kept
    assert json.loads(json.dumps(report.as_dict()))["rollouts"]["done"] == 36 * 8


def test_kept_rows_are_those_whose_variance_passes(store: Store) -> None:
    report = choose(store)
    rollouts = store.scan("rollouts").collect()
    kept = {row["sample_id"]: row for row in store.curated("d", report.tag).to_pylist()}
    for (key,), group in rollouts.group_by("sample_id"):
        rewards = group["reward"].to_numpy()
        threshold = 0.1 if str(key).startswith("choice") else 0.01
        assert (key in kept) == (np.var(rewards) >= threshold - 1e-9 and rewards.max() > rewards.min())
        if key in kept:
            assert kept[key]["reward_var"] == population_variance(rewards)
            assert kept[key]["reward_mean"] == pytest.approx(rewards.mean())
            assert kept[key]["draws"] == 8
    assert any(key.startswith("grounding") for key in kept)


def test_a_curated_row_holds_all_views_anchor_first(store: Store) -> None:
    choose(store)
    assert store.curated("d").schema.names == CURATED.names
    views = store.table("variants").to_pylist()
    for row in store.curated("d").to_pylist():
        mine = sorted((v for v in views if v["sample_id"] == row["sample_id"]), key=lambda v: v["variant"])
        assert [v["variant"] for v in row["variants"]] == [v["variant"] for v in mine]
        assert row["variants"][0]["kind"] == "anchor"
        assert all(a["indices"] == b["indices"] for a, b in zip(row["variants"], mine, strict=True))


def test_a_new_threshold_asks_the_policy_nothing_and_a_stricter_one_keeps_a_subset(store: Store) -> None:
    before: set[str] | None = None
    for min_var in (0.0, 0.05, 0.1, 0.2, 0.24):
        report = choose(store, min_var)
        kept = set(store.curated("d", report.tag)["sample_id"].to_pylist())
        assert RulePolicy.asked == (0 if before is not None else 36 * 8)
        assert before is None or kept <= before
        before = kept


def test_no_filter_keeps_every_sample_with_rollouts(store: Store) -> None:
    assert choose(store, None).kept == 36
    assert choose(store, 0.0).kept == 36


def test_selecting_again_changes_nothing(store: Store) -> None:
    first, second = choose(store, command="x"), choose(store, command="x")
    assert (second.tag, second.version, second.rollouts.to_do) == (first.tag, first.version, 0)
    assert Path(first.card).read_text() == Path(second.card).read_text()


def test_tags_keep_their_versions_apart(store: Store) -> None:
    loose = choose(store, 0.0, tag="loose")
    strict = choose(store, 0.1)
    assert store.curated("d", "loose").num_rows == loose.kept == 36
    assert store.curated("d", strict.tag).num_rows == store.curated("d").num_rows == strict.kept < 36


def test_source_and_split_choose_the_pool(store: Store) -> None:
    assert choose(store, None, split="val").kept == 9
    assert RulePolicy.asked == 9 * 8
    assert choose(store, None, source="test").pool == 38
    assert RulePolicy.asked == 27 * 8
    with pytest.raises(UserError, match="test/train, test/val"):
        choose(store, source="elsewhere")


def test_more_draws_draw_the_difference(store: Store) -> None:
    choose(store)
    report = choose(store, draws=16)
    assert RulePolicy.asked == 36 * 8
    assert set(store.curated("d")["draws"].to_pylist()) == {16}
    assert report.draws == 16


def test_nothing_kept_is_a_user_error_with_the_funnel(store: Store) -> None:
    with pytest.raises(UserError, match="all right"):
        choose(store, 0.1, draws=1)


def test_the_card_tells_what_how_and_why(store: Store) -> None:
    report = choose(store, command="strive-data select --min-var 0.1", policy_name="rules")
    card = Path(report.card).read_text()
    assert card.startswith("---\npretty_name:")
    assert "task_categories:" in card
    wanted = ["| choice |", "all wrong", "no frames", ">= 0.1 (choice", ">= 0.01 (grounding", "rules", "| test | val |"]
    for text in [*wanted, report.tag, "strive-data select --min-var 0.1", "torch", "temperature", "Scorer: test"]:
        assert text in card


def test_polars_opens_a_curated_dataset(store: Store) -> None:
    report = choose(store)
    frame = pl.scan_lance(report.path).select("question", "reward_var").collect()
    assert len(frame) == report.kept


@pytest.mark.parametrize("bad", [-0.01, 0.2501, float("nan"), 1.0])
def test_a_threshold_that_no_binary_reward_can_reach_is_refused(store: Store, bad: float) -> None:
    with pytest.raises(UserError, match="min-var"):
        choose(store, bad)
    assert store.count("rollouts") == 0


@pytest.mark.parametrize("bad", [{"tag": "a b"}, {"tag": "../x"}, {"tag": ""}])
def test_bad_tags_are_refused(store: Store, bad: dict[str, str]) -> None:
    with pytest.raises(UserError):
        choose(store, **bad)


def test_the_rule_by_task() -> None:
    assert thresholds(0.1) == pytest.approx(
        {"choice": 0.1, "number": 0.1, "open": 0.1, "grounding": 0.01, "grounded_choice": 0.01}
    )
    assert set(thresholds(0.2)) == set(TASKS)
    assert ">= 0.1" in rule_text(thresholds(0.1))
    assert ">= 0.01" in rule_text(thresholds(0.1))


def test_a_threshold_of_one_in_eight_keeps_one_in_eight() -> None:
    one = spread([1.0] + [0.0] * 7, [1.0] * 8)
    assert verdict(one, 0.109375) == ""
    assert verdict(one, 0.11) == "below threshold"


def test_dead_float32_rewards_are_dropped_below_any_threshold() -> None:
    dead = spread(np.full(8, 0.9, np.float32).tolist(), [1.0] * 8)
    assert dead.variance == 0.0
    assert verdict(dead, 1e-12) == "below threshold"
    assert verdict(dead, 0.0) == ""


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=1, max_size=16), st.floats(0, 0.25), st.floats(0, 0.25))
def test_a_stricter_threshold_never_keeps_more(rewards: list[float], a: float, b: float) -> None:
    stats = spread(rewards, [1.0] * len(rewards))
    assert stats == Spread(stats.mean, population_variance(rewards), is_dead(rewards), 1.0)
    loose, strict = sorted((a, b))
    if verdict(stats, strict) == "":
        assert verdict(stats, loose) == ""
