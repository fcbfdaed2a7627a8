"""Selection: the funnel, the verdicts, the curated rows and their card."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import UserError
from pipeline.groups import population_variance, wilson
from pipeline.plan import SelectReport
from pipeline.rewards import DEFAULT_RULE, reward_expr
from pipeline.schemas import CURATED, VERDICTS
from pipeline.store import Store
from tests.curation_world import TASKS, RulePolicy, a_pool, a_rule, a_sample, add_samples, choose

ASKABLE = len(TASKS) * 4 * 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = a_pool(tmp_path / "s")
    add_samples(store, [a_sample("no-frames", "quarantined"), a_sample("no-views", "v1")])
    return store


def rewards(store: Store) -> dict[str, list[float]]:
    """The rewards of the ledger's anchor draws, by sample."""
    tasks = store.scan("samples").select("sample_id", "task").collect()
    rows = store.scan("rollouts").filter(pl.col("variant") == 0).collect().join(tasks, on="sample_id")
    rows = rows.sort("sample_id", "draw").with_columns(reward_expr(DEFAULT_RULE).alias("reward"))
    return {str(key): group["reward"].to_list() for (key,), group in rows.group_by("sample_id")}


def test_the_funnel_adds_up_and_names_its_reasons(store: Store) -> None:
    report = choose(store)
    assert report.pool == ASKABLE + 2 == report.kept + sum(report.dropped.values())
    assert (report.dropped["no frames"], report.dropped["no variants"]) == (1, 1)
    assert report.dropped["all wrong"] >= 3
    assert report.dropped["all right"] >= 9
    for funnel in report.per_task.values():
        assert funnel["pool"] == sum(count for name, count in funnel.items() if name != "pool")
    assert sum(funnel["kept"] for funnel in report.per_task.values()) == report.kept
    assert json.loads(json.dumps(report.as_dict()))["kept"] == report.kept


def test_every_sample_of_the_pool_has_one_verdict_and_the_kept_ones_are_curated(store: Store) -> None:
    report = choose(store)
    judged, kept = store.verdicts("d").to_pylist(), store.curated("d").to_pylist()
    assert store.verdicts("d").schema.names == VERDICTS.names
    assert [row["sample_id"] for row in judged] == sorted(store.table("samples")["sample_id"].to_pylist())
    assert [row["sample_id"] for row in judged if not row["reason"]] == [row["sample_id"] for row in kept]
    assert Counter(row["reason"] for row in judged if row["reason"]) == Counter(report.dropped)
    statistics = [f.name for f in schemas.STATISTICS]
    by_id = {row["sample_id"]: row for row in judged}
    for row in kept:
        assert all(row[name] == by_id[row["sample_id"]][name] for name in statistics)
    for key in ("no-frames", "no-views"):
        assert (by_id[key]["draws"], by_id[key]["reward_mean"], by_id[key]["policy"]) == (0, None, None)


@pytest.mark.parametrize("adaptive", [False, True])
def test_kept_rows_are_those_whose_variance_passes(store: Store, adaptive: bool) -> None:
    report = choose(store, asker={"adaptive": adaptive})
    kept = {row["sample_id"]: row for row in store.curated("d", report.tag).to_pylist()}
    drawn = rewards(store)
    assert len(drawn) == ASKABLE
    for key, values in drawn.items():
        threshold = 0.1 if key.startswith("choice") else 0.01
        if len(values) == 8:
            assert (key in kept) == (np.var(values) >= threshold - 1e-9 and max(values) > min(values))
        if key in kept:
            row = kept[key]
            assert row["reward_var"] == pytest.approx(population_variance(values), abs=1e-12)
            assert row["reward_mean"] == pytest.approx(np.mean(values))
            assert (row["reward_low"], row["reward_high"]) == pytest.approx(wilson(sum(values), len(values)))
            assert (row["draws"], row["format_rate"], row["between_share"]) == (len(values), 1.0, None)
            assert (row["policy"], row["weight"], row["blind_draws"]) == ("rules", 1.0, 0)
    assert any(key.startswith("grounding") for key in kept)
    assert adaptive == any(len(values) < 8 for values in drawn.values())


