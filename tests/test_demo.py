"""The demo's pure parts: what counts as seen, what an arm's figures are, the facts, the table, the picture."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from toyworld import demo
from toyworld import demo_figures as figures


def steps(dead: float, std: float, count: int = 40, seed: int = 0, rollouts: int = 128) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "step": i + 1,
            "reward_mean": 0.4,
            "reward_std": std + 0.04 * rng.normal(),
            "dead_group_share": float(np.clip(dead + 0.12 * rng.normal(), 0, 1)),
            "between_share": 0.3,
            "grad_norm": float(0.6 + 0.15 * abs(rng.normal())),
            "seconds": {"rollout": 0.4},
            "tokens": 1500,
            "rollouts": rollouts,
        }
        for i in range(count)
    ]


def evaluated(accuracy: float) -> dict[str, Any]:
    return {"by_view": {"importance": {"accuracy": accuracy}, "anchor": {"accuracy": accuracy - 0.1}}}


def a_summary() -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    runs = {
        "grpo_anchor": steps(0.40, 0.24, seed=1),
        "grpo_importance": steps(0.35, 0.27, seed=2),
        "strive": steps(0.12, 0.34, seed=3),
    }
    before = evaluated(0.47)
    arms = {
        name: figures.arm_figures(runs[name], before, evaluated(after), 40.0)
        for name, after in zip(figures.ARMS, (0.48, 0.55, 0.55), strict=True)
    }
    reasons = {"every answer wrong": 150, "variance below the threshold": 61, "every answer right": 22}
    return {
        "hit_rate": {"uniform": 0.58, "importance": 0.91},
        "selection": {"pool": 500, "kept": 267, "dropped": 233, "reasons": reasons},
        "arms": arms,
        "seconds_total": 250.0,
    }, runs


def hit(times: list[float], evidence: list[list[float]]) -> float:
    sample = {"sample_id": "s", "origin": json.dumps({"evidence": evidence})}
    views = [{"sample_id": "s", "variant": variant, "times": times} for variant in (0, 1)]
    rates = figures.hit_rates([sample], views)
    assert rates["uniform"] == rates["importance"]
    return rates["uniform"]


def test_all_spans_must_be_seen_and_an_end_is_exclusive() -> None:
    assert hit([1.0, 5.0], [[0.5, 1.5], [5.0, 5.5]]) == 1.0
    assert hit([1.0, 4.9], [[0.5, 1.5], [5.0, 5.5]]) == 0.0
    assert hit([1.5], [[0.5, 1.5]]) == 0.0
    assert hit([0.5], [[0.5, 1.5]]) == 1.0


@given(
    times=st.lists(st.floats(0, 12), max_size=8),
    more=st.lists(st.floats(0, 12), max_size=4),
    spans=st.lists(st.lists(st.floats(0, 12), min_size=2, max_size=2), min_size=1, max_size=3),
)
def test_more_frames_never_see_less(times: list[float], more: list[float], spans: list[list[float]]) -> None:
    assert hit(times + more, spans) >= hit(times, spans)


def test_hit_rates_split_the_anchor_from_the_other_views() -> None:
    samples = [
        {"sample_id": "a", "origin": json.dumps({"evidence": [[1.0, 2.0]]})},
        {"sample_id": "b", "origin": json.dumps({"evidence": [[3.0, 4.0], [8.0, 9.0]]})},
        {"sample_id": "no evidence", "origin": json.dumps({"problem": "?"})},
    ]
    views = {
        ("a", 0): [0.0, 6.0],
        ("a", 1): [1.5],
        ("a", 2): [1.0],
        ("b", 0): [3.0, 8.5],
        ("b", 1): [3.0],
        ("b", 2): [3.5, 8.0],
        ("no evidence", 0): [0.0],
    }
    rows = [{"sample_id": key, "variant": variant, "times": times} for (key, variant), times in views.items()]
    assert figures.hit_rates(samples, rows) == {"uniform": 0.5, "importance": 0.75}


def test_hit_rates_without_importance_views_are_an_error() -> None:
    samples = [{"sample_id": "a", "origin": json.dumps({"evidence": [[1.0, 2.0]]})}]
    with pytest.raises(ValueError, match="no importance view"):
        figures.hit_rates(samples, [{"sample_id": "a", "variant": 0, "times": [1.0]}])


def test_an_arm_has_the_keys_of_the_summary() -> None:
    rows = steps(0.2, 0.3, count=4)
    for row, norm in zip(rows, (1.0, 3.0, None, 2.0), strict=True):
        row["grad_norm"] = norm  # a step whose groups are all dead has no gradient
    arm = figures.arm_figures(rows, evaluated(0.4), evaluated(0.5), 12.5)
    assert set(arm) == {
        *("rollouts", "steps", "reward_std", "dead_group_share"),
        *("grad_norm_cv", "accuracy_before", "accuracy_after", "seconds"),
        *("accuracy_anchor_before", "accuracy_anchor_after"),
    }
    assert (arm["accuracy_after"], arm["accuracy_anchor_before"]) == (0.5, 0.4 - 0.1)
    assert (arm["rollouts"], arm["steps"], arm["seconds"]) == (4 * 128, 4, 12.5)
    assert math.isclose(arm["grad_norm_cv"], math.sqrt(2 / 3) / 2)
    json.dumps(arm, allow_nan=False)


def test_facts_hold_and_each_can_fail() -> None:
    summary, _ = a_summary()
    assert [fact.holds for fact in figures.robust_facts(summary)] == [True] * 4
    summary["hit_rate"] = {"uniform": 0.71, "importance": 0.84}
    summary["arms"]["strive"]["dead_group_share"] = 0.71 * summary["arms"]["grpo_importance"]["dead_group_share"]
    summary["arms"]["strive"]["rollouts"] += 1
    assert [fact.holds for fact in figures.robust_facts(summary)] == [False] * 4


def test_the_table_shows_every_arm() -> None:
    summary, _ = a_summary()
    console = Console(width=200)
    with console.capture() as captured:
        console.print(figures.arms_table(summary))
    text = captured.get()
    assert all(title in text for title in figures.TITLES.values())
    assert "5120" in text and "0.470 -> 0.550" in text and "0.370 -> 0.450" in text


def test_smoothing_keeps_a_constant_and_leaves_gaps_out() -> None:
    assert np.array_equal(figures.smooth(np.full(9, 2.0), 5), np.full(9, 2.0))
    assert np.array_equal(figures.smooth(np.array([1.0, np.nan, 3.0]), 3), [1.0, 2.0, 3.0])
    assert np.isnan(figures.smooth(np.array([np.nan, np.nan]), 3)).all()


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    summary, runs = a_summary()
    runs["grpo_anchor"][5]["grad_norm"] = None
    file = tmp_path / "demo.png"
    figures.draw(summary, runs, 240, file)
    with Image.open(file) as picture:
        assert picture.width >= 1200 and picture.height >= 700
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert colours is not None and len(colours) > 100


def test_only_a_demos_own_folder_is_emptied(tmp_path: Path) -> None:
    mine, foreign = tmp_path / "demo", tmp_path / "thesis"
    demo.prepare(mine)
    (mine / "store").mkdir()
    demo.prepare(mine)
    assert [file.name for file in mine.iterdir()] == [demo.MARK]
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="not a demo's folder"):
        demo.prepare(foreign)
    assert (foreign / "thesis.tex").exists()


def test_the_funnel_adds_up() -> None:
    funnel = demo.selection_figures(
        {"pool": 10, "kept": 6, "dropped": {"all wrong": 3, "all right": 0, "no frames": 1}}
    )
    assert funnel == {"pool": 10, "kept": 6, "dropped": 4, "reasons": {"all wrong": 3, "no frames": 1}}


def test_every_arm_draws_as_many_rollouts() -> None:
    assert set(demo.VIEWS) == set(figures.ARMS)
    assert {views * (demo.POOL // views) for views, _ in demo.VIEWS.values()} == {demo.POOL}


def test_a_fact_that_fails_is_the_exit_code(tmp_path: Path) -> None:
    summary, _ = a_summary()
    assert demo.report(summary, tmp_path) == 0
    summary["hit_rate"]["importance"] = 0.5
    assert demo.report(summary, tmp_path) == 1


def test_a_command_that_fails_ends_the_demo() -> None:
    with pytest.raises(SystemExit) as ended:
        demo.command("python", "-c", "raise SystemExit(3)")
    assert ended.value.code == 3
    assert demo.command("python", "-c", "print('{\"kept\": 1}')", reads=True) == {"kept": 1}
