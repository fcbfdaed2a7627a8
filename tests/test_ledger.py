"""The ledger: rollouts are drawn once, repeat by seed, and follow what determines them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import runner
from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.framereader import FrameReader
from pipeline.ledger import DrawRollouts
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, RulePolicy, a_sample, add_samples, add_scores, add_videos, rule_policy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    tasks = ("choice", "grounding", "grounded_choice", "number")
    samples = [a_sample(f"{video}-{task}", video, task) for video in ("v1", "v2") for task in tasks]
    add_samples(store, [*samples, a_sample("gone", "quarantined")])
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(), store)
    return store


def draw(store: Store, **recipe: Any) -> runner.Report:
    RulePolicy.asked = 0
    return runner.run(DrawRollouts(rule_policy, "rules", **recipe), store)


def rows_of(store: Store, filter: str | None = None) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = store.table("rollouts", filter=filter).to_pylist()
    keyed = {(row["policy"], row["sample_id"], row["variant"], row["draw"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def test_every_draw_is_made_once_and_scored_by_its_task(store: Store) -> None:
    report = draw(store)
    assert (report.planned, report.done, RulePolicy.asked) == (64, 64, 64)
    for (_, sample, variant, _), row in rows_of(store).items():
        assert variant == 0
        assert row["parse_error"] == ""
        parts = [part for part in (row["accuracy"], row["iou"]) if part is not None]
        assert len(parts) == (2 if "grounded" in sample else 1)
        assert row["reward"] == pytest.approx(np.mean(parts))
    assert draw(store).to_do == 0
    assert RulePolicy.asked == 0


def test_more_draws_add_and_fewer_remove_nothing(store: Store) -> None:
    draw(store)
    eight = rows_of(store)
    assert draw(store, draws=16).done == 64
    sixteen = rows_of(store)
    assert {key: sixteen[key] for key in eight} == eight
    assert draw(store, draws=4).to_do == 0
    assert rows_of(store) == sixteen


def test_sixteen_at_once_equal_eight_and_eight(store: Store) -> None:
    draw(store)
    draw(store, draws=16)
    grown = rows_of(store)
    store.delete("rollouts", "true")
    draw(store, draws=16)
    assert rows_of(store) == grown


def test_a_request_holds_the_view_with_its_true_times_and_a_seed_a_draw(store: Store) -> None:
    stage = DrawRollouts(rule_policy, "rules", draws=3, seed=5)
    items = stage.plan(store)[:3]
    stage.setup(str(store.path), "cpu")
    request = stage._request(items)
    anchor = store.table("variants", filter=f"sample_id = '{items[0].key[0]}' AND variant = 0").to_pylist()[0]
    assert request.times.tolist() == anchor["times"]
    assert np.array_equal(request.frames, FrameReader(store).read("v1", anchor["indices"]))
    assert request.seeds == [seed_of(5, items[0].key[0], 0, draw) for draw in range(3)]


def test_other_policies_views_and_samples_keep_their_rows(store: Store) -> None:
    draw(store)
    before = rows_of(store)
    draw(store, view=1)
    other = runner.run(DrawRollouts(other_policy, "other"), store)
    assert (other.done, other.stale) == (64, 0)
    report = draw(store, only="task = 'number'")
    assert (report.to_do, report.stale) == (0, 0)
    assert {key: rows_of(store)[key] for key in before} == before


class OtherPolicy(RulePolicy):
    fingerprint = "other"


def other_policy(device: str) -> OtherPolicy:
    return OtherPolicy()


def test_only_the_wanted_samples_get_rollouts(store: Store) -> None:
    assert draw(store, only="task = 'number'").done == 16
    assert draw(store).done == 48


@pytest.mark.parametrize("change", [{"temperature": 0.7}, {"seed": 1}, {"max_tokens": 32}])
def test_another_way_of_sampling_redraws(store: Store, change: dict[str, Any]) -> None:
    draw(store)
    report = draw(store, **change)
    assert (report.done, report.stale) == (64, 64)


def test_rollouts_follow_the_view_and_not_the_number_of_views(store: Store) -> None:
    draw(store)
    runner.run(BuildVariants(m=2, seed=3), store)
    assert draw(store).to_do == 0  # the anchor is the same
    runner.run(BuildVariants(frames=6), store)
    assert draw(store).stale == 64


def test_a_changed_question_redraws_its_sample_only(store: Store) -> None:
    draw(store)
    store.delete("samples", "sample_id = 'v1-choice'")
    add_samples(store, [a_sample("v1-choice", "v1", answer="C")])
    report = draw(store)
    assert (report.done, report.stale) == (8, 8)


def test_a_sample_that_cannot_be_scored_is_quarantined_not_wrong(store: Store) -> None:
    store.delete("samples", "sample_id = 'v1-number'")
    add_samples(store, [a_sample("v1-number", "v1", "number", answer="many")])
    report = draw(store)
    assert (report.failed, report.reasons) == (8, {"sample cannot be scored": 8})
    assert draw(store).to_do == 0


def test_a_policy_that_changed_since_planning_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="planned"):
        runner.run(DrawRollouts(rule_policy, "something else"), store)


@pytest.mark.parametrize("bad", [{"draws": 0}, {"max_tokens": 0}, {"temperature": 0.0}])
def test_bad_recipes_are_user_errors(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        DrawRollouts(rule_policy, "rules", **bad)
