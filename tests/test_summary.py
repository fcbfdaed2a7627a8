"""What a tag came to, and what differs between two: numbers, and the commands that show them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.data import app as _app
from cli.summary import diff
from pipeline import summary, tagdiff
from pipeline.errors import UserError
from pipeline.groups import wilson
from pipeline.inspect import default_table, newest_curated
from pipeline.store import Store
from tests import tags

POOL = 60


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A pool of 60 samples and two tags of the dataset d: `first`, and `strict` with a higher threshold."""
    store = Store(tmp_path / "s", create=True)
    tags.add_pool(store, tags.verdicts(POOL))
    tags.add_tag(store, tags.verdicts(POOL), "first")
    strict = json.dumps({"choice": 0.2, "grounding": 0.01})
    tags.add_tag(store, tags.verdicts(POOL, min_var=0.2), "strict", thresholds=strict, draws="16")
    return store


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 80), st.integers(0, 5), st.sampled_from([None, "task", "source"]))
def test_the_funnel_adds_up(count: int, seed: int, by: str | None) -> None:
    judged = tags.verdicts(count, seed)
    rows = summary.funnel(judged, by)
    assert sum(row["pool"] for row in rows) == count
    reasons: Counter[str] = Counter()
    for row in rows:
        assert row["pool"] == row["kept"] + sum(row["left_out"].values())
        assert (row["kept_low"], row["kept_high"]) == wilson(row["kept"], row["pool"])
        assert 0 not in row["left_out"].values()
        reasons += Counter(row["left_out"])
    assert reasons == Counter(reason for reason in judged["reason"] if reason)
    if by is None:
        counts = list(rows[0]["left_out"].values())
        assert counts == sorted(counts, reverse=True)
    else:
        assert [row[by] for row in rows] == sorted(set(judged[by]))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 80), st.integers(0, 5))
def test_histograms_and_spreads_hold_every_sample_with_draws(count: int, seed: int) -> None:
    judged = tags.verdicts(count, seed)
    drawn = judged.filter(pl.col("draws") > 0)
    for column in ("reward_mean", "reward_var"):
        bars = [row for row in summary.histograms(judged) if row["of"] == column]
        assert sum(sum(bar["kept"]) for bar in bars) == drawn.filter(pl.col("reason") == "").height
        assert sum(sum(bar["left_out"]) for bar in bars) == drawn.filter(pl.col("reason") != "").height
    for row in summary.spreads(judged):
        mine = drawn.filter(pl.col("task") == row["task"])
        assert row["samples"] == mine.height
        assert row["reward_var"] == pytest.approx(np.mean(mine["reward_var"].to_numpy()))
        assert row["var_p25"] == pytest.approx(np.quantile(mine["reward_var"].to_numpy(), 0.25))
        assert row["dead"] == int((mine["reward_mean"].to_numpy() % 1 == 0).sum())
        assert (row["dead_low"], row["dead_high"]) == wilson(row["dead"], row["samples"])


def test_a_histogram_holds_its_ends() -> None:
    judged = tags.verdicts(30).with_columns(reward_mean=pl.lit(1.0), reward_var=pl.lit(0.25), draws=pl.lit(8))
    for row in summary.histograms(judged):
        counts = np.add(row["kept"], row["left_out"])
        assert counts[-1] == counts.sum() > 0
        assert len(row["edges"]) == 11


def test_gaps_are_means_of_differences_over_the_samples_asked() -> None:
    judged = tags.verdicts(200)
    rows = summary.gaps(judged)
    assert [row["probe"] for row in rows] == ["blind"]  # only every other sample, all of one source, was asked blind
    asked = judged.filter((pl.col("blind_draws") > 0) & (pl.col("draws") > 0))
    differences = (asked["reward_mean"] - asked["blind_mean"]).to_numpy()
    half = 1.96 * differences.std(ddof=1) / len(differences) ** 0.5
    assert rows[0]["samples"] == len(differences)
    assert rows[0]["gap"] == pytest.approx(differences.mean())
    assert rows[0]["gap"] == pytest.approx(rows[0]["with_views"] - rows[0]["with_probe"])
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), abs=1e-4
    )
    (one,) = summary.gaps(asked.head(1))
    assert (one["low"], one["high"]) == (None, None)


def test_the_samples_at_the_ends_come_with_their_questions(store: Store) -> None:
    judged = tags.verdicts(POOL)
    found = summary.ends(store, judged, 2)
    drawn = judged.filter(pl.col("draws") > 0)
    for task in tags.TASKS:
        mine = {which: [r for r in found if r["task"] == task and r["which"] == which] for which in summary.ENDS}
        means = drawn.filter(pl.col("task") == task)["reward_mean"]
        kept = drawn.filter((pl.col("task") == task) & (pl.col("reason") == ""))
        assert [r["reward_mean"] for r in mine["hardest"]] == sorted(means)[:2]
        assert [r["reward_mean"] for r in mine["easiest"]] == sorted(means)[:-3:-1]
        assert [r["reward_var"] for r in mine["most useful"]] == sorted(kept["reward_var"])[:-3:-1]
    assert all(row["question"] == f"what is {row['sample_id']}?" for row in found)
    assert len(found) == 2 * 2 * 3


def test_views_are_counted() -> None:
    judged = tags.verdicts(POOL)
    kept = judged.filter(pl.col("reason") == "").height
    counts = summary.view_counts(tags.curated(judged, views=3))
    assert counts.views == {3: kept}
    assert counts.kinds == {"anchor": kept, "importance": 2 * kept}
    assert counts.frames == {2: 3 * kept}
    sliced = summary.view_counts(tags.curated(judged, views=3).slice(1, 4))
    assert sliced.views == {3: 4} and sliced.kinds == {"anchor": 4, "importance": 8}


