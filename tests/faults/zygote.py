"""Runs functions in forked processes and disturbs them: a kill -9 without ten seconds of imports each.

A script: the first argument is a comma-separated list of modules to import before forking. Lance must not be among
them, since it does not survive a fork; the child imports it itself. Each line on stdin is a JSON object:

    module, function, arguments   what the child calls
    fault                         "" nothing; "kill": the child is killed; "worker": one of the processes that it has
                                  started is; "twin": a second child does the same, so many seconds later
    seconds                       when, counted from when the child has imported its module
    pick                          which worker, counted by process number
    appear                        the seconds are counted from when there is a worker
    most                          bytes that a file may grow to (null: no limit), for the child and its workers
    weak                          the child may not write where permissions forbid it, although root may

Each line on stdout is a JSON object: codes (exit code or -signal, of each child), seconds that it worked, hit (whether
the fault took place). A child has a session of its own; the answer comes when all of its processes are gone.
"""

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from typing import Any

PATIENCE_S = 300.0
ORPHANS_S = 60.0
_DROP_BOUND, _CAPSET_VERSION, _OVERRIDES = 24, 0x20080522, (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def weaken() -> None:
    """Take from this process, and from what it starts, the right of root to pass over permissions."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _OVERRIDES:
        libc.prctl(_DROP_BOUND, capability, 0, 0, 0)
    head, data = (ctypes.c_uint32 * 2)(_CAPSET_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(head, data):
        raise OSError(ctypes.get_errno(), "capget")
    for place in (0, 1):  # effective, permitted
        for capability in _OVERRIDES:
            data[place] &= ~(1 << capability)
    if libc.capset(head, data):
        raise OSError(ctypes.get_errno(), "capset")


class Child:
    """A forked process that has imported its module and works. Its pipe closes when it ends."""

    def __init__(self, asked: dict[str, Any], gate: int = -1) -> None:
        """`gate`: the end of a pipe; the work begins when a byte comes out of it. Default: at once."""
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _work(asked, self.pipe, theirs, gate)
        os.close(theirs)
        os.read(self.pipe, 1)  # it is ready
        self.begun = time.monotonic()

    def ended(self, seconds: float) -> bool:
        """Wait until it ends, for so long at most; whether it has."""
        return bool(select.select([self.pipe], [], [], max(0.0, seconds))[0])

    def kill(self) -> bool:
        """Kill it; False when it has ended before."""
        if self.ended(0.0):
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True

    def close(self) -> tuple[int, float]:
        """Wait until it and all that it has started are gone; exit code or -signal, and the seconds that it worked."""
        if not self.ended(PATIENCE_S):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        worked = time.monotonic() - self.begun
        os.close(self.pipe)
        limit = time.monotonic() + ORPHANS_S
        while left := members(self.pid):
            if time.monotonic() > limit:
                raise RuntimeError(f"processes {left} outlive the one that started them")
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(status), worked


def _work(asked: dict[str, Any], pipe: int, ready: int, gate: int) -> None:
    """The child's life."""
    code = 1
    try:
        os.setsid()
        os.close(pipe)
        os.dup2(2, 1)  # stdout carries the answers
        call = getattr(importlib.import_module(asked["module"]), asked["function"])
        if asked.get("most") is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["most"], asked["most"]))
        if asked.get("weak"):
            weaken()
        os.write(ready, b"r")
        if gate >= 0:
            os.read(gate, 1)
        call(*asked["arguments"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def members(session: int) -> list[int]:
    """Processes of a session that are alive, its leader aside."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, _, _, its_session = file.read().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it ended while we looked
            continue
        if int(its_session) == session and state not in "ZX" and int(name) != session:
            found.append(int(name))
    return sorted(found)


def workers(leader: int) -> list[int]:
    """What a process has spawned by multiprocessing, and actors of the Ray cluster that it has started."""
    parents, words = {}, {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as command:
                words[int(name)] = command.read()
        except (OSError, ValueError):  # it ended while we looked
            continue
    found = []
    for pid, said in words.items():
        above = pid
        while above and above != leader:
            above = parents.get(above, 0)
        actor = said.startswith(b"ray::_Remote")  # Ray's own agents are called ray:: too
        if above == leader and (actor or b"spawn_main" in said):
            found.append(pid)
    return sorted(found)


def trial(asked: dict[str, Any]) -> dict[str, Any]:
    """What the answer says, see above."""
    fault, seconds = asked.get("fault", ""), asked.get("seconds") or 0.0
    if fault == "twin":
        return twins(asked, seconds)
    child, hit = Child(asked), False
    while asked.get("appear") and not workers(child.pid) and not child.ended(0.02):
        pass
    if fault and not child.ended(seconds):
        if fault == "kill":
            hit = child.kill()
        elif fault == "worker":
            found = workers(child.pid)
            if found:
                os.kill(found[asked.get("pick", 0) % len(found)], signal.SIGKILL)
                hit = True
    code, worked = child.close()
    return {"codes": [code], "seconds": worked, "hit": hit}


def twins(asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Two children that do the same, the second so many seconds later; `hit`: the first had not ended by then."""
    gate, opener = os.pipe()
    first, second = Child(asked, gate), Child(asked, gate)  # which of the two reads first does not matter
    os.write(opener, b"g")
    done = first.ended(seconds) or second.ended(0.0)
    os.write(opener, b"g")
    ends = [first.close(), second.close()]
    os.close(gate)
    os.close(opener)
    return {"codes": [code for code, _ in ends], "seconds": max(worked for _, worked in ends), "hit": not done}


if __name__ == "__main__":
    for name in filter(None, sys.argv[1].split(",")):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(trial(json.loads(line))), flush=True)
