"""The ledger: rollouts are drawn once, repeat by seed, and follow what determines them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import runner
from pipeline.answerer import Refused, Request, Response
from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.framereader import FrameReader
from pipeline.ledger import DrawRollouts, rounds
from pipeline.plan import Plan
from pipeline.probes import Sampling
from pipeline.rewards import RewardRule
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import (
    FRAMES,
    RulePolicy,
    a_sample,
    add_durations,
    add_samples,
    add_scores,
    add_videos,
    rule_policy,
)

TASKS = ("choice", "grounding", "grounded_choice", "number")
EVERYONE = [f"{video}-{task}" for video in ("v1", "v2") for task in TASKS]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    add_durations(store, ["v1", "v2"])
    samples = [a_sample(f"{video}-{task}", video, task) for video in ("v1", "v2") for task in TASKS]
    add_samples(store, [*samples, a_sample("gone", "quarantined")])
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(), store)
    return store


def a_stage(
    want: Sequence[str] = EVERYONE,
    draws: int = 8,
    probe: str = "anchor",
    load: Any = rule_policy,
    policy: str = "rules",
    rule: RewardRule | None = None,
    **sampling: Any,
) -> DrawRollouts:
    prior: dict[str, Sequence[float]] = dict.fromkeys(want, ())
    return DrawRollouts(load, policy, probe, Sampling(**sampling), prior, draws, rule=rule or RewardRule())


def draw(store: Store, **recipe: Any) -> runner.Report:
    RulePolicy.asked = 0
    return runner.run(a_stage(**recipe), store)


def rows_of(store: Store, filter: str | None = None) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = store.table("rollouts", filter=filter).to_pylist()
    keyed = {(row["policy"], row["sample_id"], row["variant"], row["draw"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def test_every_draw_is_made_once_and_scored_by_its_task(store: Store) -> None:
    report = draw(store)
    assert (report.planned, report.done, RulePolicy.asked) == (64, 64, 64)
    parts = {
        "choice": ["accuracy"],
        "number": ["accuracy", "credit"],
        "grounding": ["iou", "boundary_iou"],
        "grounded_choice": ["accuracy", "iou", "boundary_iou"],
    }
    for (_, sample, variant, number), row in rows_of(store).items():
        assert variant == 0
        assert (row["parse_error"], row["format"]) == ("", 1.0)
        assert row["seed"] == seed_of(0, sample, 0, number)
        has = [name for name in ("accuracy", "credit", "iou", "boundary_iou") if row[name] is not None]
        assert has == parts[sample.partition("-")[2]]
        assert all(0.0 <= row[name] <= 1.0 for name in has)
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


def requests_of(store: Store, stage: DrawRollouts) -> list[Request]:
    """What the stage asks the policy about the first sample: a request a view."""
    stage.setup(str(store.path), "cpu")
    items = [item for item in stage.plan(store) if item.key[0] == EVERYONE[0]]
    views = sorted({item.key[1] for item in items})
    return [stage._request([item for item in items if item.key[1] == view]) for view in views]


def test_a_request_holds_the_view_with_its_true_times(store: Store) -> None:
    views = store.table("variants", filter=f"sample_id = '{EVERYONE[0]}'").sort_by("variant").to_pylist()
    reader = FrameReader(store)
    anchor = requests_of(store, a_stage())
    assert len(anchor) == 1
    for request, view in zip(requests_of(store, a_stage(probe="variants")), views, strict=True):
        assert request.times.tolist() == view["times"]
        assert view["variant"] or np.array_equal(request.frames, reader.read("v1", view["indices"]))
        assert (request.task, request.question, request.options[1]) == ("choice", "what is v1-choice?", "blue")
    assert np.array_equal(anchor[0].frames, reader.read("v1", views[0]["indices"]))


def test_a_blind_request_has_no_frame_and_a_one_frame_request_the_middle_one(store: Store) -> None:
    anchor = store.table("variants", filter=f"sample_id = '{EVERYONE[0]}' AND variant = 0").to_pylist()[0]
    blind, one = (requests_of(store, a_stage(probe=probe))[0] for probe in ("blind", "one-frame"))
    assert (blind.frames.shape[0], blind.times.tolist()) == (0, [])
    middle = len(anchor["indices"]) // 2
    assert one.times.tolist() == [anchor["times"][middle]]
    assert np.array_equal(one.frames, FrameReader(store).read("v1", [anchor["indices"][middle]]))


def test_other_policies_probes_and_samples_keep_their_rows(store: Store) -> None:
    draw(store)
    before = rows_of(store)
    for probe in ("blind", "one-frame"):
        assert (draw(store, probe=probe).done, draw(store, probe=probe).stale) == (64, 0)
    other = draw(store, load=other_policy, policy="other")
    assert (other.done, other.stale) == (64, 0)
    report = draw(store, want=EVERYONE[:1])
    assert (report.to_do, report.stale) == (0, 0)
    assert {key: rows_of(store)[key] for key in before} == before
    assert {variant for _, _, variant, _ in rows_of(store)} == {0, -1, -2}


class OtherPolicy(RulePolicy):
    fingerprint = "other"


def other_policy(device: str) -> OtherPolicy:
    return OtherPolicy()


def test_only_the_wanted_samples_get_rollouts(store: Store) -> None:
    assert draw(store, want=["v1-number", "v2-number"]).done == 16
    assert draw(store).done == 48


def test_samples_that_cannot_be_asked_are_not_planned(store: Store) -> None:
    assert draw(store, want=["gone", "unheard of", "v1-number"]).planned == 8


@pytest.mark.parametrize("change", [{"temperature": 0.7}, {"seed": 1}, {"max_tokens": 32}])
def test_another_way_of_sampling_redraws(store: Store, change: dict[str, Any]) -> None:
    draw(store)
    report = draw(store, **change)
    assert (report.done, report.stale) == (64, 64)


def test_another_reward_rule_redraws_nothing(store: Store) -> None:
    draw(store)
    assert draw(store, rule=RewardRule(number="mra", span="boundary", iou=3.0)).to_do == 0


def test_rollouts_follow_the_view_and_not_the_number_of_views(store: Store) -> None:
    draw(store)
    runner.run(BuildVariants(m=2, seed=3), store)
    assert draw(store).to_do == 0  # the anchor is the same
    runner.run(BuildVariants(frames=6), store)
    assert draw(store).stale == 64


def test_blind_rollouts_do_not_follow_the_view(store: Store) -> None:
    draw(store, probe="blind")
    runner.run(BuildVariants(frames=6), store)
    report = draw(store, probe="blind")
    assert (report.to_do, report.stale) == (0, 0)


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
        draw(store, policy="something else")


@pytest.mark.parametrize("bad", [{"max_tokens": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_bad_sampling_is_a_user_error(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Sampling(**bad)


@pytest.mark.parametrize("bad", [{"draws": 0}, {"blind_draws": -1}, {"one_frame_draws": -1}, {"views": "x"}])
def test_bad_plans_are_user_errors(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Plan(**bad)


def test_rounds_end_with_all_draws_and_adaptive_ones_begin_with_two() -> None:
    for planned in range(1, 140):
        adaptive = rounds(planned, adaptive=True)
        assert adaptive == sorted(set(adaptive)) and adaptive[-1] == planned
        assert rounds(planned, adaptive=False) == [planned]
    assert rounds(8, adaptive=True)[0] == 2


class Patchy(RulePolicy):
    """Refuses the third draw for good, and the fifth for now."""

    def answer(
        self, requests: Sequence[Request], *, temperature: float, max_tokens: int
    ) -> list[list[Response | Refused]]:
        return [
            [self.refuse(place) or self.respond(request, seed, temperature) for place, seed in enumerate(request.seeds)]
            for request in requests
        ]

    def refuse(self, place: int) -> Refused | None:
        if place == 2:
            return Refused("no text", "the server sent none", passing=False)
        return Refused("server hung", "no answer in 5 s", passing=True) if place == 4 else None


def patchy(device: str) -> Patchy:
    return Patchy()


def test_a_refused_draw_fails_alone_and_a_passing_one_is_tried_again(store: Store) -> None:
    wanted = EVERYONE[:1]
    first = draw(store, load=patchy, want=wanted)
    assert (first.done, first.failed, first.reasons) == (6, 2, {"no text": 1, "server hung": 1})
    assert sorted(number for *_, number in rows_of(store)) == [0, 1, 3, 5, 6, 7]
    again = draw(store, want=wanted)
    assert (again.to_do, again.done, again.quarantined) == (1, 1, 1)
    retried = runner.run(a_stage(want=wanted), store, retry_quarantined=True)
    assert (retried.to_do, retried.done, retried.quarantined) == (1, 1, 0)
    patched = rows_of(store)
    store.delete("rollouts", "true")
    draw(store, want=wanted)
    assert rows_of(store) == patched
