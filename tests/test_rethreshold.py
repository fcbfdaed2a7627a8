"""Changing one's mind is free: any thresholds on a drawn ledger ask nobody, and stricter ones keep a subset."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import curate
from pipeline.errors import UserError
from pipeline.plan import SelectReport
from pipeline.probes import Sampling
from pipeline.rewards import RewardRule
from pipeline.store import Store
from pipeline.verdicts import Rule
from tests.curation_world import RulePolicy, a_pool, a_rule, choose

TASKS = ("choice", "grounding", "grounded_choice", "number", "open")
DRAWS = 8
ASKED = len(TASKS) * 4 * 2
FIXED = {"adaptive": False}

steady = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A ledger with all draws of all probes."""
    store = a_pool(tmp_path_factory.mktemp("drawn") / "s", TASKS, each=2)
    choose(store, a_rule(None), asker=FIXED, name="all", blind_draws=DRAWS, one_frame_draws=DRAWS)
    assert RulePolicy.asked == 3 * DRAWS * ASKED
    return store


def kept(store: Store, rule: Rule, **options: Any) -> tuple[set[str], SelectReport | None]:
    """The samples that a rule keeps, nobody being asked; none where the selection refuses to keep none."""
    probes = {"blind_draws": DRAWS if rule.max_blind_acc is not None else 0}
    try:
        report = choose(store, rule, **(probes | options))
    except UserError as error:
        if "samples kept" not in str(error):
            raise
        return set(), None
    finally:
        assert RulePolicy.asked == 0, "a new threshold asked the policy"
    return set(store.curated("d", report.tag)["sample_id"].to_pylist()), report


shares = st.none() | st.sampled_from([0.0, 0.05, 0.125, 0.3, 0.5, 0.7, 0.9, 1.0]) | st.floats(0, 1)
variances = st.sampled_from(
    ["0", "0.05", "0.1", "0.109375", "0.2", "0.25", "choice=0.2,grounding=0.005", "0.1,number=0"]
)
weights = st.sampled_from([0.0, 0.5, 1.0, 3.0])


@st.composite
def rewards(draw: st.DrawFn) -> RewardRule:
    accuracy = draw(weights)
    forms = {"number": ("exact", "mra"), "text": ("exact", "rouge"), "span": ("iou", "boundary")}
    chosen = {name: draw(st.sampled_from(known)) for name, known in forms.items()}
    iou = draw(weights.filter(lambda weight: weight + accuracy > 0))
    return RewardRule(accuracy, iou, draw(weights), **chosen)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    low, high = draw(shares), draw(shares)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return {"min_var": draw(variances), "min_acc": low, "max_acc": high, "max_blind_acc": draw(shares)}


@steady
@given(rules(), rewards(), st.booleans())
def test_any_rule_asks_nobody_and_judges_every_sample_once(
    drawn: Store, rule: dict[str, Any], reward: RewardRule, adaptive: bool
) -> None:
    keys, report = kept(drawn, a_rule(reward=reward, **rule), asker={"adaptive": adaptive})
    if report is None:
        return
    judged = drawn.verdicts("d", report.tag).to_pylist()
    assert sorted(row["sample_id"] for row in judged) == sorted(drawn.table("samples")["sample_id"].to_pylist())
    assert {row["sample_id"] for row in judged if not row["reason"]} == keys
    assert report.pool == report.kept + sum(report.dropped.values())
    assert Counter(report.dropped) == Counter(row["reason"] for row in judged if row["reason"])
    assert all(row["draws"] == DRAWS for row in judged)


STRICTER = {
    "min_var": st.sampled_from([("0", "0.05"), ("0.05", "0.1"), ("0.1", "0.2"), ("0.2", "0.25"), ("0", "0.25")]),
    "min_acc": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    "max_acc": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: sorted(pair, reverse=True)),
    "max_blind_acc": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: sorted(pair, reverse=True)),
}


@pytest.mark.parametrize("name", list(STRICTER))
@settings(deadline=None, max_examples=20)
@given(data=st.data(), others=rules())
def test_a_stricter_bound_keeps_a_subset(drawn: Store, name: str, data: st.DataObject, others: dict[str, Any]) -> None:
    lax, strict = data.draw(STRICTER[name])
    others = others | {"min_acc": None, "max_acc": None}
    loose, _ = kept(drawn, a_rule(**(others | {name: lax})), asker=FIXED)
    tight, _ = kept(drawn, a_rule(**(others | {name: strict})), asker=FIXED)
    assert tight <= loose


def test_each_bound_leaves_something_out_and_something_in(drawn: Store) -> None:
    """Else the property above would hold for rules that do nothing."""
    whole, _ = kept(drawn, a_rule("0"))
    for bound in ({"min_var": "0.1"}, {"min_acc": 0.3}, {"max_acc": 0.7}, {"max_blind_acc": 0.2}):
        keys, report = kept(drawn, a_rule(**({"min_var": "0"} | bound)))
        assert report is not None
        assert set() < keys < whole


def test_nobody_is_asked_with_ledger_only_and_what_is_not_certain_is_undecided(tmp_path: Path) -> None:
    store = a_pool(tmp_path / "s", ("choice",), each=4)
    with pytest.raises(UserError, match="16 no rollouts"):
        choose(store, asker={"draw": False})
    assert (RulePolicy.asked, store.count("rollouts")) == (0, 0)
    choose(store)
    stats = {row["sample_id"]: row for row in store.verdicts("d").to_pylist()}
    store.delete("rollouts", "draw >= 2")
    report = choose(store, asker={"draw": False})
    assert RulePolicy.asked == 0
    for row in store.verdicts("d", report.tag).to_pylist():
        assert row["draws"] == 2
        if row["reward_var"] > 0:  # two draws differ: certain, whatever the others say
            assert row["reason"] == stats[row["sample_id"]]["reason"] == ""
        else:
            assert row["reason"] == "undecided"
    assert report.dropped["undecided"] >= 4
    assert 0 < report.kept == 16 - report.dropped["undecided"]


def test_a_sample_without_any_draw_has_no_rollouts(tmp_path: Path) -> None:
    store = a_pool(tmp_path / "s", ("choice",), each=4)
    choose(store)
    store.delete("rollouts", "sample_id = 'choice-always-0'")
    report = choose(store, asker={"draw": False})
    assert report.dropped[curate.NO_ROLLOUTS] == 1


def test_other_seeds_and_temperatures_are_other_draws(drawn: Store) -> None:
    with pytest.raises(UserError, match="no rollouts"):
        choose(drawn, asker={"draw": False, "sampling": Sampling(seed=1)})
