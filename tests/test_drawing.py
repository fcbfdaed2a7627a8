"""Drawing: adaptive and fixed come to one selection, views are dealt in turn, and draws are counted right."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import drawing, schemas
from pipeline.groups import between_share, is_dead, population_variance, wilson
from pipeline.plan import SelectReport
from pipeline.rewards import DEFAULT_RULE
from pipeline.store import Store
from pipeline.verdicts import Rule
from tests.curation_world import RulePolicy, a_pool, a_rule, choose

VIEWS = 3
ASKED = {"sample_id": pl.String, "variant": pl.Int32, "fingerprint": pl.String}
BINARY, GRADED = ("choice", "number"), ("grounding", "grounded_choice")
RULES = {
    "variance": a_rule(),
    "high variance": a_rule("0.2"),
    "bounds": a_rule("0", min_acc=0.3, max_acc=0.8),
    "all": a_rule("0.15", min_acc=0.2, max_acc=0.8),
}


def ledger(store: Store) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = store.table("rollouts").to_pylist()
    keyed = {(row["sample_id"], row["variant"], row["draw"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def kept(store: Store) -> set[str]:
    return set(store.curated("d")["sample_id"].to_pylist())


def select(store: Store, rule: Rule, adaptive: bool, **plan: Any) -> SelectReport:
    return choose(store, rule, asker={"adaptive": adaptive, "batch": 5}, **plan)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_pool(tmp_path_factory.mktemp("pool") / "s", (*BINARY, *GRADED), each=4, views=VIEWS).path


@pytest.fixture
def store(pool: Path) -> Store:
    """The pool with an empty ledger."""
    store = Store(pool)
    store.delete("rollouts", "true")
    store.delete("quarantine", "true")
    return store


@pytest.mark.parametrize("views", ["anchor", "variants"])
@pytest.mark.parametrize("name", list(RULES))
def test_adaptive_drawing_keeps_what_fixed_drawing_keeps_and_asks_less(store: Store, name: str, views: str) -> None:
    """Up to eight draws, and for graded rewards always, a sample is stopped only when nothing can change."""
    few = select(store, RULES[name], adaptive=True, views=views)
    adaptive, rows = kept(store), ledger(store)
    assert few.drawn_now == RulePolicy.asked == few.calls == len(rows)
    store.delete("rollouts", "true")
    all_ = select(store, RULES[name], adaptive=False, views=views)
    assert kept(store) == adaptive
    assert all_.calls == all_.calls_planned == few.calls_planned == 8 * few.pool
    assert few.calls < all_.calls
    assert few.calls_saved == 1 - few.calls / all_.calls > 0
    whole = ledger(store)
    assert {key: whole[key] for key in rows} == rows, "the same seeds, the same texts"


def test_binary_samples_stop_soon_after_they_differ(store: Store) -> None:
    select(store, a_rule(), adaptive=True)
    draws = pl.from_dicts(store.verdicts("d").to_pylist()).filter(pl.col("task").is_in(BINARY))
    even = draws.filter(pl.col("reward_var") == 0)
    assert set(even["draws"].to_list()) == {8}, "all equal so far: the next may differ"
    assert draws.filter(pl.col("reward_var") > 0)["draws"].mean() < 4


def test_what_an_adaptive_run_left_open_a_fixed_one_draws(store: Store) -> None:
    few = select(store, a_rule(), adaptive=True)
    select(store, a_rule(), adaptive=False)
    assert RulePolicy.asked == few.calls_planned - few.calls
    select(store, a_rule(), adaptive=True)
    assert RulePolicy.asked == 0


def test_sixteen_draws_err_rarely_and_never_with_an_error_of_nothing(store: Store) -> None:
    select(store, a_rule(stop_error=0.0), adaptive=True, draws=16)
    exact = kept(store)
    store.delete("rollouts", "true")
    early = select(store, a_rule(stop_error=0.05), adaptive=True, draws=16)
    likely = kept(store)
    store.delete("rollouts", "true")
    select(store, a_rule(), adaptive=False, draws=16)
    assert kept(store) == exact
    assert len(likely ^ exact) <= 0.05 * early.pool + 1


def test_draws_are_dealt_to_the_views_in_turn(store: Store) -> None:
    select(store, a_rule(), adaptive=False, views="variants")
    numbers = store.table("variants", ["sample_id", "variant"]).to_pylist()
    for sample, rows in itertools.groupby(sorted(ledger(store)), key=lambda key: key[0]):
        views = sorted(row["variant"] for row in numbers if row["sample_id"] == sample)
        assert len(views) > 1
        dealt = {draw: variant for _, variant, draw in rows}
        assert dealt == {draw: views[draw % len(views)] for draw in range(8)}
    shares = store.verdicts("d")["between_share"].to_pylist()
    assert all(0 <= share <= 1 for share in shares)
    assert any(shares)


def test_anchor_draws_are_shared_by_both_ways_of_drawing(store: Store) -> None:
    select(store, a_rule(), adaptive=False)
    anchor = ledger(store)
    select(store, a_rule(), adaptive=False, views="variants")
    of_anchor = {key for key in ledger(store) if key[2] % VIEWS == key[1]} & set(anchor)
    assert len(of_anchor) >= 2 * store.count("samples")
    assert RulePolicy.asked == 8 * store.count("samples") - len(of_anchor)
    both = ledger(store)
    assert {key: both[key] for key in anchor} == anchor
    report = select(store, a_rule(), adaptive=False)
    assert (RulePolicy.asked, report.drawn_now, ledger(store)) == (0, 0, both)
    first = kept(store)
    store.delete("rollouts", "true")
    select(store, a_rule(), adaptive=False)
    assert kept(store) == first, "draws on other views do not count as the anchor's"


def a_row(sample: str, variant: int, draw: int, reward: float, print_: str) -> dict[str, Any]:
    row = {"sample_id": sample, "variant": variant, "draw": draw, "policy": "p", "seed": 0, "text": "", "tokens": 1}
    row |= {"logprob": None, "accuracy": reward, "credit": None, "iou": None, "boundary_iou": None}
    return row | {"format": float(draw % 2), "parse_error": "", "fingerprint": print_}


# Far enough apart that the last digits of a sum do not matter, and not exact in binary.
REWARDS = st.integers(0, 30).map(lambda k: k / 30)


@st.composite
def ledgers(draw: st.DrawFn) -> list[np.ndarray]:
    """For each sample its rewards [G, M], row by row as they are dealt."""
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 3))
    pools = []
    for rounds, views in draw(st.lists(shapes, min_size=1, max_size=4)):
        values = draw(st.lists(REWARDS, min_size=rounds * views, max_size=rounds * views))
        pools.append(np.array(values).reshape(rounds, views))
    return pools


@settings(deadline=None, max_examples=40)
@given(ledgers(), st.randoms())
def test_a_tally_has_the_statistics_of_its_groups(
    tmp_path_factory: pytest.TempPathFactory, pools: list[np.ndarray], random: Any
) -> None:
    store = Store(tmp_path_factory.mktemp("tally") / "s", create=True)
    rows, asked = [], []
    for i, pool in enumerate(pools):
        views = pool.shape[1]
        asked += [(f"s{i}", view, f"print {i} {view}") for view in range(views)]
        dealt = [(draw % views, draw, reward) for draw, reward in enumerate(pool.ravel().tolist())]
        rows += [a_row(f"s{i}", view, draw, reward, f"print {i} {view}") for view, draw, reward in dealt]
        rows.append(a_row(f"s{i}", 0, 90, 1.0, f"print {i} 0"))  # beyond what is planned
        rows.append(a_row(f"s{i}", 0, 1, 1.0, "stale"))
    random.shuffle(rows)
    store.append("rollouts", pa.Table.from_pylist(rows, schema=schemas.ROLLOUTS))
    frame = pl.DataFrame(asked, ASKED, orient="row")
    tasks = pl.DataFrame({"sample_id": [f"s{i}" for i in range(len(pools))], "task": ["choice"] * len(pools)})
    stats = drawing.tally(store, "p", "variants", frame, tasks, 64, DEFAULT_RULE)
    found = drawing.statistics(stats)
    assert found["sample_id"].to_list() == tasks["sample_id"].to_list()
    for pool, row, counted in zip(pools, found.to_dicts(), stats.to_dicts(), strict=True):
        values = pool.ravel().tolist()
        assert row["draws"] == len(values)
        assert row["reward_mean"] == pytest.approx(np.mean(values))
        assert row["reward_var"] == pytest.approx(population_variance(values), abs=1e-12)
        assert (row["reward_var"] == 0.0) == is_dead(values)
        low, high = wilson(min(sum(values), len(values)), len(values))
        assert (row["reward_low"], row["reward_high"]) == pytest.approx((low, high), abs=1e-9)
        assert row["format_rate"] == pytest.approx(np.mean([draw % 2 for draw in range(len(values))]))
        if pool.shape[1] == 1:
            assert row["between_share"] is None
        else:
            assert row["between_share"] == pytest.approx(between_share(pool.T), abs=1e-9)
        assert (counted["low"], counted["high"]) == (min(values), max(values))


def test_rows_of_others_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    rows = [a_row("s", 0, draw, 1.0, "p0") for draw in range(2)]
    rows += [a_row("s", 0, 2, 0.0, "p0") | {"policy": "q"}, a_row("s", -1, 3, 0.0, "p0"), a_row("t", 0, 0, 0.0, "p1")]
    store.append("rollouts", pa.Table.from_pylist(rows, schema=schemas.ROLLOUTS))
    asked = pl.DataFrame([("s", 0, "p0")], ASKED, orient="row")
    tasks = pl.DataFrame({"sample_id": ["s"], "task": ["choice"]})
    stats = drawing.tally(store, "p", "anchor", asked, tasks, 8, DEFAULT_RULE).to_dicts()
    assert [(row["sample_id"], row["n"], row["total"]) for row in stats] == [("s", 2, 2.0)]
