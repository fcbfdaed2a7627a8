"""The ledger filled from a server: what failed, and what a kill -9 cost, is drawn by the next run, and nothing else."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import runner
from pipeline.endpoint import endpoint_fingerprint, open_endpoint
from pipeline.endpoint.draws import EndpointPolicy
from pipeline.endpoint.wire import wire_seed
from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.ledger import DrawRollouts, Stop
from pipeline.probes import Sampling
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos
from tests.endpoint_server import Asked, completion, fault, serving

SAMPLES, DRAWS = 24, 4
ALL = SAMPLES * DRAWS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    samples = [a_sample(f"s{n:02}", "v1") for n in range(SAMPLES)]
    add_samples(store, samples)
    add_scores(store, {row["sample_id"]: np.linspace(0, 1, FRAMES) for row in samples})
    runner.run(BuildVariants(frames=2), store)
    return store


def stage_of(url: str, concurrency: int = 4, stop: Stop | None = None) -> DrawRollouts:
    def load(device: str) -> EndpointPolicy:
        return open_endpoint(url, concurrency=concurrency, timeout_s=5.0, retries=0)

    want: dict[str, list[float]] = {f"s{n:02}": [] for n in range(SAMPLES)}
    return DrawRollouts(load, endpoint_fingerprint(url), "anchor", Sampling(), want, DRAWS, stop)


async def answer(asked: Asked) -> Any:
    """What a model would: the same to the same question with the same seed."""
    letter = "ABCD"[seed_of(asked.question, asked.seed) % 4]
    return completion(f"<think> </think> <answer> {letter} </answer>", 9)


async def slowly(asked: Asked) -> Any:
    await asyncio.sleep(0.04)
    return await answer(asked)


def ledger(store: Store) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = store.table("rollouts").to_pylist()
    keyed = {(row["sample_id"], row["variant"], row["draw"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def drawn_at_once(store: Store) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The ledger as a server that always works fills it; emptied afterwards."""
    with serving(answer) as server:
        assert runner.run(stage_of(server.url), store).done == len(server.asked) == ALL
    rows = ledger(store)
    store.delete("rollouts", "true")
    return rows


def test_the_ledger_tells_what_was_asked_and_answered(store: Store) -> None:
    with serving(answer) as server:
        report = runner.run(stage_of(server.url), store)
        assert (report.done, report.failed, len(server.asked)) == (ALL, 0, ALL)
        assert runner.run(stage_of(server.url), store).to_do == 0
        assert len(server.asked) == ALL
    rows = ledger(store).values()
    assert {wire_seed(row["seed"]) for row in rows} == {asked.seed for asked in server.asked}
    assert all(row["logprob"] is None and row["tokens"] == 9 and row["parse_error"] == "" for row in rows)
    assert {row["accuracy"] for row in rows} == {0.0, 1.0}


def test_what_failed_in_passing_is_drawn_by_the_next_run_and_what_was_refused_is_not(store: Store) -> None:
    whole = drawn_at_once(store)

    async def moody(asked: Asked) -> Any:
        if asked.number % 5 == 1:
            return fault(500, "out of luck")
        return fault(400, "too long") if "s07" in asked.question else await answer(asked)

    with serving(moody) as server:
        report = runner.run(stage_of(server.url), store)
        left = ALL - report.done
        assert 0 < report.reasons["refused by the endpoint"] <= DRAWS
        assert report.reasons["the endpoint failed"] == ALL // 5
    with serving(answer) as server:
        report = runner.run(stage_of(server.url), store)
        assert report.quarantined > 0
        assert (report.to_do, len(server.asked)) == (left - report.quarantined, left - report.quarantined)
        report = runner.run(stage_of(server.url), store, retry_quarantined=True)
        assert (report.failed, len(server.asked)) == (0, left)
    assert ledger(store) == whole


@pytest.mark.parametrize("stop", [None, lambda task, rewards: False], ids=["at once", "in rounds"])
def test_a_server_that_dies_stops_the_run_and_keeps_every_finished_draw(store: Store, stop: Stop | None) -> None:
    whole = drawn_at_once(store)

    async def dies(asked: Asked) -> Any:
        return await answer(asked) if asked.number < 20 else fault(500, "dead")

    with serving(dies) as server, pytest.raises(UserError, match="in a row failed"):
        runner.run(stage_of(server.url, stop=stop), store)
    assert len(ledger(store)) == 20
    with serving(answer) as server:
        assert runner.run(stage_of(server.url), store).done == len(server.asked) == ALL - 20
    assert ledger(store) == whole


KILLED = """
import sys
from pipeline import runner
from pipeline.store import Store
from tests.test_endpoint_draws import stage_of
runner.run(stage_of(sys.argv[2], concurrency=2), Store(sys.argv[1]))
"""


def test_a_kill_costs_the_batch_in_flight_and_nothing_is_drawn_twice(store: Store) -> None:
    whole = drawn_at_once(store)
    with serving(slowly) as server:
        words = [sys.executable, "-c", KILLED, str(store.path), server.url]
        process = subprocess.Popen(words, cwd=Path(__file__).parent.parent)
        limit = time.monotonic() + 60
        while len(server.asked) < 0.75 * ALL and time.monotonic() < limit:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        kept = ledger(store)
        assert 0 < len(kept) < ALL
        before = len(server.asked)
        assert runner.run(stage_of(server.url), store).done == len(server.asked) - before == ALL - len(kept)
    assert ledger(store) == whole
    assert {key: whole[key] for key in kept} == kept
