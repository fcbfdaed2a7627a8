"""One training run of the evidence with its evaluation: the commands, and whether they were done before."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.store import Store
from toyworld.reproduce.plan import STORE, Run, Scale
from toyworld.reproduce.work import Workplace, remove
from trainer.checkpoint import newest_whole
from trainer.config import MAY_CHANGE, RunConfig, Settings, SftConfig
from trainer.identity import policy_fingerprint
from trainer.loop import CONFIG_FILE, METRICS_FILE
from trainer.metrics import read_rows
from trainer.provenance import FILE, dataset_state

CHECKPOINTS = {"checkpoint_every": [20, 1]}
OPTIONS = frozenset(
    {
        *("dataset", "tag", "variants", "view", "responses", "groups", "steps", "seed", "temperature", "lr"),
        *("max_tokens", "reward", "advantage", "kl", "train_subset", "update_on", "two_wave", "refill"),
    }
)
"""Settings that have an option of their own; a flag is given when it is True. `sft` has none for groups."""


def begins(place: Workplace, run: Run) -> tuple[Path, Path]:
    """The store that a run learns from, and the policy that it starts from."""
    return place.out / run.arm.store, place.noisy_start if run.arm.blurred else place.start


def train_words(place: Workplace, run: Run, scale: Scale) -> list[str]:
    """The command of a run, as a user types it."""
    sft, (store, start) = run.arm.sft, begins(place, run)
    words = ["strive-train", "sft" if sft else "run", "--store", str(store), "--policy", str(start)]
    words += ["--out", str(place.run_folder(run.name))]
    for name, value in (run.settings(scale) | CHECKPOINTS).items():
        if value is None:
            continue
        if name not in OPTIONS or (sft and name == "groups"):
            words += ["--set", f"{name}={value}"]
        else:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def eval_words(place: Workplace, name: str, policy: Path, scale: Scale) -> list[str]:
    """The command that asks a policy all held-out questions, on the anchor and on an importance view."""
    words = ["strive-train", "eval", "--store", str(place.out / STORE), "--split", "test", "--view", "all"]
    words += ["--policy", str(policy), "--max-tokens", str(scale.max_tokens), "--batch", "32"]
    return [*words, "--out", str(place.eval_folder(name)), "--json"]


def expected(place: Workplace, run: Run, scale: Scale) -> Settings:
    """The resolved settings that a run has to have."""
    given = {name: value for name, value in (run.settings(scale) | CHECKPOINTS).items() if value is not None}
    kind, (store, start) = SftConfig if run.arm.sft else RunConfig, begins(place, run)
    found: Settings = kind.model_validate(
        {**given, "store": store, "policy": str(start), "out": place.run_folder(run.name)}
    )
    return found


def same_settings(wanted: Settings, file: Path) -> bool:
    """Whether config.json holds the settings that are wanted, those aside that a resumed run may change."""
    try:
        found = type(wanted).model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return False
    return all(getattr(found, n) == getattr(wanted, n) for n in type(wanted).model_fields if n not in MAY_CHANGE)


def same_inputs(place: Workplace, run: Run, folder: Path) -> bool:
    """Whether a run learnt from the dataset, and began from the policy, that are there now."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    (place_of, start), tag = begins(place, run), run.arm.tag(run.seed)
    store = Store(place_of)
    now = dataset_state(store, run.arm.dataset, tag, store.curated(run.arm.dataset, tag).to_pylist())
    same: bool = (told["dataset"]["fingerprint"], told["policy"]["fingerprint"]) == (
        now["fingerprint"],
        policy_fingerprint(start),
    )
    return same


def finished(folder: Path, steps: int) -> Path | None:
    """The checkpoint of a run that took all of its steps, else None."""
    newest = newest_whole(folder)
    if newest is None or newest.name != f"checkpoint-{steps:08d}":
        return None
    return newest if len(read_rows(folder / METRICS_FILE)) == steps else None


def do(place: Workplace, run: Run, scale: Scale) -> bool:
    """Train and evaluate, as far as that was not done before. Returns whether anything was to do.

    A run that was interrupted goes on from its newest checkpoint; a folder with other settings is emptied.

    Raises:
        UserError: a command failed, or left no checkpoint.
    """
    folder, wanted = place.run_folder(run.name), expected(place, run, scale)
    known = same_settings(wanted, folder / CONFIG_FILE) and same_inputs(place, run, folder)
    checkpoint = finished(folder, scale.steps) if known else None
    worked = checkpoint is None
    if checkpoint is None:
        resumes = known and newest_whole(folder) is not None
        if not resumes:
            remove(folder)
        place.command(run.name, [*train_words(place, run, scale), *(["--resume"] if resumes else []), "--json"])
        checkpoint = finished(folder, scale.steps)
        if checkpoint is None:
            raise UserError(str(folder), "holds no whole run", f"see {place.out / 'logs' / run.name}.log")
    return evaluate(place, run.name, checkpoint, scale) or worked


def evaluate(place: Workplace, name: str, policy: Path, scale: Scale) -> bool:
    """Ask a policy the held-out questions unless its answers are there. Returns whether anything was to do."""
    summary = place.eval_folder(name) / "summary.json"
    if summary.exists() and answered_by(summary) == policy_fingerprint(policy):
        return False
    remove(place.eval_folder(name))
    place.command(f"{name}-eval", eval_words(place, name, policy, scale))
    return True


def answered_by(summary: Path) -> str:
    """Fingerprint of the policy of an evaluation."""
    (found,) = json.loads(summary.read_text(encoding="utf-8"))["checkpoints"].values()
    fingerprint: str = found["policy"]
    return fingerprint


def answers(place: Workplace, name: str) -> list[dict[str, Any]]:
    """The graded answers of an evaluation, a row a sample and view."""
    (file,) = (place.eval_folder(name) / "predictions").glob("*.jsonl")
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def metrics(place: Workplace, run: Run) -> Sequence[Mapping[str, Any]]:
    """The rows of a run's steps."""
    return read_rows(place.run_folder(run.name) / METRICS_FILE)
