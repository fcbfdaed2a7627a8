"""The demo: types the commands of a real user on the toy world, and shows what they came to.

    python -m toyworld.demo --out demo

Leaves OUT/summary.json, OUT/demo.png, the store in OUT/store and the trained policies in OUT/runs.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.store import Store
from toyworld.demo_figures import ARMS, TITLES, arm_figures, arms_table, draw, hit_rates, robust_facts
from trainer.metrics import read_rows

# What decides how long the demo takes. Rollouts and steps are the same for every arm.
SEED = 0
TRAIN_CLIPS = 96
TEST_CLIPS = 40
FPS = 4
MIN_VAR = 0.1
STEPS = 40
GROUPS = 8  # questions a step
POOL = 16  # rollouts a question: POOL = views x responses
VIEWS = {
    "grpo_anchor": (1, ["--view", "anchor"]),
    "grpo_importance": (1, ["--view", "importance"]),
    "strive": (4, []),
}
TEMPERATURE = 0.8
LEARNING_RATE = 1e-4
MAX_TOKENS = 48  # the toy policy's answers are shorter

DATASET = "toyworld"
MARK = ".strive-demo"  # written into the folder first, so that only a demo's own folder is ever emptied

# Piped output has no width of its own; commands and tables keep their lines there.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m toyworld.demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder that the demo writes to; emptied first")
    out: Path = parser.parse_args().out
    started = time.monotonic()
    prepare(out)
    store = out / "store"

    say("Questions and videos go in")
    at = ["--store", str(store)]
    strive_data("ingest", *at, "--split", "train", "--clips", str(TRAIN_CLIPS))
    strive_data("ingest", *at, "--split", "test", "--clips", str(TEST_CLIPS))
    strive_data("cache-frames", *at, "--fps", str(FPS))
    strive_data("score-frames", *at)
    strive_data("build-variants", *at)
    selection = selection_figures(
        strive_data(
            "select", *at, "--name", DATASET, "--split", "train", "--min-var", str(MIN_VAR), "--json", reads=True
        )
    )
    console.print(f"kept {selection['kept']} of {selection['pool']}; dropped: {selection['reasons']}")
    columns = "task,question,answer,reward_mean,reward_var"
    strive_data("inspect", f"curated:{DATASET}", *at, "--columns", columns, "--limit", "5")

    say("Three policies are trained, with the same number of rollouts and steps")
    before = evaluate(store)
    arms: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in ARMS:
        seconds, checkpoint = train(name, store, out / "runs" / name)
        after = evaluate(store, "--policy", checkpoint)
        runs[name] = read_rows(out / "runs" / name / "metrics.jsonl")
        arms[name] = arm = arm_figures(runs[name], before, after, seconds)
        console.print(f"{TITLES[name]}: reward std {arm['reward_std']:.3f}, dead groups {arm['dead_group_share']:.1%}")

    opened = Store(store)
    summary = {
        "hit_rate": hit_rates(
            opened.table("samples", ["sample_id", "origin"]).to_pylist(),
            opened.table("variants", ["sample_id", "variant", "times"]).to_pylist(),
        ),
        "selection": selection,
        "arms": arms,
        "seconds_total": time.monotonic() - started,
    }
    draw(summary, runs, before["by_view"]["importance"]["accuracy_n"], out / "demo.png")
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return report(summary, out)


def prepare(out: Path) -> None:
    """An empty folder that bears the demo's mark. A folder with anything of someone else's in it is refused."""
    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists()):
            sys.exit(f"error: {out} is not a demo's folder. Next: name a new one with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()


def say(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


def command(*words: str, reads: bool = False) -> Any:
    """Print a command, run it from this environment, and say how long it took.

    Args:
        words: the command and its arguments, as a user types them.
        reads: take its stdout, one JSON object, instead of showing it.

    Returns:
        the JSON object, or None. Ends the demo with the command's exit code when it fails.
    """
    console.print(f"\n[bold cyan]$ {escape(shlex.join(words))}[/bold cyan]")
    program = Path(sys.executable).parent / words[0]
    if not program.exists():
        sys.exit(f"error: {program} is not installed. Next: make demo")
    started = time.monotonic()
    pipe = subprocess.PIPE if reads else None
    done = subprocess.run([str(program), *words[1:]], stdout=pipe, check=False)  # noqa: S603 - the demo's own words
    if done.returncode:
        console.print(f"[bold red]{words[0]} {words[1]} failed (exit code {done.returncode})[/bold red]")
        sys.exit(done.returncode)
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")
    return json.loads(done.stdout) if reads else None


def strive_data(*words: str, reads: bool = False) -> Any:
    return command("strive-data", *words, reads=reads)


def evaluate(store: Path, *policy: str) -> dict[str, Any]:
    """Figures of a policy (by default the toy world's own) on both views of the toy world's test questions."""
    words = ("strive-train", "eval", "--store", str(store), "--split", "test", "--view", "all", *policy, "--json")
    figures: dict[str, Any] = command(*words, reads=True)
    for view in ("importance", "anchor"):
        part = figures["by_view"][view]
        console.print(
            f"{view} view: accuracy {part['accuracy']:.3f} of {part['accuracy_n']}, mIoU {part['miou']:.3f} of "
            f"{part['iou_n']}, format {part['format_rate']:.3f}"
        )
    return figures


def train(name: str, store: Path, out: Path) -> tuple[float, str]:
    """Run one arm; returns its wall time in seconds and its last checkpoint."""
    views, view = VIEWS[name]
    started = time.monotonic()
    done = command(
        *("strive-train", "run", "--store", str(store), "--dataset", DATASET),
        *("--out", str(out), "--variants", str(views), *view, "--responses", str(POOL // views)),
        *("--groups", str(GROUPS), "--steps", str(STEPS), "--seed", str(SEED)),
        *("--temperature", str(TEMPERATURE), "--lr", str(LEARNING_RATE), "--max-tokens", str(MAX_TOKENS), "--json"),
        reads=True,
    )
    return time.monotonic() - started, done["checkpoint"]


def selection_figures(select: dict[str, Any]) -> dict[str, Any]:
    """The funnel from the report of `strive-data select --json`."""
    reasons = {reason: count for reason, count in select["dropped"].items() if count}
    return {"pool": select["pool"], "kept": select["kept"], "dropped": sum(reasons.values()), "reasons": reasons}


def report(summary: dict[str, Any], out: Path) -> int:
    """Print the table and whether each fact holds. Returns the exit code."""
    say("What it came to")
    hit, selection = summary["hit_rate"], summary["selection"]
    console.print(f"All evidence in view: uniform {hit['uniform']:.1%}, importance {hit['importance']:.1%}")
    console.print(f"Selection: {selection['kept']} of {selection['pool']} samples kept, {selection['dropped']} dropped")
    console.print(arms_table(summary))
    facts = robust_facts(summary)
    for fact in facts:
        console.print(f"{'holds' if fact.holds else 'DOES NOT HOLD'}: {fact.text}")
    console.print("Accuracy is reported, not asserted: a few dozen steps on a toy world separate no arm for certain.")
    console.print(f"{summary['seconds_total']:.0f} s in all. See {out / 'demo.png'} and {out / 'summary.json'}.")
    return 0 if all(fact.holds for fact in facts) else 1


if __name__ == "__main__":
    sys.exit(main())
