"""Faults that come from elsewhere: damaged files, and a server that hangs."""

import asyncio
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.fingerprint import seed_of
from pipeline.store import Store
from tests.endpoint_server import Asked, completion, serving
from tests.faults.cases import Case, moments
from tests.faults.tally import Tables, Tally, differences, tables_of
from tests.faults.work import MISTAKE
from tests.faults.world import World

WELL, WRONG = 0, 1


def truncated(file: Path, chance: random.Random) -> None:
    """The end is gone."""
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data))])


def flipped(file: Path, chance: random.Random) -> None:
    """One to eight bits are turned over."""
    data = bytearray(file.read_bytes())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def damaged(harm: Callable[[Path, random.Random], None]) -> Callable[[World, int, random.Random], Tally]:
    """A file of a finished store is harmed; `verify` has to say so if any row is not what it was. Then it is repaired,
    and all stages run again."""

    def storm(world: World, times: int, chance: random.Random) -> Tally:
        tally = Tally()
        expected = world.after("select")
        found_out = harmless = 0
        while not world.enough(tally, times):
            store = world.whole()
            tables = chance.choice(sorted({path.parent.parent for path in store.rglob("*.manifest")}))
            files = [p for part in ("data", "_versions", "_deletions") for p in sorted((tables / part).glob("*"))]
            file = chance.choice([path for path in files if path.stat().st_size])
            harm(file, chance)
            place = f"{file.relative_to(store).parent}"
            tally.tried += 1
            code = world.call("verify", str(store), str(world.videos))["codes"][0]
            if code not in (WELL, WRONG, MISTAKE):
                tally.wrong += 1
                tally.note(f"{place}: verify ended with {code}: {world.said(300)}")
            read = _read(world, store)
            if code == WELL:
                harmless += 1
                if read is None:
                    tally.wrong += 1
                    tally.note(f"{place}: verify finds nothing, and the store cannot be read")
                else:
                    tally.compare(read, expected)
            else:
                found_out += 1
            world.call("verify", str(store), str(world.videos), "--repair")
            again = world.call("everything", str(store), str(world.videos))["codes"]
            if again != [0]:
                tally.wrong += 1
                tally.note(f"{place}: after the repair the stages end with {again}: {world.said(300)}")
            elif (after := _read(world, store)) is None:
                tally.wrong += 1
                tally.note(f"{place}: after the repair the store cannot be read: {world.said(300)}")
            else:
                tally.compare(after, expected)
            shutil.rmtree(store)
        tally.remark = f"{found_out} found by `verify`, {harmless} without any effect"
        return tally

    return storm


def _read(world: World, store: Path) -> Tables | None:
    """All rows; None when they cannot be read."""
    file = world.place()
    if world.call("dump", str(store), str(file))["codes"] != [0]:
        return None
    found: Tables = pickle.loads(file.read_bytes())
    file.unlink()
    return found


def hanging(world: World, times: int, chance: random.Random) -> Tally:
    """A server that answers so many draws and then never again; the command ends, and another server does the rest."""
    tally = Tally()
    world.after("build_variants")

    def plan(answers: float) -> Any:
        async def answer(asked: Asked) -> Any:
            if asked.number >= answers:
                await asyncio.sleep(600)
            return completion(f"<answer>{'ABCD'[seed_of(asked.question, asked.seed) % 4]}</answer>", 3, [-0.5])

        return answer

    with ExitStack() as stack:
        works = stack.enter_context(serving(plan(float("inf")))).url
        whole = world.fresh("select")
        world.to_the_end("select_served", str(whole), str(world.videos), works)
        expected = tables_of(Store(whole))
        draws = len(expected["rollouts"])
        for share in moments(times, chance):
            if world.enough(tally, times):
                break
            store = world.fresh("select")
            with serving(plan(int(share * draws))) as server:
                found = world.call("select_served", str(store), str(world.videos), server.url)
            tally.tried += 1
            if found["codes"][0] not in (0, MISTAKE):
                tally.wrong += 1
                tally.note(f"it ended with {found['codes']}: {world.said(300)}")
            rows = Store(store).table("rollouts").to_pylist()
            _, doubled, wrong = differences("rollouts", rows, expected["rollouts"])
            tally.doubled, tally.wrong = tally.doubled + doubled, tally.wrong + wrong
            world.to_the_end("select_served", str(store), str(world.videos), works)
            tally.compare(tables_of(Store(store)), expected)
            shutil.rmtree(store)
    shutil.rmtree(whole)
    return tally


DAMAGE = (
    Case("a truncated Lance file", damaged(truncated)),
    Case("a bit-flipped Lance file", damaged(flipped)),
    Case("an endpoint that hangs", hanging),
)
