"""The program strive-train on a small store: it trains, resumes, evaluates, and answers bad input with one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from transformers import AutoModelForImageTextToText, AutoProcessor

from cli import output
from cli.train import PROGRAM, app
from pipeline.fingerprint import folder_fingerprint
from pipeline.framereader import FrameReader
from pipeline.store import Store
from tests import tiny_policy
from tests.curation_world import a_sample, add_samples, add_videos, statistics
from tests.toy_store import curate
from trainer.checkpoint import whole
from trainer.metrics import read_rows

WHOLE = [0.0, 0.0, 1.0, 1.0]
SAMPLES = [("q0", "v0", "A"), ("q1", "v0", "B"), ("q2", "v1", "A"), ("q3", "v1", "B")]

Call = Callable[..., tuple[int, str, str]]


def variant(number: int, indices: list[int]) -> dict[str, Any]:
    return {
        "variant": number,
        "kind": "importance" if number else "anchor",
        "indices": indices,
        "times": [i / 2 for i in indices],
        "crop": WHOLE,
        "scale": 1.0,
        "overlap": 0.0,
        "seed": number,
        "coverage": 0.5,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a curated dataset of four samples with three views each, and a policy of random weights."""
    folder = tmp_path_factory.mktemp("train")
    store = Store(folder / "store", create=True)
    add_videos(store, ["v0", "v1"])
    rows = [a_sample(key, video, answer=answer, options=["red", "blue"]) for key, video, answer in SAMPLES]
    add_samples(store, rows)
    views = [variant(0, [0, 12]), variant(1, [3, 4]), variant(2, [7, 20])]
    reader = FrameReader(store)
    curated = [
        row | {"variants": views, "frames_fingerprint": reader.fingerprint(row["video_id"])} | statistics()
        for row in rows
    ]
    curate(store, "default", curated)
    tiny_policy.save(folder / "policy")
    return folder


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program in the folder of the store; gives exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [PROGRAM, *words])
        monkeypatch.setattr(os, "_exit", sys.exit)  # the program leaves its process at once; that one is the tests' own
        with pytest.raises(SystemExit) as ended:
            output.run(app, PROGRAM)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def taught(folder: Path) -> Path:
    """The policy after it has learned the format and, on average, one of both letters: its pools are live."""
    from trainer.config import SftConfig
    from trainer.sft import run

    config = SftConfig(
        store=folder / "store", policy=str(folder / "policy"), out=folder / "taught", steps=60, lr=5e-3, groups=4
    )
    found = run(config)
    assert found["loss_last"] < 0.3 * found["loss_first"]
    return Path(found["checkpoint"])


RUN = ("run", "--store", "store", "--max-tokens", "48", "--groups", "2", "--lr", "1e-3")


def curves(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in read_rows(out / "metrics.jsonl")
    ]


def test_a_resumed_run_equals_an_uninterrupted_one(call: Call, folder: Path, taught: Path) -> None:
    """Metrics and weights, to the bit: two steps and two more against four."""
    words = (*RUN, "--policy", str(taught), "--variants", "3", "--json", "--set", "checkpoint_every=1")
    code, out, err = call(*words, "--out", "straight", "--steps", "4")
    assert (code, err.count("\n")) == (0, 1), "one live line, at the last step"
    straight = json.loads(out)
    assert straight["steps"] == 4
    assert straight["rollouts"] == 4 * 2 * 3 * 2
    assert call(*words, "--out", "resumed", "--steps", "2")[0] == 0
    code, _, err = call(*words, "--out", "resumed", "--steps", "4")
    assert code == 2
    assert "--resume" in err
    resumed = json.loads(call(*words, "--out", "resumed", "--steps", "4", "--resume")[1])
    assert curves(folder / "resumed") == curves(folder / "straight")
    assert folder_fingerprint(Path(resumed["checkpoint"])) == folder_fingerprint(Path(straight["checkpoint"]))
    assert any(row["grad_norm"] for row in curves(folder / "straight")), "no pool was live: the test shows nothing"
    code, _, err = call(*words, "--out", "resumed", "--steps", "6", "--resume", "--seed", "7")
    assert code == 2
    assert "seed: 0 -> 7" in err


