"""The parts of the page of runs: reading, smoothing, thinning, axes, curves, and the page as text."""

import math
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from tests.run_world import PHASES, a_run, rows_of, settings_of
from tests.test_report_page import HOSTILE
from trainer.runreport import charts, page, panels
from trainer.runreport.charts import Curve
from trainer.runreport.curves import Scale, linear, logarithmic, scale_of, smoothed, thinned
from trainer.runreport.runs import MOST, differing, names_of, paths_of, read_run, read_runs, value_of

FINITE = st.floats(-1e6, 1e6)
GAPPED = st.lists(FINITE | st.none(), max_size=60)


@given(GAPPED, st.floats(0, 0.99))
def test_smoothing_is_the_weighted_mean_of_what_came_so_far(values: list[float | None], beta: float) -> None:
    steps = [float(k) for k in range(len(values))]
    for place, found in enumerate(smoothed(steps, values, beta)):
        if values[place] is None:
            assert found is None
            continue
        known = [(k, v) for k, v in enumerate(values[: place + 1]) if v is not None]
        weights = [beta ** (place - k) for k, _ in known]
        mean = sum(w * v for w, (_, v) in zip(weights, known, strict=True)) / sum(weights)
        assert found == pytest.approx(mean, rel=1e-9, abs=1e-6)
        assert found is not None
        assert min(v for _, v in known) - 1e-6 <= found <= max(v for _, v in known) + 1e-6


@given(GAPPED)
def test_without_smoothing_values_stay_and_a_constant_always_does(values: list[float | None]) -> None:
    steps = [float(k) for k in range(len(values))]
    assert smoothed(steps, values, 0.0) == values
    same = [None if v is None else 0.75 for v in values]
    assert smoothed(steps, same, 0.9) == pytest.approx(same)
    with pytest.raises(ValueError, match="beta"):
        smoothed(steps, values, 1.0)


@given(GAPPED, st.integers(2, 12))
def test_thinning_keeps_order_extremes_and_long_gaps(values: list[float | None], most: int) -> None:
    points = [(float(k), v) for k, v in enumerate(values)]
    found = thinned(points, most)
    assert len(found) <= max(2 * most, 0)
    assert set(found) <= set(points) | {(x, None) for x, _ in points}
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    known = [v for v in values if v is not None]
    if known:
        kept = [y for _, y in found if y is not None]
        assert (min(kept), max(kept)) == (min(known), max(known))


def test_a_long_gap_stays_a_gap_when_thinned() -> None:
    values = [None if 400 <= k < 600 else 1.0 for k in range(1000)]
    assert any(y is None for _, y in thinned([(float(k), v) for k, v in enumerate(values)], 50))


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_an_axis_holds_all_values_in_order(values: list[float]) -> None:
    scale = scale_of(values)
    edge = 1e-8 * (scale.high - scale.low)  # far below a pixel
    assert scale.low - edge <= min(values)
    assert max(values) <= scale.high + edge
    assert scale.low < scale.high
    places = [scale.place(v) for v in sorted(values)]
    assert places == sorted(places)
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in places)
    assert 2 <= len(scale.ticks) <= 8
    assert all(scale.low <= tick <= scale.high * (1 + 1e-9) + 1e-9 for tick in scale.ticks)
    assert not scale.log or min(values) > 0


@given(st.floats(1e-9, 1e9), st.floats(1, 1e9))
def test_a_logarithmic_axis_holds_its_values(low: float, factor: float) -> None:
    scale = logarithmic(low, low * factor)
    assert scale.low <= low * (1 + 1e-9)
    assert low * factor <= scale.high * (1 + 1e-9)
    assert len(scale.ticks) <= 7


def test_spikes_make_an_axis_logarithmic_and_shares_have_the_whole_range() -> None:
    assert scale_of([1.0] * 20 + [5000.0]).log
    assert not scale_of([1.0] * 20 + [50.0]).log
    assert not scale_of([0.0, *[1.0] * 20, 5000.0]).log  # a zero has no place on it
    assert not scale_of([1e-12, *[1.0] * 20, 5000.0]).log
    assert scale_of([0.4, 0.5], share=True).ticks == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert scale_of([0.4, 1.5], share=True).high == 1.5  # what is no share after all is not cut
    assert scale_of([]).high == 1.0
    assert linear(0.0, 0.0).high > 0


def test_ticks_are_written_as_they_are() -> None:
    written = [charts.figure(v) for v in (0.0, 2.5e-4, 0.001, 0.25, 950.0, 12000.0, -0.04, -2500.0, 1e10)]
    assert written == ["0", "2.5e-4", "0.001", "0.25", "950", "12k", "-0.04", "-2.5k", "1e10"]


def drawn_points(d: str) -> list[list[tuple[float, float]]]:
    """The strokes of a path: points in units of the picture."""
    strokes = []
    for stroke in re.findall(r"M[^M]*", d):
        numbers = re.findall(r"(-?[\d.]+) (-?[\d.]+)", stroke)
        strokes.append([(float(x), float(y)) for x, y in numbers])
    return strokes


