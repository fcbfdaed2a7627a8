"""`strive-train eval`: one checkpoint, several side by side, predictions that lie there; one line for a mistake."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from cli import output
from cli.train import PROGRAM, app
from pipeline import schemas
from pipeline.answerer import Request
from pipeline.framereader import FrameReader
from pipeline.store import Store
from pipeline.views import View
from tests import tiny_policy
from tests.curation_world import a_sample, add_samples, add_videos
from tests.test_evaluate import view
from trainer.policy import load_policy

Call = Callable[..., tuple[int, str, str]]

KINDS = ["CW", "TN", "DL", "CH"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions of NExT-QA and two of a set of one's own on two cached videos, and two policies."""
    folder = tmp_path_factory.mktemp("eval")
    store = Store(folder / "store", create=True)
    add_videos(store, ["v0", "v1"])
    about: dict[str, Any] = {"split": "val", "options": ["red", "blue"], "answer": "A"}
    rows = [
        a_sample(
            f"q{i}", f"v{i % 2}", dataset="nextqa", source="nextqa-val", origin=json.dumps({"type": kind}), **about
        )
        for i, kind in enumerate(KINDS)
    ]
    rows += [a_sample(f"m{i}", f"v{i}", "grounding", dataset="mine", split="val") for i in range(2)]
    add_samples(store, rows)
    views = [view(row["sample_id"], row["video_id"], n, [0, 3, 8, 9 + n]) for row in rows for n in (0, 1)]
    store.append("variants", pa.Table.from_pylist(views, schema=schemas.VARIANTS))
    tiny_policy.save(folder / "base")
    tiny_policy.save(folder / "trained", seed=1)
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


EVAL = ("eval", "--store", "store", "--split", "val", "--max-tokens", "8", "--device", "cpu", "--view", "anchor")


def test_one_checkpoint(call: Call, folder: Path) -> None:
    code, out, err = call(*EVAL, "--policy", "base", "--out", "one", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["samples"], found["n"]) == (6, 6)
    assert [part["dataset"] for part in found["benchmarks"]] == ["mine", "nextqa"]
    assert set(found["benchmarks"][1]["by"]["question group"]) == {"causal", "temporal", "descriptive"}
    lines = [json.loads(line) for line in (folder / "one" / "predictions" / "base.jsonl").read_text().splitlines()]
    assert [line["sample_id"] for line in lines] == sorted(line["sample_id"] for line in lines)
    kept = json.loads((folder / "one" / "summary.json").read_text())
    assert kept["checkpoints"]["base"] == found
    assert kept["comparison"] == []
    assert "## base: NExT-QA (nextqa), anchor view" in (folder / "one" / "summary.md").read_text()
    again = json.loads(call(*EVAL, "--policy", "base", "--out", "one", "--json")[1])
    assert again == found


def test_batches_do_not_change_greedy_answers(call: Call, folder: Path) -> None:
    for batch in ("1", "4"):
        assert call(*EVAL, "--policy", "base", "--out", f"batch{batch}", "--batch", batch, "--json")[0] == 0
    one, four = ((folder / f"batch{n}" / "predictions" / "base.jsonl").read_text() for n in (1, 4))
    assert one == four


def test_the_tables_of_one_checkpoint_name_its_benchmark(call: Call) -> None:
    code, out, _ = call(*EVAL, "--policy", "base")
    told = " ".join(out.split())
    assert code == 0
    assert "NExT-QA (nextqa), anchor view" in told
    assert "by question group" in told
    assert "Wilson" in told


