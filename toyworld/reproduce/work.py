"""Doing the work: commands of a real user, some side by side; what was done before is recognised and not repeated."""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint

SIDE_BY_SIDE = 2
STEADY = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""One thread a process: sums in another order are other figures, and two processes fill two cores."""


class CommandError(UserError):
    """A command that did not do what it was asked for; its log tells why."""


class Workplace:
    """The folder that everything is written to, held by one program at a time.

    Layout: the stores of `toyworld.reproduce.prepare.STORES`, start and noisy-start (policies), runs/<name>,
    eval/<name>, logs, prepared/<name>.json.

    Args:
        within: does a command in this process and returns what it prints, instead of starting one; then one at a time.
    """

    def __init__(self, out: Path, within: Callable[[Sequence[str]], str] | None = None) -> None:
        self.out, self.within = out, within
        self.width = 1 if within else SIDE_BY_SIDE
        self.start, self.noisy_start = out / "start", out / "noisy-start"
        self.lock_fd = -1
        self._stop = Event()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._mutex = Lock()

    def run_folder(self, name: str) -> Path:
        return self.out / "runs" / name

    def eval_folder(self, name: str) -> Path:
        return self.out / "eval" / name

    @contextmanager
    def held(self, scale: Mapping[str, Any]) -> Iterator[None]:
        """Keep others out, also those that start while a command of a killed program still runs.

        The lock goes by an open file that every command inherits.

        Raises:
            UserError: another program works there, or the folder holds something else, or work of another scale.
        """
        mark = self.out / "scale.json"
        if self.out.exists() and not mark.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"--out {self.out}", "is no folder of this program", "name a new one")
        self.out.mkdir(parents=True, exist_ok=True)
        self.lock_fd = os.open(self.out / "lock", os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"--out {self.out}", "a program works there, or a command of one that was killed", "wait a little"
                ) from None
            text = json.dumps(dict(scale), indent=2) + "\n"
            if mark.exists() and mark.read_text(encoding="utf-8") != text:
                raise UserError(f"--out {self.out}", "was begun at another scale", "name a new one")
            mark.write_text(text, encoding="utf-8")
            yield
        finally:
            os.close(self.lock_fd)

    def command(self, name: str, words: Sequence[str]) -> dict[str, Any]:
        """Run a command of this environment and read the JSON object that it prints.

        Args:
            name: of its log, below logs. words: as a user types them.

        Raises:
            CommandError: its exit code is not 0, or another command failed before.
        """
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as told:
            told.write(f"$ {shlex.join(words)}\n".encode())
            told.flush()
            printed = self.within(words) if self.within else self._spawned(words, told)
            told.write(printed.encode())
        return json.loads(printed) if printed.strip() else {}

    def _spawned(self, words: Sequence[str], told: IO[bytes]) -> str:
        at = Path(sys.executable).parent
        program = [sys.executable, *words[1:]] if words[0] == "python" else [str(at / words[0]), *words[1:]]
        with self._mutex:
            if self._stop.is_set():
                raise CommandError(shlex.join(words), "was not begun, since another failed", "see the message above")
            child = subprocess.Popen(  # noqa: S603 - the program's own words
                program, stdout=subprocess.PIPE, stderr=told, env={**os.environ, **STEADY}, pass_fds=[self.lock_fd]
            )
            self._children.add(child)
        printed, _ = child.communicate()
        with self._mutex:
            self._children.discard(child)
        if child.returncode:
            raise CommandError(shlex.join(words), f"ended with exit code {child.returncode}", f"see {told.name}")
        return printed.decode()

    def stop(self) -> None:
        """End what runs: runs save a checkpoint first. Nothing new begins."""
        with self._mutex:
            self._stop.set()
            for child in self._children:
                child.send_signal(signal.SIGTERM)


def side_by_side(place: Workplace, jobs: Sequence[Callable[[], None]]) -> None:
    """Do all jobs, some at a time, in order. When one fails the others are stopped and its error is raised."""
    with ThreadPoolExecutor(place.width) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if any(future.done() and future.exception() for future in futures) or not all(f.done() for f in futures):
                place.stop()
                for future in futures:
                    future.cancel()
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, CommandError)), errors[0])


class Prepared:
    """Commands that were done once, with what they printed. A changed command makes it and all later ones due again.

    Args:
        name: of its file and log. after: what they build on; when those commands are others than before, all are due.
    """

    def __init__(self, place: Workplace, name: str, after: Sequence["Prepared"] = ()) -> None:
        self.place, self.name = place, name
        self.file = place.out / "prepared" / f"{name}.json"
        self.after = fingerprint([each["words"] for one in after for each in one.done])
        told = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.before: list[dict[str, Any]] = told["done"] if told.get("after") == self.after else []
        self.done: list[dict[str, Any]] = []

    def once(self, *words: str) -> dict[str, Any]:
        """What a command printed, now or before."""
        turn = len(self.done)
        known = self.before[turn] if turn < len(self.before) else None
        if known is None or known["words"] != list(words):
            self.before = []
            began = time.monotonic()
            found = self.place.command(self.name, words)
            known = {"words": list(words), "found": found, "seconds": round(time.monotonic() - began, 1)}
        self.done.append(known)
        if not self.before:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            aside = self.file.with_suffix(".tmp")
            aside.write_text(json.dumps({"after": self.after, "done": self.done}, indent=2) + "\n", encoding="utf-8")
            aside.replace(self.file)
        found = dict(known["found"])
        return found


class Progress:
    """Lines that say what is done, and about how long the rest takes."""

    def __init__(self, total: int, say: Callable[[str], None] = print) -> None:
        self.total, self.say = total, say
        self.began, self.done, self.worked = time.monotonic(), 0, 0
        self._mutex = Lock()

    def step(self, text: str, worked: bool) -> None:
        """One of the things is done. worked: now, not in an earlier call."""
        with self._mutex:
            self.done += 1
            self.worked += worked
            left = (self.total - self.done) * (time.monotonic() - self.began) / max(1, self.worked)
            rest = f"; about {left / 60:.0f} min left" if self.worked and self.done < self.total else ""
            self.say(f"[{self.done:3d}/{self.total}] {text}{rest}")


def remove(folder: Path) -> None:
    """Remove a folder of an earlier call that holds something else than is wanted now."""
    if folder.exists():
        shutil.rmtree(folder)