def test_a_checkpoint_is_a_folder_that_transformers_and_eval_open(call: Call, folder: Path, taught: Path) -> None:
    code, out, _ = call(*RUN, "--policy", str(taught), "--variants", "1", "--view", "importance", "--steps", "1",
                        "--out", "one", "--json")  # fmt: skip
    assert code == 0
    checkpoint = json.loads(out)["checkpoint"]
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    AutoProcessor.from_pretrained(checkpoint)
    code, out, err = call("eval", "--store", "store", "--policy", checkpoint, "--view", "all", "--max-tokens", "48",
                          "--device", "cpu", "--out", "answers", "--json")  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["samples"] == 4
    assert found["n"] == 8
    assert found["by_view"]["anchor"]["n"] == found["by_view"]["importance"]["n"] == 4
    assert 0 <= found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"] <= 1
    assert found["format_rate"] > 0.5
    [file] = (folder / "answers").rglob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 8
    assert sum(line["accuracy"] for line in lines) / 8 == found["accuracy"]


def test_tables_for_people(call: Call, taught: Path) -> None:
    code, out, _ = call(*RUN, "--policy", str(taught), "--steps", "1", "--out", "table")
    assert code == 0
    assert "reward std" in out
    assert "strive-train eval --store store" in " ".join(out.split())
    code, out, _ = call("eval", "--store", "store", "--policy", str(taught), "--limit", "1", "--max-tokens", "48")
    assert code == 0
    assert "importance view" in out