@given(st.lists(st.floats(0, 10) | st.none(), min_size=1, max_size=40))
def test_a_curve_goes_through_its_values_and_breaks_where_there_is_none(values: list[float | None]) -> None:
    across, up = charts.x_scale(0, max(1, len(values) - 1)), Scale(0, 10, (0, 10))
    strokes = drawn_points(charts.path([(float(k), v) for k, v in enumerate(values)], across, up))
    known = [(k, v) for k, v in enumerate(values) if v is not None]
    assert len(strokes) == sum(v is not None and (k == 0 or values[k - 1] is None) for k, v in enumerate(values))
    points = [point for stroke in strokes for point in stroke]
    right, base = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
    for (x, y), (k, v) in zip(points, known, strict=True):
        assert (x - charts.LEFT) / (right - charts.LEFT) * across.high == pytest.approx(k, abs=0.02 * len(values))
        assert (base - y) / (base - charts.TOP) * 10 == pytest.approx(v, abs=0.01)


@given(st.text(max_size=40), st.text(max_size=10))
def test_charts_are_well_formed_whatever_their_texts(title: str, label: str) -> None:
    title, label = (re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "", t) for t in (title, label))
    curve = Curve(0, [(1.0, 0.5), (2.0, None)], [(1.0, 0.5), (2.0, None)])
    across, up = charts.x_scale(1, 2), scale_of([0.5])
    for svg in (
        charts.lines(title, [curve], label, across, up),
        charts.stack(title, [(0, [(1.0, 2.0)])], label, across, up),
    ):
        said = ElementTree.fromstring(svg).attrib["aria-label"]
        assert said.startswith(f"{title} by {label}")


def test_stacked_areas_end_at_the_sum() -> None:
    layers = [(0, [(1.0, 1.0), (2.0, 2.0)]), (1, [(1.0, 3.0), (2.0, 1.0)])]
    svg = charts.stack("seconds", layers, "step", charts.x_scale(1, 2), Scale(0, 8, (0, 8)))
    top = drawn_points(re.findall(r'class="area p1" d="([^"]*)"', svg)[0].rstrip("Z"))[0][:2]
    base = charts.HEIGHT - charts.BOTTOM
    assert [(base - y) / (base - charts.TOP) * 8 for _, y in top] == pytest.approx([4.0, 3.0], abs=0.05)


def test_a_run_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    whole = read_run(a_run(tmp_path / "a", rows_of(20, 0), settings_of(steps=20)), "a")
    assert (whole.steps, whole.planned, whole.notes) == (20, 20, ())
    torn = read_run(a_run(tmp_path / "b", rows_of(20, 0), settings_of(steps=40), '{"step": 21, "rew'), "b")
    assert torn.rows == whole.rows
    assert [note.split(" ")[1] for note in torn.notes] == ["last", "has"]
    rows = rows_of(5, 0)
    again = read_run(a_run(tmp_path / "c", [*rows[:3], rows[1] | {"loss": 9.0}, *rows[3:]], settings_of(steps=5)), "c")
    assert [row["step"] for row in again.rows] == [1, 2, 3, 4, 5]
    assert again.rows[1]["loss"] == 9.0
    assert len(again.notes) == 1
    sparse = read_run(a_run(tmp_path / "d", rows[::2]), "d")
    assert [note.split(" ")[0] for note in sparse.notes] == ["There", "2"]
    empty = read_run(a_run(tmp_path / "e", [], settings_of()), "e")
    assert (empty.steps, empty.notes) == (0, ("It has no step yet.",))


def test_what_is_no_run_is_a_mistake(tmp_path: Path) -> None:
    a_run(tmp_path / "a", rows_of(2, 0))
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="once"):
        read_runs([tmp_path / "a", tmp_path / "a" / "metrics.jsonl"])
    with pytest.raises(UserError, match=f"{MOST + 1} runs"):
        read_runs([tmp_path / "a"] * (MOST + 1))
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_runs([tmp_path / "a"])


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5, unique=True)
)
def test_names_tell_runs_apart(parts: list[tuple[str, ...]]) -> None:
    folders = [Path("/", *part) for part in parts]
    names = names_of(folders)
    assert len(set(names)) == len(names)
    assert all(str(folder).endswith(name) for folder, name in zip(folders, names, strict=True))


def test_only_settings_that_differ_are_listed(tmp_path: Path) -> None:
    a_run(tmp_path / "a", rows_of(2, 0), settings_of(variants=1, out="a"))
    a_run(tmp_path / "b", rows_of(2, 0), settings_of(out="b", fresh=True))
    a_run(tmp_path / "c", rows_of(2, 0))
    runs = read_runs([tmp_path / name for name in "abc"])
    found, agree = differing(runs)
    assert found == [("variants", ["1", "4", None]), ("fresh", [None, "true", None])]
    assert agree == 10
    assert differing(runs[2:]) == ([], 0)


