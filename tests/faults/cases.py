"""The faults of the storm: each is let loose so many times, and what it came to is counted."""

import math
import random
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.store import Store
from tests.faults.tally import Tally, check_checkpoints, compare_runs, tables_of
from tests.faults.work import MISTAKE
from tests.faults.world import STAGES, World

TRIES = 4  # times `times`: trials that may miss, because the work ended before its moment came
CREW = {"ingest": 2, "cache_frames": 2, "score_frames": 1, "build_variants": 2, "select": 1}
WRITES = dict(zip(CREW, ("samples", "frames", "frame_scores", "variants", "rollouts"), strict=True))


@dataclass(frozen=True)
class Case:
    """A fault: its name, and what lets it loose `times` times."""

    name: str
    storm: Callable[[World, int, random.Random], Tally]


def moments(times: int, chance: random.Random) -> list[float]:
    """Moments of a work, as shares of its length: one in each of `times` equal parts, in random order; then more."""
    first = [(place + chance.random()) / times for place in range(times)]
    chance.shuffle(first)
    return first + [chance.random() for _ in range((TRIES - 1) * times)]


def finish(world: World, tally: Tally, store: Path, stage: str, function: str, *more: Any) -> None:
    """What holds right after a fault, and what the same command makes of it."""
    expected = world.after(stage)
    tally.compare(tables_of(Store(store)), expected | _empty(expected), partial=True)
    found = world.call(function, str(store), str(world.videos), *more)
    if found["codes"] != [0]:
        tally.wrong += 1
        tally.note(f"the same command again ended with {found['codes']}: {world.said(300)}")
    tally.compare(tables_of(Store(store)), expected)
    if unnamed := files_of_nobody(Store(store), WRITES[stage]):
        tally.note(f"{unnamed} files that no version names")
        tally.wrong += 1
    shutil.rmtree(store)


def _empty(expected: dict[str, Any]) -> dict[str, Any]:
    """Datasets that are not there yet are compared with nothing."""
    return {name: expected.get(name, []) for name in ("curated/default", "verdicts/default")}


def files_of_nobody(store: Store, table: str) -> int:
    """Data files that stay when a table is tidied, although no version names them."""
    store.tidy(table, reclaim=True)
    snapshot, column = store.snapshot(table), store.table(table).column_names[0]
    fragments = set((snapshot.addresses() >> 32).tolist())
    named = {snapshot.pages(fragment, column)[0] for fragment in fragments}
    return len(set((store.table_path(table) / "data").iterdir()) - named) if fragments else 0


def kills(stage: str, workers: bool, fault: str = "kill") -> Callable[[World, int, random.Random], Tally]:
    """kill -9 of a command, or of one of its workers, at random moments of its work."""
    more = (CREW[stage],) if workers else ()

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        world.after(stage)
        seconds = world.seconds(stage, *more)
        for moment in moments(times, chance):
            if world.enough(tally, times):
                break
            store = world.fresh(stage)
            how = {"fault": fault, "seconds": seconds * moment, "pick": chance.randrange(9)}
            found = world.call(stage, str(store), str(world.videos), *more, **how)
            tally.tried += found["hit"]
            if not found["hit"] or fault == "worker":
                if found["codes"] != [0]:
                    tally.wrong += 1
                    tally.note(f"it ended with {found['codes']}: {world.said(300)}")
                else:
                    tally.compare(tables_of(Store(store)), world.after(stage))
                seconds = found["seconds"] if not found["hit"] else seconds
            if found["hit"]:
                finish(world, tally, store, stage, stage, *more)
            else:
                shutil.rmtree(store)
        return tally

    return storm


def ray_actor(world: World, times: int, chance: random.Random) -> Tally:
    """SIGKILL of an actor of a local Ray cluster."""
    tally = Tally()
    expected = world.after("cache_frames")
    for moment in moments(times, chance):
        if world.enough(tally, times):
            break
        store = world.fresh("cache_frames")
        how = {"fault": "worker", "appear": True, "seconds": moment, "pick": chance.randrange(9)}
        found = world.call("cache_frames_on_ray", str(store), str(world.videos), **how)
        tally.tried += found["hit"]
        if found["codes"] != [0]:
            tally.wrong += 1
            tally.note(f"it ended with {found['codes']}: {world.said(300)}")
        else:
            tally.compare(tables_of(Store(store)), expected)
        finish(world, tally, store, "cache_frames", "cache_frames")
    return tally


def full_disk(stage: str) -> Callable[[World, int, random.Random], Tally]:
    """No file may grow beyond a size, drawn between a few bytes and the largest file that the stage writes."""

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        world.after(stage)
        before = world.fresh(stage)
        done = world.fresh(stage)
        world.to_the_end(stage, str(done), str(world.videos))
        old = {path.relative_to(before) for path in before.rglob("*")}
        sizes = [p.stat().st_size for p in done.rglob("*") if p.is_file() and p.relative_to(done) not in old]
        low, high = math.log(64), math.log(max(sizes))
        shutil.rmtree(before)
        shutil.rmtree(done)
        for share in moments(times, chance):
            if world.enough(tally, times):
                break
            store = world.fresh(stage)
            most = int(math.exp(low + share * (high - low)))
            found = world.call(stage, str(store), str(world.videos), most=most)
            if found["codes"] == [0]:
                shutil.rmtree(store)
                continue
            tally.tried += 1
            _refused(world, tally, found)
            finish(world, tally, store, stage, stage)
        return tally

    return storm


