"""The parts of a report: texts, the choice of samples, charts and funnels."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import page
from pipeline.report.charts import HEIGHT, WIDTH, bar, histogram, ticks
from pipeline.report.choice import SHARES, choose
from pipeline.report.texts import cut, html, script_json
from tests.report_world import a_pool

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_in_a_script_reads_back_and_cannot_end_it(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")
    text.encode("utf-8")


@given(st.text(max_size=300), st.integers(3, 60))
def test_a_cut_text_keeps_both_ends_and_says_how_much_is_gone(text: str, longest: int) -> None:
    short = cut(text, longest)
    if len(text) <= longest:
        assert short == text
        return
    tail = longest // 3
    assert short.startswith(text[: longest - tail])
    assert short.endswith(text[-tail:])
    assert f"[{len(text) - longest:,} characters left out]" in short


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z"])))
def test_escaped_text_reads_back(text: str) -> None:
    """Through a parser of XML, which knows the same escapes."""
    element = ET.fromstring(html(text))
    assert (element.text or "") == text
    assert not list(element)


@given(st.integers(0, 400), st.integers(1, 120), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_choice_of_samples_is_as_large_as_asked_and_follows_from_its_seed(pool: int, count: int, seed: int) -> None:
    rows = a_pool(pool)
    chosen = choose(rows, count, seed)
    ids = chosen["sample_id"].to_list()
    assert len(ids) == len(set(ids)) == min(pool, count)
    assert set(ids) <= set(rows["sample_id"])
    assert chosen.equals(choose(rows.reverse(), count, seed))


def test_a_choice_holds_the_most_useful_the_hardest_the_easiest_and_others() -> None:
    rows = a_pool(2000)
    chosen = choose(rows, 100, 0).join(rows, on="sample_id", maintain_order="left")
    counts = dict(chosen["chosen"].value_counts().iter_rows())
    assert counts == {kind: round(100 * part) for kind, part in SHARES.items()}
    assert set(chosen["chosen"][:4]) == set(SHARES)
    useful, hardest, easiest, other = (chosen.filter(pl.col("chosen") == kind) for kind in SHARES)
    assert set(useful["reason"]) == {""}
    for task in ("choice", "grounding", "open"):
        best = rows.filter((pl.col("task") == task) & (pl.col("reason") == ""))["reward_var"].max()
        assert set(useful.filter(pl.col("task") == task)["reward_var"]) == {best}
    assert hardest["reward_mean"].max() == 0
    assert easiest["reward_mean"].min() == 1
    assert "no rollouts" in set(other["reason"])
    assert choose(rows, 100, 1)["sample_id"].to_list() != choose(rows, 100, 0)["sample_id"].to_list()


@given(st.floats(0.01, 1e7), st.integers(2, 8))
def test_ticks_are_round_and_reach_the_top(top: float, most: int) -> None:
    marks = ticks(top, most)
    assert marks[0] == 0
    assert marks[-1] >= top * (1 - 1e-6)
    assert len(marks) <= most + 1
    assert np.diff(marks) == pytest.approx(marks[1])


def bars(svg: str, kind: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter() if e.tag.endswith("rect") and e.get("class") == kind]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=25), st.floats(0, 0.25))
@settings(deadline=None)
def test_a_histogram_is_well_formed_and_stays_in_its_picture(columns: list[tuple[int, int]], line: float) -> None:
    kept, left_out = [a for a, _ in columns], [b for _, b in columns]
    svg = histogram(kept, left_out, 0.25, 'a "task" <b>', "variance", line)
    rects = bars(svg, "kept") + bars(svg, "out")
    assert len(rects) == sum(map(bool, kept + left_out))
    for rect in rects:
        x, y, width, height = (float(rect.get(name) or "nan") for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= WIDTH
        assert -2 <= y <= y + height <= HEIGHT  # a count too small to be seen is drawn as one unit
    assert 'a "task" <b>' in (ET.fromstring(svg).get("aria-label") or "")


def test_bars_of_a_histogram_are_as_tall_as_their_counts() -> None:
    svg = histogram([400, 100], [0, 200], 0.25, "t", "x")
    first, second = (float(rect.get("height") or 0) for rect in bars(svg, "kept"))
    assert first == pytest.approx(4 * second, rel=0.01)
    (out,) = bars(svg, "out")
    assert float(out.get("y") or 0) + float(out.get("height") or 0) == pytest.approx(
        float(bars(svg, "kept")[1].get("y") or 0), abs=0.02
    )
    with pytest.raises(ValueError, match="bins"):
        histogram([1], [1, 2], 1.0, "t", "x")


@given(st.lists(st.floats(0, 0.25), max_size=50))
def test_every_value_has_a_bin(values: list[float]) -> None:
    assert sum(page.counts(values, 0.25)) == len(values)


def test_a_threshold_lies_between_bins() -> None:
    """0.109375 is 1 right of 8, the least that a threshold of 0.1 keeps; the last bin holds the largest variance."""
    below, above = page.counts([0.09], 0.25), page.counts([0.109375], 0.25)
    assert below.index(1) < round(25 * 0.1 / 0.25) <= above.index(1)
    assert page.counts([0.25], 0.25)[-1] == 1


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bar_stays_in_its_cell(start: float, length: float) -> None:
    length = min(length, 1 - start)
    rect = ET.fromstring(bar(start, length, "out"))[1]
    left, width = float(rect.get("x") or 0), float(rect.get("width") or 0)
    assert 0 <= left <= left + width <= 100.001
    assert width > 0 or length < 1e-5


def test_a_funnel_counts_every_sample_once() -> None:
    rows = a_pool(1000)
    table = ET.fromstring(page.funnel(rows, "all"))
    said = {line[0][0].text: int((line[2].text or "").replace(",", "")) for line in table.find("tbody") or []}
    assert next(iter(said)) == "pool"
    assert list(said)[-1] == "kept"
    assert said.pop("pool") == 1000 == sum(said.values())
    assert said["kept"] == rows.filter(pl.col("reason") == "").height
    parts = page.groups(rows, "source")
    assert len(parts) == page.MOST_GROUPS
    assert parts[-1][0] == "5 others"
    assert sum(part.height for _, part in parts) == 1000