def test_values_are_found_by_their_path_or_not_at_all() -> None:
    row = {
        "step": 1,
        "tokens": 300,
        "rollouts": 4,
        "seconds": {"rollout": 2.0, "update": 1.0},
        "loss": None,
        "on": True,
    }
    row |= {"text": "1.0", "huge": float("inf")}
    assert value_of(row, "seconds/rollout") == 2.0
    assert (value_of(row, "length"), value_of(row, "tokens_per_second")) == (75.0, 100.0)
    assert value_of(row | {"lengths": {"mean": 80.0}}, "length") == 80.0
    for path in ("loss", "on", "text", "huge", "seconds", "seconds/none", "rollouts/none", "nothing"):
        assert value_of(row, path) is None
    assert value_of({"step": 1}, "length") is None
    assert value_of({"step": 1, "tokens": 5.0}, "tokens_per_second") is None
    assert paths_of([row]) == ["step", "tokens", "rollouts", "seconds/rollout", "seconds/update", "huge"]


def test_every_number_of_a_row_has_a_chart_and_what_is_absent_is_said(tmp_path: Path) -> None:
    rows = [row | {"parts": {"iou": 0.5}, "entropy": 1.0, "deep": {"er": 2}, "replaced": 0} for row in rows_of(20, 0)]
    a_run(tmp_path / "a", rows, settings_of(steps=20))
    a_run(tmp_path / "b", [{"step": k, "loss": 1.0, "grad_norm": 2.0, "tokens": 9.0} for k in range(1, 6)])
    a_run(tmp_path / "c", [], settings_of())
    assert "replaced" not in [p.path for _, group in panels.groups_of(read_runs([tmp_path / "a"])) for p in group]
    text = page.render(read_runs([tmp_path / name for name in "abc"]))
    shown = re.findall(r'data-panel="([^"]*)"', text)
    known = ["reward_std", "dead_group_share", "grad_norm", "reward_mean", "between_share", "parts/iou", "length"]
    known += ["tokens_per_second", "loss", "approx_kl", "clip_fraction", "entropy", "deep/er"]
    assert shown == known
    assert "<bdi>b</bdi> has none" in text
    assert "<bdi>a</bdi>: none at 2 of 20 steps" in text
    assert "It has no step yet" in text
    assert 'value="rollouts"' not in text  # b does not count them: no common axis
    assert text.count('class="area') == len(PHASES)


def test_three_axes_where_all_runs_have_them(tmp_path: Path) -> None:
    a_run(tmp_path / "a", rows_of(20, 0, rollouts=64))
    a_run(tmp_path / "b", rows_of(10, 0, rollouts=32))
    runs = read_runs([tmp_path / "a", tmp_path / "b"])
    step, rollouts, time = panels.axes_of(runs)
    assert (step.xs[1][-1], rollouts.xs[0][-1], rollouts.xs[1][-1]) == (10, 1280, 320)
    assert time.label == "seconds of training"
    assert time.xs[0][-1] == pytest.approx(sum(sum(row["seconds"].values()) for row in runs[0].rows))
    assert [axis.scale().low for axis in (step, rollouts, time)] == [1, 0, 0]


def test_the_overview_is_of_the_last_tenth(tmp_path: Path) -> None:
    rows = rows_of(140, 0)
    rows[3]["grad_norm"] = 1e5
    short = panels.overview(read_run(a_run(tmp_path / "b", rows[:40]), "b"))
    assert short["reward_mean"] == pytest.approx(sum(row["reward_mean"] for row in rows[30:40]) / 10)
    found = panels.overview(read_run(a_run(tmp_path / "a", rows), "a"))
    assert found["reward_mean"] == pytest.approx(sum(row["reward_mean"] for row in rows[126:]) / 14)
    assert found["grad_norm"] is not None
    assert found["grad_norm"] < 1e3  # some of the last have none
    assert found["grad_norm_max"] == 1e5
    assert found["rollouts"] == 140 * 64


def test_a_page_of_many_steps_stays_small(tmp_path: Path) -> None:
    a_run(tmp_path / "a", rows_of(5_000, 0))
    assert len(page.render(read_runs([tmp_path / "a"]))) < 2_000_000


def test_names_and_settings_of_users_are_only_text(tmp_path: Path) -> None:
    everywhere = " ".join(HOSTILE)
    names = ["<img src=x onerror=alert(1)>", "%%DATA%%"]
    for name in names:
        a_run(
            tmp_path / name, [row | {everywhere: 1.0} for row in rows_of(4, 0)], settings_of(policy=everywhere + name)
        )
    text = page.render(read_runs([tmp_path / name for name in names]))
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert text.count("<script") == 2
    assert "%%DATA%%" in unescape(text)
    assert math.isfinite(len(text))