def test_a_curated_row_holds_all_views_anchor_first(store: Store) -> None:
    choose(store)
    assert store.curated("d").schema.names == CURATED.names
    views = store.table("variants").to_pylist()
    for row in store.curated("d").to_pylist():
        mine = sorted((v for v in views if v["sample_id"] == row["sample_id"]), key=lambda v: v["variant"])
        assert [v["variant"] for v in row["variants"]] == [v["variant"] for v in mine]
        assert row["variants"][0]["kind"] == "anchor"
        assert all(a["indices"] == b["indices"] for a, b in zip(row["variants"], mine, strict=True))


def test_no_filter_keeps_every_sample_with_rollouts(store: Store) -> None:
    assert choose(store, a_rule(None)).kept == ASKABLE
    assert RulePolicy.asked == 8 * ASKABLE
    assert choose(store, a_rule("0")).kept == ASKABLE


def test_selecting_again_changes_nothing(store: Store) -> None:
    first = choose(store, command="x")
    card = Path(first.card).read_text()
    second = choose(store, command="x")
    assert (second.tag, second.version, second.drawn_now, RulePolicy.asked) == (first.tag, first.version, 0, 0)
    assert Path(second.card).read_text() == card


def test_tags_keep_their_versions_apart(store: Store) -> None:
    loose = choose(store, a_rule("0"), tag="loose")
    strict = choose(store)
    assert store.curated("d", "loose").num_rows == loose.kept == ASKABLE
    assert store.curated("d", strict.tag).num_rows == store.curated("d").num_rows == strict.kept < ASKABLE
    assert store.curated_tags("d") == {"loose": loose.version, strict.tag: strict.version}
    assert store.verdicts("d", "loose")["reason"].to_pylist().count("") == ASKABLE
    assert json.loads(store.facts("d", "loose")["thresholds"])["choice"] == 0
    assert json.loads(store.facts("d")["thresholds"])["choice"] == 0.1
    cards = Path(strict.path) / "cards"
    assert sorted(card.name for card in cards.iterdir()) == sorted([f"{strict.tag}.md", "loose.md"])
    assert (cards / f"{strict.tag}.md").read_text() == Path(strict.card).read_text()
    with pytest.raises(UserError, match="names other samples"):
        choose(store, tag="loose")
    assert store.curated("d", "loose").num_rows == ASKABLE


