"""What can be answered without looking: asked of the kept samples alone, found, and left out with its reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.answerer import Request, Response
from pipeline.errors import UserError
from pipeline.plan import SelectReport
from pipeline.store import Store
from tests.curation_world import RulePolicy, a_pool, a_rule, choose

LIMIT = a_rule(max_blind_acc=0.1)
EACH = 4


class Watched(RulePolicy):
    """Notes how many frames each request showed."""

    frames: tuple[int, ...] = ()

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        type(self).frames += tuple(len(request.frames) for request in requests)
        return super().answer(requests, temperature=temperature, max_tokens=max_tokens)


def watched(device: str) -> Watched:
    return Watched()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_pool(tmp_path / "s", ("choice",), each=EACH)


def pick(store: Store, rule: Any = LIMIT, adaptive: bool = True, **plan: Any) -> SelectReport:
    Watched.frames = ()
    return choose(store, rule, asker={"load": watched, "adaptive": adaptive}, **({"blind_draws": 8} | plan))


def verdicts(store: Store) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in store.verdicts("d").to_pylist()}


def test_what_is_answered_blind_is_left_out_and_what_needs_sight_stays(store: Store) -> None:
    report = pick(store)
    judged = verdicts(store)
    assert {key for key, row in judged.items() if not row["reason"]} == {f"choice-sight-{i}" for i in range(EACH)}
    blind = {key for key, row in judged.items() if row["reason"] == "answered blind"}
    assert blind == {f"choice-half-{i}" for i in range(EACH)}
    assert report.dropped["answered blind"] == EACH
    for key in blind:
        assert judged[key]["blind_mean"] > 0.1
    for row in store.curated("d").to_pylist():
        assert row["blind_mean"] == 0.0 and row["blind_draws"] > 0


def test_only_what_would_be_kept_is_asked_blind_unless_all_draws_are_wanted(store: Store) -> None:
    pick(store)
    asked = {row["sample_id"] for row in store.table("rollouts", filter="variant = -1").to_pylist()}
    assert asked == {f"choice-{word}-{i}" for word in ("half", "sight") for i in range(EACH)}
    few = store.count("rollouts", "variant = -1")
    assert few < 8 * len(asked), "a blind draw that can decide nothing was made"
    assert Watched.frames.count(0) > 0
    pick(store, adaptive=False)
    assert store.count("rollouts", "variant = -1") == 8 * 4 * EACH


@pytest.mark.parametrize("limit", [0.0, 0.125, 0.3, 0.5, 0.9])
def test_adaptive_and_fixed_blind_draws_come_to_the_same(store: Store, limit: float) -> None:
    rule = a_rule(max_blind_acc=limit)
    adaptive = {key: row["reason"] for key, row in verdicts_of(store, rule, True).items()}
    fixed = {key: row["reason"] for key, row in verdicts_of(store, rule, False).items()}
    assert adaptive == fixed


def verdicts_of(store: Store, rule: Any, adaptive: bool) -> dict[str, dict[str, Any]]:
    pick(store, rule, adaptive)
    return verdicts(store)


def test_the_limit_is_inclusive_and_the_mean_is_over_the_draws(store: Store) -> None:
    pick(store, a_rule("0", max_blind_acc=1.0), adaptive=False)
    assert all(not row["reason"] for row in verdicts(store).values())
    means = {key: row["blind_mean"] for key, row in verdicts(store).items()}
    accuracy = store.table("rollouts", ["sample_id", "accuracy"], "variant = -1").to_pylist()
    for key, mean in means.items():
        assert mean == pytest.approx(np.mean([row["accuracy"] for row in accuracy if row["sample_id"] == key]))
    edge = sorted({mean for mean in means.values() if 0 < mean < 1})[0]
    pick(store, a_rule("0", max_blind_acc=edge), adaptive=False)
    judged = verdicts(store)
    assert {key for key, row in judged.items() if row["reason"]} == {k for k, mean in means.items() if mean > edge}
    assert any(means[key] == edge for key, row in judged.items() if not row["reason"])


def test_probes_without_a_limit_only_inform(store: Store) -> None:
    report = pick(store, a_rule(), one_frame_draws=3, blind_draws=2)
    judged = verdicts(store)
    assert all((row["blind_draws"], row["one_frame_draws"]) == (2, 3) for row in judged.values())
    assert "answered blind" not in report.dropped
    assert judged["choice-always-0"]["blind_mean"] == judged["choice-always-0"]["one_frame_mean"] == 1.0
    assert judged["choice-sight-0"]["blind_mean"] == 0.0
    assert set(Watched.frames) == {0, 1, 8}
    assert report.calls == sum(row["draws"] for row in judged.values()), "probes are no draws on views"
    assert report.drawn_now == report.calls + 5 * len(judged)


def test_without_blind_draws_nothing_can_pass_a_limit(store: Store) -> None:
    with pytest.raises(UserError, match="blind"):
        pick(store, blind_draws=0)
    assert store.count("rollouts") == 0


def test_blind_draws_that_lack_leave_a_sample_undecided(store: Store) -> None:
    choose(store)
    with pytest.raises(UserError, match="undecided"):
        choose(store, LIMIT, asker={"draw": False}, blind_draws=8)
