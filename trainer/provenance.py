"""What a run was computed with and from: run.json in its folder, a session for each start."""

import json
import platform
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.store import Store

FILE = "run.json"
LIBRARIES = ("strive-video", "torch", "transformers", "accelerate", "peft", "numpy", "pyarrow", "pylance")


def versions() -> dict[str, str | None]:
    """Version of Python and of each library that a run depends on; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder's repository, and whether files differ from it; None where there is none."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or not allowed to read it
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]  # the user's own git, on the folder of this file
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    return done.stdout.strip()


def dataset_state(store: Store, name: str, tag: str | None, rows: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """Which samples a run learns from: name, tag (of the newest version when none was asked for), fingerprint, count.

    Args:
        rows: the curated rows, each with its fingerprint.
    """
    chosen = tag or store.facts(name).get("tag")
    return {
        "name": name,
        "tag": chosen,
        "fingerprint": fingerprint("curated", sorted(row["fingerprint"] for row in rows)),
        "samples": len(rows),
    }


def record(out: Path, dataset: dict[str, Any], policy: dict[str, Any], step: int) -> None:
    """Note a start of the run at `step` in run.json: written aside, then renamed.

    A resumed run has to learn from the samples, and start from the policy, of the session before it.

    Args:
        dataset: of `dataset_state`. policy: name and fingerprint of the policy that the run started from; a
            fingerprint of None is that of the session before.

    Raises:
        UserError: the dataset or the policy holds something else than it did.
    """
    file = out / FILE
    sessions: list[dict[str, Any]] = []
    if step and file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        sessions = before["sessions"]
        _same(f"curated dataset {dataset['name']!r}", before["dataset"], dataset, "give the --tag that it was begun on")
        if policy["fingerprint"] is None:
            policy = before["policy"]
        _same(f"policy {policy['name']!r}", before["policy"], policy, "give the --policy that it was begun from")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    session = {"from_step": step, "at": now, "versions": versions(), "git": git_state(Path(__file__).parent)}
    content = {"dataset": dataset, "policy": policy, "sessions": [*sessions, session]}
    out.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(file)


def _same(what: str, before: dict[str, Any], now: dict[str, Any], next_command: str) -> None:
    if before["fingerprint"] != now["fingerprint"]:
        raise UserError(what, "is not what the run to resume was begun with", next_command)