def read_only(stage: str) -> Callable[[World, int, random.Random], Tally]:
    """A store that may be read and not written, as a whole or one table of it."""

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        world.after(stage)
        for number in range(times):
            if world.enough(tally, times):
                break
            store = world.fresh(stage)
            tables = sorted(store.glob("*.lance"))
            part = chance.choice(tables) if number % 2 and tables else store
            _allow(part, False)
            found = world.call(stage, str(store), str(world.videos), weak=True)
            _allow(part, True)
            if found["codes"] == [0]:  # of a table that the stage only reads
                tally.compare(tables_of(Store(store)), world.after(stage))
            else:
                _refused(world, tally, found)
            tally.tried += 1
            finish(world, tally, store, stage, stage)
        return tally

    return storm


def _allow(place: Path, writing: bool) -> None:
    for path in [place, *place.rglob("*")]:
        mode = path.stat().st_mode
        bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
        path.chmod(mode | stat.S_IWUSR if writing else mode & ~bits)


def _refused(world: World, tally: Tally, found: dict[str, Any]) -> None:
    """A command that could not write ends with one line of error."""
    if found["codes"] != [MISTAKE]:
        tally.wrong += 1
        tally.note(f"no plain error but exit code {found['codes']}: {world.said(300)}")


def two_writers(stage: str) -> Callable[[World, int, random.Random], Tally]:
    """The same command twice at once on one store: one works, the other is refused or comes after it."""

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        world.after(stage)
        seconds = world.seconds(stage)
        for moment in moments(times, chance):
            if world.enough(tally, times):
                break
            store = world.fresh(stage)
            how = {"fault": "twin", "seconds": 0.8 * seconds * moment}
            found = world.call(stage, str(store), str(world.videos), **how)
            tally.tried += found["hit"]
            if 0 not in found["codes"] or not set(found["codes"]) <= {0, MISTAKE}:
                tally.wrong += 1
                tally.note(f"they ended with {found['codes']}: {world.said(300)}")
            finish(world, tally, store, stage, stage)
        return tally

    return storm


def killed_training(function: str) -> Callable[[World, int, random.Random], Tally]:
    """kill -9 of a training at random moments: each goes on from its newest checkpoint."""

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        straight = world.place()
        seconds = world.to_the_end(function, str(world.toy), str(straight))
        for moment in moments(times, chance):
            if world.enough(tally, times):
                break
            out = world.place()
            found = world.call(function, str(world.toy), str(out), fault="kill", seconds=seconds * moment)
            tally.tried += found["hit"]
            _go_on(world, tally, function, out, straight)
        shutil.rmtree(straight)
        return tally

    return storm


def killed_checkpoint(world: World, times: int, chance: random.Random) -> Tally:
    """kill -9 within a checkpoint: before its state is written, before it is on disk, before it is renamed."""
    tally = Tally()
    straight = world.place()
    world.to_the_end("train_run", str(world.toy), str(straight))
    for number in range(times):
        if world.enough(tally, times):
            break
        out = world.place()
        name = ("_save_state", "_sync", "_sync_one")[number % 3]
        call = str(chance.randint(1, 3 if name != "_sync_one" else 30))
        found = world.call("train_run_dying", str(world.toy), str(out), name, call)
        if found["codes"] != [-9]:
            tally.wrong += 1
            tally.note(f"it ended with {found['codes']}: {world.said(300)}")
        tally.tried += 1
        _go_on(world, tally, "train_run", out, straight)
    shutil.rmtree(straight)
    return tally


def full_disk_training(world: World, times: int, chance: random.Random) -> Tally:
    """Training with files that may not grow beyond a size."""
    tally = Tally()
    straight = world.place()
    world.to_the_end("train_run", str(world.toy), str(straight))
    largest = max(path.stat().st_size for path in straight.rglob("*") if path.is_file())
    for share in moments(times, chance):
        if world.enough(tally, times):
            break
        out = world.place()
        found = world.call("train_run", str(world.toy), str(out), most=int(64 + share * 0.95 * largest))
        tally.tried += 1
        _refused(world, tally, found)
        _go_on(world, tally, "train_run", out, straight)
    shutil.rmtree(straight)
    return tally


def _go_on(world: World, tally: Tally, function: str, out: Path, straight: Path) -> None:
    check_checkpoints(tally, out)
    found = world.call(function, str(world.toy), str(out))
    if found["codes"] != [0]:
        tally.wrong += 1
        tally.note(f"--resume ended with {found['codes']}: {world.said(300)}")
    compare_runs(tally, out, straight)
    shutil.rmtree(out, ignore_errors=True)


def spoken(stage: str) -> str:
    return stage.replace("_", "-")


KILLS = (
    *(Case(f"kill -9: {spoken(stage)}", kills(stage, False)) for stage in STAGES),
    Case("kill -9: training, run", killed_training("train_run")),
    Case("kill -9: training, sft", killed_training("train_sft")),
    Case("kill -9: training, within a checkpoint", killed_checkpoint),
)
OTHERS = (
    *(Case(f"disk full: {spoken(stage)}", full_disk(stage)) for stage in STAGES),
    Case("disk full: training", full_disk_training),
    *(Case(f"read-only store: {spoken(stage)}", read_only(stage)) for stage in STAGES),
    *(Case(f"two writers: {spoken(stage)}", two_writers(stage)) for stage in STAGES),
)
WORKERS = (
    *(Case(f"kill -9: {spoken(stage)} --workers {CREW[stage]}", kills(stage, True)) for stage in STAGES),
    *(Case(f"a worker killed for memory: {spoken(stage)}", kills(stage, True, "worker")) for stage in STAGES),
    Case("a Ray worker killed: cache-frames --engine ray", ray_actor),
)