def test_settings_as_toml_can_be_edited_and_given_back(call: Call, folder: Path, taught: Path) -> None:
    code, out, _ = call("config")
    assert code == 0
    text = out.replace("steps = 100", "steps = 1").replace('store = "strive-store"', 'store = "store"')
    (folder / "run.toml").write_text(text.replace("max_tokens = 1024", "max_tokens = 8"))
    code, out, _ = call("run", "--config", "run.toml", "--policy", str(taught), "--out", "from-toml", "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 1
    resolved = json.loads((folder / "from-toml" / "config.json").read_text())
    assert resolved["max_tokens"] == 8
    assert resolved["variants"] == 4
    described = json.loads(call("config", "--sft", "--json")[1])
    assert "variants" not in described
    assert described["lr"]["meaning"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --store nowhere", "nowhere: no store here"),
        ("sft --store nowhere", "nowhere: no store here"),
        ("eval --store nowhere", "nowhere: no store here"),
        ("run --store store --policy no/such/folder", "policy 'no/such/folder': expected a folder with a config.json"),
        ("sft --store store --policy ./none", "policy './none': expected a folder"),
        ("eval --store store --policy ./none", "policy './none': expected a folder"),
        ("run --store store --dataset unheard", "curated dataset 'unheard': the store has default"),
        ("eval --store store --dataset unheard", "curated dataset 'unheard': the store has default"),
        ("run --store store --tag v9", "v9"),
        ("eval --store store --split unheard", "no sample"),
        ("eval --store store --dataset default --split train", "either --dataset or --split"),
        ("eval --store store --view middle", "expected one of anchor, importance, all"),
        ("eval --store store --limit 0", "Next: strive-train eval --help"),
        ("eval --store store --device tpu", "expected auto, cpu or cuda"),
        ("run --steps 0", "steps=0"),
        ("run --steps many", "Next: strive-train run --help"),
        ("run --variants 1 --responses 1", "set responses to 2 or more"),
        ("run --view middle", "view=middle"),
        ("run --set stpes=3", "did you mean steps?"),
        ("run --set steps", "expected key=value"),
        ("run --lr 1 --set lr=2", "own option too"),
        ("run --config none.toml", "none.toml: expected a TOML file"),
        ("run --set resume=true", "no such setting"),
        ("run --train-subset 1", "set it to 0 (all) or to 2..8"),
        ("run --update-on anchor --variants 1", "has no view but its own"),
        ("run --store store --max-tokens 1000000", "the policy's context is"),
        ('run --set trackers=["nothing"]', "trackers"),
        ("merge nowhere --out never", "nothing to merge"),
        ("train", "No such command"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call: Call, folder: Path, words: str, message: str) -> None:
    code, out, err = call(*words.split(), *(["--out", "never"] if words.startswith(("run", "sft")) else []))
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert "Next: " in err
    assert err.count("\n") == 1
    assert not (folder / "never").exists()


def test_a_lora_run_is_resumed_evaluated_and_merged(call: Call, folder: Path, taught: Path) -> None:
    words = (*RUN, "--policy", str(taught), "--variants", "2", "--lora-rank", "4", "--out", "lora")
    assert call(*words, "--steps", "1")[0] == 0
    code, out, _ = call(*words, "--steps", "2", "--resume", "--json")
    assert code == 0
    checkpoint = json.loads(out)["checkpoint"]
    assert not (folder / checkpoint / "config.json").exists()
    answers = []
    assert call("merge", checkpoint, "--out", "merged")[0] == 0
    for policy in (checkpoint, "merged"):
        code, out, _ = call("eval", "--store", "store", "--policy", policy, "--view", "anchor", "--max-tokens", "48",
                            "--device", "cpu", "--json")  # fmt: skip
        assert code == 0
        answers.append(json.loads(out)["accuracy"])
    assert answers[0] == answers[1]
    code, _, err = call(*words[:-1], "again", "--policy", checkpoint)
    assert code == 2
    assert "strive-train merge" in err


def test_every_choice_has_its_option(call: Call, folder: Path, taught: Path) -> None:
    code, out, _ = call(*RUN, "--policy", str(taught), "--variants", "2", "--steps", "1", "--out", "choices", "--json",
                        "--advantage", "per-view", "--kl", "0.1", "--train-subset", "2", "--update-on", "anchor",
                        "--two-wave", "--refill", "1")  # fmt: skip
    assert code == 0
    resolved = json.loads((folder / "choices" / "config.json").read_text())
    chosen = {"advantage": "per-view", "kl": 0.1, "train_subset": 2, "update_on": "anchor", "two_wave": True}
    assert chosen.items() <= resolved.items()
    assert json.loads(out)["rollouts"] >= 2 * 2


def test_a_signal_ends_the_program_with_a_checkpoint_and_its_own_exit_code(folder: Path, taught: Path) -> None:
    words = [*RUN, "--policy", str(taught), "--steps", "100000", "--out", "stopped"]
    command = [sys.executable, "-m", "cli.train", *words[:2], str(folder / "store"), *words[3:]]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        log = folder / "stopped" / "metrics.jsonl"
        limit = time.monotonic() + 120
        while not (log.exists() and read_rows(log)) and time.monotonic() < limit:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, err
    assert "SIGTERM: the step under way is finished and saved" in err
    assert "Traceback" not in err
    assert "--resume" in " ".join(out.split())
    steps = len(read_rows(log))
    assert steps >= 1
    assert [c.name for c in whole(folder / "stopped")] == [f"checkpoint-{steps:08d}"]


def test_as_a_program(folder: Path) -> None:
    """In a process of its own: nothing but the one line reaches stderr, nothing reaches stdout."""
    words = [sys.executable, "-m", "cli.train", "run", "--store", str(folder / "store"), "--policy", "./none"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: policy './none'")
    assert done.stderr.count("\n") == 1


def test_every_option_of_every_command_has_a_help_text() -> None:
    group = typer.main.get_command(app)
    assert set(group.commands) == {"run", "sft", "eval", "report", "merge", "config"}  # type: ignore[attr-defined]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.opts}"
