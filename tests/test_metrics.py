"""The metrics file survives kills and resumes; the figures of a step's pools; the figures of an evaluation."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.groups import wilson
from pipeline.rewards import Reward
from trainer.grading import Graded, metrics, recall_at, report
from trainer.metrics import MetricsLog, pool_metrics, read_rows


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(file) as log:
        log.write({"loss": 0.5, "step": 1, "seconds": {"rollout": 0.1}})
        assert read_rows(file) == [{"step": 1, "loss": 0.5, "seconds": {"rollout": 0.1}}]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with MetricsLog(file) as log:
        log.write({"step": 1, "grad_norm": float("nan"), "seconds": {"update": float("inf")}, "between_share": None})
    assert read_rows(file) == [{"step": 1, "grad_norm": None, "seconds": {"update": None}, "between_share": None}]
    assert pl.read_ndjson(file).height == 1


def test_a_torn_last_line_is_dropped_when_the_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert [row["step"] for row in read_rows(file)] == [1]
    with MetricsLog(file, steps_done=1) as log:
        log.write({"step": 2, "loss": 0.9})
    assert [row["loss"] for row in read_rows(file)] == [1.0, 0.9]


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with MetricsLog(file) as log:
        for step in range(1, 8):
            log.write({"step": step, "run": "first"})
    with MetricsLog(file, steps_done=4) as log:
        for step in range(5, 8):
            log.write({"step": step, "run": "second"})
    assert [row["step"] for row in read_rows(file)] == list(range(1, 8))
    assert [row["run"] for row in read_rows(file)] == ["first"] * 4 + ["second"] * 3


def test_a_broken_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        MetricsLog(file, steps_done=3)


def test_a_kill_loses_no_row_that_was_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    writer = (
        "import sys; from pathlib import Path; from trainer.metrics import MetricsLog\n"
        "log = MetricsLog(Path(sys.argv[1]))\n"
        "for step in range(1, 10**9):\n"
        "    log.write({'step': step, 'loss': 1 / step}); print(step, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    reported = 50 + len(process.stdout.read().split("\n")[:-1])
    process.wait()
    assert [row["step"] for row in read_rows(file)][:reported] == list(range(1, reported + 1))


def test_pool_metrics_values() -> None:
    pools = [
        np.array([[1.0, 1.0], [0.0, 0.0]]),  # all of the variance lies between the views
        np.array([[1.0, 0.0], [0.0, 1.0]]),  # none of it does
        np.full((2, 2), 0.9, dtype=np.float32),  # dead
        np.zeros((2, 2)),  # dead
    ]
    found = pool_metrics(pools)
    assert found["reward_mean"] == pytest.approx((0.5 + 0.5 + 0.9 + 0.0) / 4, abs=1e-7)
    assert found["reward_std"] == 0.25
    assert found["dead_group_share"] == 0.5
    assert found["between_share"] == 0.5


def test_without_a_live_pool_there_is_no_between_share() -> None:
    assert pool_metrics([np.ones((1, 4))]) == {
        "reward_mean": 1.0,
        "reward_std": 0.0,
        "dead_group_share": 1.0,
        "between_share": None,
    }


def test_pool_metrics_need_a_pool() -> None:
    with pytest.raises(ValueError, match="at least one pool"):
        pool_metrics([])


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_stays_in_bounds(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= high <= 1.0
    if trials:
        assert low <= successes / trials <= high
        assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_values() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


def test_recall_counts_an_iou_at_the_threshold() -> None:
    assert recall_at([0.3, 0.29, 1.0, 0.0], 0.3) == 0.5
    with pytest.raises(ValueError, match="no predictions"):
        recall_at([], 0.5)


def graded_choice(right: float, kept: float, error: str = "") -> Reward:
    return Reward(right, None, None, None, format=kept, reward=right, total=right, parse_error=error)


def test_the_report_of_an_evaluation() -> None:
    right, wrong = graded_choice(1.0, 1.0), graded_choice(0.0, 1.0)
    lost = graded_choice(0.0, 0.0, "no answer")
    span = Reward(None, None, 0.6, 0.5, format=1.0, reward=0.6, total=0.6, parse_error="")
    missed = Reward(None, None, 0.0, 0.0, format=0.0, reward=0.0, total=0.0, parse_error="no span")
    near = Reward(0.0, 0.4, None, None, format=1.0, reward=0.0, total=0.0, parse_error="")
    found = report(
        [
            Graded("choice", "anchor", right),
            Graded("choice", "anchor", wrong),
            Graded("choice", "importance", right),
            Graded("choice", "importance", lost),
            Graded("grounding", "anchor", span),
            Graded("grounding", "importance", missed),
        ]
    )
    numbers = metrics([near, Reward(1.0, 1.0, None, None, format=1.0, reward=1.0, total=1.0, parse_error="")])
    assert (numbers["accuracy"], numbers["credit"], numbers["credit_n"]) == (0.5, 0.7, 2)
    assert "credit" not in found["all"]
    assert found["all"]["n"] == 6
    assert found["all"]["accuracy"] == 0.5
    assert found["all"]["accuracy_n"] == 4
    assert found["all"]["unparseable"] == 2
    assert found["all"]["format_rate"] == pytest.approx(4 / 6)
    assert found["by_task"]["grounding"]["miou"] == 0.3
    assert found["by_task"]["grounding"]["r1@0.5"] == 0.5
    assert found["by_task"]["grounding"]["r1@0.7"] == 0.0
    assert "accuracy" not in found["by_task"]["grounding"]
    assert "miou" not in found["by_task"]["choice"]
    assert found["by_view"]["anchor"]["n"] == 3
    assert found["by_task_and_view"]["choice/importance"]["accuracy"] == 0.5
    json.dumps(found, allow_nan=False)
    assert metrics([]) == {"n": 0}
