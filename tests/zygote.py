"""Runs functions in forked processes and kills them at a chosen moment: a kill -9 without ten seconds of imports each.

A script: the first argument is a comma-separated list of modules to import before forking. Lance must not be among
them, since it does not survive a fork; the child imports it itself. Each line on stdin is a JSON list [module,
function, arguments, seconds]; the child calls function(*arguments) and is killed that many seconds after it has
imported the module (null: never). Each line on stdout is a JSON list [exit code or -signal, seconds it worked].
"""

import importlib
import json
import os
import select
import signal
import sys
import time


def child(module: str, function: str, arguments: list[object], ready: int) -> None:
    call = getattr(importlib.import_module(module), function)
    os.write(ready, b"r")
    call(*arguments)


def trial(module: str, function: str, arguments: list[object], seconds: float | None) -> tuple[int, float]:
    mine, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(mine)
        os.dup2(2, 1)  # stdout carries the answers
        code = 1
        try:
            child(module, function, arguments, theirs)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    os.read(mine, 1)
    begun = time.monotonic()
    if seconds is not None:
        select.select([mine], [], [], seconds)  # its end of the pipe closes when it is done before that
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(mine)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begun


if __name__ == "__main__":
    for name in filter(None, sys.argv[1].split(",")):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(trial(*json.loads(line))), flush=True)
