"""Drawing goes wrong: what is finished stays in the ledger, and the same command again draws the rest and no more."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.answerer import Refused, Request, Response
from pipeline.errors import UserError
from pipeline.fingerprint import seed_of
from pipeline.store import Store
from tests.curation_world import TASKS, RulePolicy, a_pool, choose

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = len(TASKS) * 4 * 3
BATCH = 4
CALLS = SAMPLES // BATCH  # of a policy, when all draws of a batch are asked for at once
MODES = [True, False]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[dict[str, Any]]]:
    """The ledgers of uninterrupted runs, adaptive and fixed."""
    ledgers = {}
    for adaptive in MODES:
        store = a_pool(tmp_path_factory.mktemp("whole") / "s")
        select(store, adaptive)
        ledgers[adaptive] = ledger(store)
    return ledgers


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_pool(tmp_path / "s")


def select(store: Store, adaptive: bool, load: Any = None, **asker: Any) -> None:
    chosen = {"load": load} if load else {}
    choose(store, asker={"adaptive": adaptive, "batch": BATCH, **chosen, **asker})


def ledger(store: Store) -> list[dict[str, Any]]:
    names = [("sample_id", "ascending"), ("variant", "ascending"), ("draw", "ascending")]
    return store.table("rollouts").sort_by(names).to_pylist()


class Failing(RulePolicy):
    """Answers so many calls; the next one fails."""

    def __init__(self, calls: int, fail: Callable[[], None]) -> None:
        self.left, self.fail = calls, fail

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        if not self.left:
            self.fail()
        self.left -= 1
        return super().answer(requests, temperature=temperature, max_tokens=max_tokens)


def crash() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def unreachable() -> None:
    raise UserError("http://127.0.0.1:9", "no server there", "start it")


def failing(calls: int, fail: Callable[[], None], device: str) -> Failing:
    return Failing(calls, fail)


@pytest.mark.parametrize("adaptive", MODES)
@pytest.mark.parametrize(("fail", "error"), [(crash, RuntimeError), (unreachable, UserError)])
@pytest.mark.parametrize("calls", [0, 1, 4, 7])
def test_every_finished_draw_is_kept_and_the_rest_is_drawn_by_the_next_run(
    store: Store,
    whole: dict[bool, list[dict[str, Any]]],
    adaptive: bool,
    fail: Callable[[], None],
    error: type[Exception],
    calls: int,
) -> None:
    with pytest.raises(error, match=r"illegal memory|no server"):
        select(store, adaptive, partial(failing, calls, fail))
    finished = RulePolicy.asked
    assert store.count("rollouts") == finished
    assert bool(finished) == bool(calls)
    assert store.count("quarantine") == 0
    assert store.curated_names() == []
    select(store, adaptive)
    assert RulePolicy.asked == len(whole[adaptive]) - finished
    assert ledger(store) == whole[adaptive]


class Dying(RulePolicy):
    """Takes its process along at its third call, once: the mark says that it has."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.calls = mark, 0

    def answer(self, requests: Sequence[Request], *, temperature: float, max_tokens: int) -> list[list[Response]]:
        self.calls += 1
        if self.calls == 3 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(requests, temperature=temperature, max_tokens=max_tokens)


def dying(mark: Path, device: str) -> Dying:
    return Dying(mark)


def test_a_worker_that_dies_is_replaced_and_the_ledger_is_the_same(
    store: Store, whole: dict[bool, list[dict[str, Any]]], tmp_path: Path
) -> None:
    select(store, False, partial(dying, tmp_path / "died"), workers=1)
    assert (tmp_path / "died").exists()
    assert ledger(store) == whole[False]


class Cursed(RulePolicy):
    """Takes its process along whenever it is asked about one sample."""

    def respond(self, request: Request, seed: int, temperature: float) -> Response:
        if seed == seed_of(0, "choice-half-0", 0, 3):
            os._exit(3)
        return super().respond(request, seed, temperature)


def cursed(device: str) -> Cursed:
    return Cursed()