def test_source_and_split_choose_the_pool(store: Store) -> None:
    keep_all = a_rule(None)
    assert choose(store, keep_all, split="val").kept == ASKABLE // 3
    assert RulePolicy.asked == 8 * ASKABLE // 3
    assert choose(store, keep_all, source="test").pool == ASKABLE + 2
    assert RulePolicy.asked == 8 * (ASKABLE - ASKABLE // 3)
    with pytest.raises(UserError, match="test/train, test/val"):
        choose(store, source="elsewhere")


def test_more_draws_draw_the_difference(store: Store) -> None:
    fixed = {"adaptive": False}
    choose(store, asker=fixed)
    report = choose(store, asker=fixed, draws=16)
    assert RulePolicy.asked == 8 * ASKABLE
    assert set(store.curated("d")["draws"].to_pylist()) == {16}
    assert (report.draws, report.calls, report.calls_saved) == (16, 16 * ASKABLE, 0.0)


def test_fewer_draws_decide_by_the_first_ones(store: Store) -> None:
    fixed = {"adaptive": False}
    choose(store, asker=fixed, draws=16)
    choose(store, asker=fixed, draws=4)
    assert RulePolicy.asked == 0
    drawn = rewards(store)
    for row in store.curated("d").to_pylist():
        assert row["draws"] == 4
        assert row["reward_mean"] == pytest.approx(np.mean(drawn[row["sample_id"]][:4]))


def test_nothing_kept_is_a_user_error_with_the_funnel(store: Store) -> None:
    with pytest.raises(UserError, match="all right"):
        choose(store, draws=1)
    assert store.curated_names() == []


def test_the_card_tells_what_how_and_why(store: Store) -> None:
    report = choose(store, command="strive-data select --min-var 0.1")
    card = Path(report.card).read_text()
    assert card.startswith("---\n")
    wanted = ["choice", "all wrong", "no frames", ">= 0.1 (choice", ">= 0.01 (grounding", "rules", "temperature"]
    for text in [*wanted, report.tag, "strive-data select --min-var 0.1"]:
        assert text in card


def test_polars_opens_a_curated_dataset(store: Store) -> None:
    report = choose(store)
    frame = pl.scan_lance(report.path).select("question", "reward_var").collect()
    assert len(frame) == report.kept


@pytest.mark.parametrize("bad", [{"tag": "a b"}, {"tag": "../x"}, {"tag": ""}, {"name": "../x"}, {"mode": "x"}])
def test_bad_names_are_refused_before_anything_is_drawn(store: Store, bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        choose(store, **bad)
    assert store.count("rollouts") == 0


def weights_of(store: Store, report: SelectReport) -> dict[str, float]:
    return {row["sample_id"]: row["weight"] for row in store.curated("d", report.tag).to_pylist()}


def test_weights_keep_every_sample_and_favour_what_varies(store: Store) -> None:
    report = choose(store, mode="weight")
    assert report.kept == ASKABLE
    assert RulePolicy.asked == 8 * ASKABLE, "a weight is an estimate: all draws count"
    weights = weights_of(store, report)
    assert min(weights.values()) > 0
    for task in TASKS:
        of_task = {key: weight for key, weight in weights.items() if key.startswith(task + "-")}
        assert np.mean(list(of_task.values())) == pytest.approx(1.0)
        variances = {key: np.var(values) for key, values in rewards(store).items() if key in of_task}
        by_variance = sorted(of_task, key=lambda key: variances[key])
        assert of_task[by_variance[0]] < 1.0 < of_task[by_variance[-1]]
        ordered = [of_task[key] for key in by_variance]
        assert all(a <= b + 1e-9 for a, b in pairwise(ordered))
    cut = choose(store)
    assert (RulePolicy.asked, set(weights_of(store, cut).values())) == (0, {1.0})


def test_weights_and_bounds_of_the_mean_go_together(store: Store) -> None:
    report = choose(store, a_rule(min_acc=0.05, max_acc=0.95), mode="weight")
    assert 0 < report.kept < ASKABLE
    assert {"too hard", "too easy"} <= {reason for reason, count in report.dropped.items() if count}


def embed(store: Store) -> None:
    """Frame embeddings of both videos."""
    vectors = {"v1": [1.0, 0.0] * 2, "v2": [0.0, 1.0] * 2}  # of two frames each
    rows = [
        {"video_id": video, "scorer": "test", "dim": 2, "embeddings": np.float16(found), "fingerprint": video}
        for video, found in vectors.items()
    ]
    store.append("frame_embeddings", pa.Table.from_pylist(rows, schema=schemas.FRAME_EMBEDDINGS))


def test_a_budget_spares_what_varies_most_and_names_what_it_left_out(store: Store) -> None:
    with pytest.raises(UserError, match="score-frames"):
        choose(store, max_samples=4)
    embed(store)
    whole = choose(store)
    all_kept = set(store.curated("d")["sample_id"].to_pylist())
    few = choose(store, max_samples=4)
    kept = set(store.curated("d")["sample_id"].to_pylist())
    assert (few.kept, few.dropped["beyond --max-samples"], RulePolicy.asked) == (4, whole.kept - 4, 0)
    assert kept < all_kept
    assert set(store.curated("d")["video_id"].to_pylist()) == {"v1", "v2"}
    each = choose(store, per_source=3)
    assert (each.kept, each.dropped["beyond --per-source"]) == (3, whole.kept - 3)
    assert set(store.curated("d")["sample_id"].to_pylist()) < kept
    assert choose(store, max_samples=10**6).tag == choose(store, max_samples=10**6).tag
    for bad in ({"per_source": 0}, {"max_samples": 0}):
        with pytest.raises(UserError, match="1 or more"):
            choose(store, **bad)