def test_two_tags_are_compared(store: Store) -> None:
    found = tagdiff.compare(store, "first", "strict")
    kept = {tag: set(store.curated("d", tag)["sample_id"].to_pylist()) for tag in ("first", "strict")}
    assert found.both == len(kept["first"] & kept["strict"]) and found.only_b == 0
    assert found.only_a == len(kept["first"] - kept["strict"]) > 0
    assert found.left_out_of_b == {"below threshold": found.only_a} and found.left_out_of_a == {}
    assert {row["sample_id"] for row in found.samples} == kept["first"] - kept["strict"]
    assert {row["kept_in"] for row in found.samples} == {"first"}
    assert found.settings == {"thresholds.choice": [0.1, 0.2], "draws": ["8", "16"]}
    assert all(change["changed"] == 0 and change["a"] == change["b"] for change in found.statistics.values())


def test_the_other_way_round_says_the_same(store: Store) -> None:
    one, other = tagdiff.compare(store, "first", "strict"), tagdiff.compare(store, "strict", "first")
    assert (one.only_a, one.only_b, one.both) == (other.only_b, other.only_a, other.both)
    assert (one.left_out_of_a, one.left_out_of_b) == (other.left_out_of_b, other.left_out_of_a)
    assert one.samples == other.samples
    same = tagdiff.compare(store, "first", "first")
    assert (same.only_a, same.only_b, same.settings, same.samples) == (0, 0, {}, [])


def test_a_sample_that_the_other_pool_never_had_says_so(store: Store) -> None:
    more = tags.verdicts(POOL + 20).with_columns(reward_mean=pl.col("reward_mean") / 2)
    tags.add_tag(store, more, "larger", options="null")
    found = tagdiff.compare(store, "first", "larger")
    new = more.filter((pl.col("reason") == "") & (pl.col("sample_id") >= f"s{POOL:07d}")).height
    assert found.left_out_of_a.get(tagdiff.NOT_IN_POOL) == new > 0
    assert found.statistics["reward_mean"]["changed"] == found.both
    assert found.statistics["blind_mean"]["changed"] == 0
    assert found.settings["options.mode"] == ["cut", None]


def test_unknown_tags_name_those_that_are_known(store: Store) -> None:
    with pytest.raises(UserError, match=r"tag nope: known tags: d: .*first.*strict"):
        tagdiff.compare(store, "first", "nope")
    with pytest.raises(UserError, match=r"tag first and strict: known tags: none"):
        tagdiff.compare(store, "first", "strict", "other")
    tags.add_tag(store, tags.verdicts(POOL), "elsewhere", "e")
    with pytest.raises(UserError, match="two tags of one dataset"):
        tagdiff.compare(store, "first", "elsewhere")
    for tag in ("first", "strict"):
        tags.add_tag(store, tags.verdicts(POOL), tag, "e")
    with pytest.raises(UserError, match=r"d, e have both.*--name"):
        tagdiff.compare(store, "first", "strict")
    assert tagdiff.compare(store, "first", "strict", "e").dataset == "e"


def command(*words: object) -> None:
    """The program itself ends the process, so the app is called as it calls it."""
    _app([str(word) for word in words], standalone_mode=False, prog_name="strive-data")


def test_inspect_shows_what_the_newest_dataset_came_to(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert default_table(store) == "curated:d"
    tags.add_tag(store, tags.verdicts(10), "only", "a-later-one")
    assert newest_curated(store) == "a-later-one"

    def said(*words: object) -> dict[str, Any]:
        command("inspect", *words, "--store", store.path, "--json")
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert said()["dataset"] == "a-later-one"
    whole = said("curated:d", "--summary", "--tag", "first")
    assert (whole["facts"]["tag"], whole["funnel"]["all"][0]["pool"]) == ("first", POOL)
    assert set(whole) >= {"funnel", "spreads", "histograms", "gaps", "samples", "views"}
    kept = {tag: store.curated("d", tag).num_rows for tag in ("first", "strict")}
    assert said("curated:d", "--limit", 1)["rows"] == kept["strict"]
    assert said("curated:d", "--tag", "first", "--limit", 1)["rows"] == kept["first"]
    assert said("--where", "reward_var > 1", "--columns", "task")["rows"] == 0
    command("inspect", "curated:d", "--summary", "--store", store.path)
    out = " ".join(capsys.readouterr().out.split())
    for text in ("below threshold", "what frames are worth", "hardest", "share kept", "by source"):
        assert text in out


@pytest.mark.parametrize(
    "words",
    [
        ["samples", "--tag", "first"],
        ["samples", "--summary"],
        ["curated:d", "--summary", "--where", "task = 'choice'"],
        ["curated:d", "--tag", "nope"],
        ["curated:d", "--summary", "--tag", "nope"],
        ["curated:none", "--summary"],
    ],
)
def test_what_cannot_be_inspected_is_refused(store: Store, words: list[str]) -> None:
    with pytest.raises(UserError):
        command("inspect", *words, "--store", store.path)


def test_diff_prints_tables_or_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    diff("first", "strict", store.path, None, 2, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(tagdiff.compare(store, "first", "strict").as_dict()))
    diff("first", "strict", store.path, None, 2, json=False)
    out = " ".join(capsys.readouterr().out.split())
    for text in ("first only", "below threshold", "2 of", "thresholds.choice", "means over the samples in both"):
        assert text in out