def test_checkpoints_side_by_side(call: Call, folder: Path) -> None:
    """The first column is the base; the others tell how far they are from it."""
    words = (*EVAL, "--policy", "base", "--policy", "trained", "--frames", "3", "--out", "two")
    found = json.loads(call(*words, "--json")[1])
    assert list(found["checkpoints"]) == ["base", "trained"]
    names = [(one["dataset"], one["figure"]) for one in found["comparison"]]
    assert ("nextqa", "accuracy") in names
    assert ("mine", "miou") in names
    for one in found["comparison"]:
        assert len(one["values"]) == 2
        assert one["differences"][0]["difference"] == pytest.approx(one["values"][1] - one["values"][0])
    lines = (folder / "two" / "predictions" / "trained.jsonl").read_text().splitlines()
    assert {json.loads(line)["frames"] for line in lines} == {3}
    out = call(*words)[1]
    assert "trained" in out
    assert "differences from base" in " ".join(out.split())
    regraded = call("eval", "--predictions", "two/predictions/base.jsonl", "--predictions",
                    "two/predictions/trained.jsonl", "--json")[1]  # fmt: skip
    assert json.loads(regraded)["comparison"] == found["comparison"]


def test_greedy_answers_are_those_of_generate(folder: Path) -> None:
    """Temperature 0: the most probable token each time, as transformers' own generation takes it."""
    policy = load_policy(folder / "base")
    frames = FrameReader(Store(folder / "store"))
    request = Request(frames.read("v0", [0, 3]), frames.times("v0")[[0, 3]], "choice", "which ?", ["red", "blue"], [0])
    ((greedy,),) = policy.answer([request], temperature=0.0, max_tokens=8)
    (prompt,) = policy.prompts([View(request.frames, request.times)], [("which ?", ["red", "blue"])])
    ids = prompt.ids[None]
    with torch.no_grad():
        for _ in range(greedy.tokens):
            logits = policy.model(
                input_ids=ids,
                mm_token_type_ids=torch.cat([prompt.types, torch.zeros(ids.shape[1] - len(prompt.ids)).long()])[None],
                pixel_values_videos=prompt.pixels,
                video_grid_thw=prompt.grid,
            ).logits[0, -1]
            logits[list(policy.family.banned_ids)] = -torch.inf
            ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    tokens = [t for t in ids[0, len(prompt.ids) :].tolist() if t != policy.family.eos_id]
    assert policy.processor.tokenizer.decode(tokens, skip_special_tokens=False) == greedy.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--store nowhere --split val", "nowhere: no store here"),
        ("--store store --split val --policy base --policy ./base", "expected each checkpoint once"),
        ("--store store --split val --policy base --policy ./none", "policy './none': expected a folder"),
        ("--store store --split val --out store/lock.json --policy base", "expected a folder"),
        ("--store store --split val --frames 0 --policy base", "at least one frame"),
        ("--store store --split val --view dark --policy base", "expected one of anchor, importance, all"),
        ("--store store --split val --source x --policy base", "no sample of that source; there is"),
        ("--store store --split val --precision fp8", "expected fp32 or bf16"),
        ("--store store --split val --device tpu", "expected auto, cpu or cuda"),
        ("--annotations x.csv", "they go with --predictions"),
        ("--predictions none.jsonl", "none.jsonl: expected a predictions file"),
        ("--predictions none.jsonl --policy base", "either --policy or --predictions"),
        ("--predictions none.json --annotations none.csv", "none.csv: there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call: Call, folder: Path, words: str, message: str) -> None:
    (folder / "store" / "lock.json").write_text("{}")
    code, out, err = call("eval", *words.split())
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert "Next: " in err
    assert err.count("\n") == 1


def test_published_predictions(call: Call, folder: Path, tmp_path: Path) -> None:
    rows = [
        "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4",
        "v0,9,8,8,which?,1,5,CW,a,b,c,d,e",
    ]
    (tmp_path / "val.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "p.json").write_text('{"v0_5": {"prediction": 1, "answer": 1}}')
    words = ("eval", "--predictions", str(tmp_path / "p.json"), "--annotations", str(tmp_path / "val.csv"))
    found: dict[str, Any] = json.loads(call(*words, "--json")[1])
    assert found["accuracy"] == 1.0
    assert call(*words)[0] == 0
