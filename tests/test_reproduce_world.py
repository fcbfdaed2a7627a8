"""What runs of the evidence begin with: annotations of which some are wrong, and policies that are worse."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from toyworld import POLICY, dataset
from toyworld.policy import build_policy
from toyworld.reproduce import annotations, prepare, start
from toyworld.reproduce.plan import TINY, Scale
from toyworld.reproduce.work import Prepared, Workplace
from trainer.policy import load_policy


def test_annotations_are_wrong_where_they_say_so(tmp_path: Path) -> None:
    dataset.write(world := tmp_path / "world", 8, 0, "train")
    annotations.write(world, tmp_path / "a", 0.4, 0)
    annotations.write(world, tmp_path / "b", 0.4, 0)
    read = {"train.json": json.loads, "train_grounding.jsonl": lambda text: [json.loads(r) for r in text.splitlines()]}
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, parse in read.items():
        texts = [(folder / name).read_text() for folder in (world, tmp_path / "a", tmp_path / "b")]
        assert texts[1] == texts[2]
        pairs += zip(parse(texts[0]), parse(texts[1]), strict=True)
    wrong = [(right, row) for right, row in pairs if row.get("wrong")]
    assert 0.2 < len(wrong) / len(pairs) < 0.6
    assert all(right == row for right, row in pairs if not row.get("wrong"))
    for right, row in wrong:
        assert {name for name in row if row[name] != right.get(name)} - {"wrong"} <= {"solution", "answer", "spans"}
        if "solution" in row:
            assert row["solution"] != right["solution"]
            allowed = [option[0] for option in row["options"]] if row["options"] else annotations.NUMBERS
            assert row["solution"][8:-9] in allowed
        else:
            [(start, end)], [(first, last)] = row["spans"], right["spans"]
            assert end - start == pytest.approx(last - first) and (end <= first or start >= last) and start >= 0
            assert (row["answer"] != right["answer"]) == bool(row["options"])


def test_mixed_up_annotations_belong_to_other_rows_of_the_task(tmp_path: Path) -> None:
    dataset.write(world := tmp_path / "world", 8, 0, "train")
    annotations.write(world, tmp_path / "a", 0.75, 0, mixed_up=True)
    right, mixed = (json.loads((folder / "train.json").read_text()) for folder in (world, tmp_path / "a"))
    theirs: dict[str, list[Any]] = {kind: [] for kind in ("multiple choice", "numerical")}
    for row in right:
        theirs[row["problem_type"]].append((row["options"], row["solution"]))
    assert 0.5 < sum("wrong" in row for row in mixed) / len(mixed) < 1
    for before, row in zip(right, mixed, strict=True):
        assert (row["options"], row["solution"]) in theirs[row["problem_type"]]
        assert {name for name in row if row[name] != before.get(name)} <= {"wrong", "options", "solution"}
        assert "wrong" in row or row == before
    spans, moved = (
        [json.loads(line) for line in (folder / "train_grounding.jsonl").read_text().splitlines()]
        for folder in (world, tmp_path / "a")
    )
    known = [(row["task"], row["options"], row["answer"], row["spans"]) for row in spans]
    assert all((row["task"], row["options"], row["answer"], row["spans"]) in known for row in moved)
    assert any(row["spans"] != before["spans"] for before, row in zip(spans, moved, strict=True))


def test_what_selections_told_is_in_one_order_whichever_is_ready_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their order in the figures was that in which they ended: two runs could differ."""
    for name in ("make_starts", "make_views"):
        monkeypatch.setattr(prepare, name, lambda prepared, scale: None)
    later = threading.Event()

    def last(prepared: Prepared, scale: Scale) -> dict[str, Any]:
        assert later.wait(60)
        return {"name": prepared.name}

    def first(prepared: Prepared, scale: Scale) -> dict[str, Any]:
        if prepared.name == prepare.STORES[-1]:
            later.set()
        return {"name": prepared.name}

    monkeypatch.setattr(prepare, "choose", last)
    monkeypatch.setattr(prepare, "choose_wrong", first)
    monkeypatch.setattr(prepare, "choose_mixed", first)
    told, commands = prepare.prepare(Workplace(tmp_path), TINY)
    assert list(told.items()) == [(name, {"name": name}) for name in prepare.STORES] and commands == []


def test_few_lessons_leave_the_shipped_eyes_as_they_are() -> None:
    shipped, blank = load_policy(POLICY), build_policy(0)
    once, twice = (dict(start.teach(1, 0).model.named_parameters()) for _ in range(2))
    weights = {"shipped": dict(shipped.model.named_parameters()), "blank": dict(blank.model.named_parameters())}
    eyes = [name for name in once if "visual" in name]
    assert eyes and all(torch.equal(once[name], weights["shipped"][name]) for name in eyes)
    assert all(torch.equal(once[name], twice[name]) for name in once)
    taught = [name for name in once if name not in eyes and not torch.equal(once[name], weights["blank"][name])]
    assert len(taught) > 10


def test_noise_is_seeded_and_leaves_eyes_and_words_alone() -> None:
    clean, once, twice, other = (load_policy(POLICY) for _ in range(4))
    start.perturb(once, 0.1, 0)
    start.perturb(twice, 0.1, 0)
    start.perturb(other, 0.1, 1)
    weights = [dict(policy.model.named_parameters()) for policy in (clean, once, twice, other)]
    moved = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
    assert moved and all("visual" not in name and "embed" not in name and "norm" not in name for name in moved)
    for name in moved:
        before, after = weights[0][name].detach(), weights[1][name].detach()
        assert torch.equal(after, weights[2][name]) and not torch.equal(after, weights[3][name])
        assert float((after - before).std() / before.std()) == pytest.approx(0.1, rel=0.1)
