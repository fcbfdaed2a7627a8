"""The storm in short: each kind of fault a few times. All of it, thirty times each: `make storm`."""

import random
from collections.abc import Iterator

import pytest

from tests.faults.cases import OTHERS, Case
from tests.faults.storm import CASES, page
from tests.faults.tally import Tally, differences
from tests.faults.world import World, a_world

SHORT = {
    **dict.fromkeys((f"kill -9: {stage}" for stage in ("ingest", "cache-frames", "score-frames", "build-variants")), 2),
    **dict.fromkeys(("kill -9: select", "kill -9: training, run"), 2),
    **dict.fromkeys(("kill -9: training, sft", "kill -9: cache-frames --workers 2"), 1),
    "kill -9: training, within a checkpoint": 2,
    "a worker killed for memory: cache-frames": 1,
    **dict.fromkeys(("disk full: cache-frames", "disk full: score-frames"), 1),
    "read-only store: ingest": 1,
    "read-only store: build-variants": 2,
    "two writers: cache-frames": 1,
    "a truncated Lance file": 2,
    "a bit-flipped Lance file": 2,
    "an endpoint that hangs": 1,
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with a_world() as found:
        yield found


@pytest.mark.parametrize("name", list(SHORT))
def test_nothing_is_lost_doubled_or_wrong(world: World, name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    tally = case.storm(world, SHORT[name], random.Random(name))
    assert tally.tried
    assert tally.clean, tally


def test_every_difference_is_counted() -> None:
    """Were a row lost, doubled or wrong, the storm would see it."""
    rows = [{"video_id": video, "index": index, "time_s": index / 2} for video in "ab" for index in range(3)]
    assert differences("frames", rows, rows) == (0, 0, 0)
    assert differences("frames", rows[1:], rows) == (1, 0, 0)
    assert differences("frames", [*rows, rows[0]], rows) == (0, 1, 0)
    assert differences("frames", [rows[0] | {"time_s": 9.0}, *rows[1:]], rows) == (0, 0, 1)
    assert differences("frames", [*rows, rows[0] | {"index": 7}], rows) == (0, 0, 1)
    assert differences("frames", rows[:3], rows, partial=True) == (0, 0, 0), "a whole video may be missing"
    assert differences("frames", rows[:2], rows, partial=True) == (1, 0, 0), "a part of one may not"


def test_the_page_tells_what_is_not_zero() -> None:
    bad = Tally(tried=3, lost=2, doubled=1, wrong=4, notes=["frames in the end: 2 lost"])
    text = page([(OTHERS[0], bad), (Case("fire", OTHERS[0].storm), Tally(tried=5))], "storm", 61.0)
    assert f"| {OTHERS[0].name} | 3 | 2 | 1 | 4 |" in text and "| fire | 5 | 0 | 0 | 0 |" in text
    assert "| **all** | **8** | **2** | **1** | **4** |" in text
    assert "frames in the end: 2 lost" in text and "in 1 minutes" in text