def test_a_draw_that_kills_every_worker_is_quarantined_alone(
    store: Store, whole: dict[bool, list[dict[str, Any]]]
) -> None:
    select(store, False, cursed, workers=1)
    rows = store.table("quarantine").to_pylist()
    assert [(row["key"], row["reason"]) for row in rows] == [('["choice-half-0", 0, 3]', "worker died")]
    assert ledger(store) == [r for r in whole[False] if (r["sample_id"], r["draw"]) != ("choice-half-0", 3)]
    select(store, False)
    assert RulePolicy.asked == 0, "it stays left out until somebody wants it tried again"
    select(store, False, retry_quarantined=True)
    assert ledger(store) == whole[False]


class Refusing(RulePolicy):
    """Some draws cannot be had: of each sample the second for now, of one sample the first for good."""

    def answer(
        self, requests: Sequence[Request], *, temperature: float, max_tokens: int
    ) -> list[list[Response | Refused]]:
        good = super().answer(requests, temperature=temperature, max_tokens=max_tokens)
        found: list[list[Response | Refused]] = [list(responses) for responses in good]
        for request, responses in zip(requests, found, strict=True):
            for place, seed in enumerate(request.seeds):
                if seed in self.later:
                    responses[place] = Refused("server busy", "503 after 4 tries", passing=True)
                elif seed == self.never:
                    responses[place] = Refused("no text", "finish_reason is content_filter", passing=False)
        return found

    def __init__(self) -> None:
        self.later = {seed_of(0, f"{task}-half-{i}", 0, 1) for task in TASKS for i in range(3)}
        self.never = seed_of(0, "choice-sight-0", 0, 0)


def refusing(device: str) -> Refusing:
    return Refusing()


def test_what_passes_is_tried_again_unasked_and_what_does_not_only_when_wished(
    store: Store, whole: dict[bool, list[dict[str, Any]]]
) -> None:
    select(store, False, refusing)
    later = 3 * len(TASKS)
    assert store.count("rollouts") == len(whole[False]) - later - 1
    reasons = {row["sample_id"]: row["reason"] for row in store.verdicts("d").to_pylist()}
    assert reasons["choice-sight-0"] in ("", "undecided")
    select(store, False)
    assert RulePolicy.asked == later
    assert store.count("quarantine") == 1
    select(store, False, retry_quarantined=True)
    assert RulePolicy.asked == 1
    assert ledger(store) == whole[False]
    assert store.count("quarantine") == 0


class Verbose(RulePolicy):
    """Texts that compress to nothing less than themselves; long ones for the last task."""

    def respond(self, request: Request, seed: int, temperature: float) -> Response:
        short = super().respond(request, seed, temperature)
        noise = np.random.default_rng(seed).integers(33, 127, 4000 * (request.task == "grounding"), dtype=np.uint8)
        return Response(short.text + noise.tobytes().decode(), short.tokens, short.logprob)


def verbose(device: str) -> Verbose:
    return Verbose()


CHILD = """
import resource, signal, sys
import typer
from cli import output
from pipeline import runner
from pipeline.store import Store
from tests.test_drawing_failures import select, verbose

runner._COMMIT_S = (0.0, 0.0)  # a commit after every batch
app = typer.Typer()

@app.command()
def draw(path: str, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    select(Store(path), False, verbose)

output.run(app, "strive-data")
"""


def test_on_a_full_disk_the_ledger_keeps_what_was_committed(store: Store) -> None:
    """No file may grow beyond 64 KiB: the batches of the task with long answers cannot be committed."""
    words = [sys.executable, "-c", CHILD, str(store.path), str(1 << 16)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: store {store.path}: its disk takes no more (EFBIG)")
    assert "the same command again" in done.stderr and len(done.stderr.splitlines()) == 1
    before = ledger(store)
    assert {row["sample_id"].partition("-")[0] for row in before} == {"choice", "grounded_choice"}
    select(store, False, verbose)
    assert RulePolicy.asked == 8 * SAMPLES - len(before)
    after = ledger(store)
    assert [row for row in after if row["sample_id"].partition("-")[0] != "grounding"][: len(before)] == before
    store.delete("rollouts", "true")
    select(store, False, verbose)
    assert ledger(store) == after
