"""Features that are kept equal those that are encoded; a folder belongs to one tower; damage is encoded anew."""

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.answerer import Request
from pipeline.errors import UserError
from pipeline.views import View
from tests import tiny_policy
from tests.tiny_policy import EVERY, QUESTION, prompts, view
from trainer.families import Prompt, VisionFeatures
from trainer.policy import Policy
from trainer.visioncache import MANIFEST, STALE_S, view_name


def a_policy(family: str = "qwen3_vl", seed: int = 0) -> Policy:
    model, processor = tiny_policy.BUILDERS[family](seed)
    return Policy(model, processor, "tiny")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return a_policy()


def some(policy: Policy) -> list[Prompt]:
    """Three views of which two are one, under different questions."""
    return policy.prompts([view(2), view(3, seed=1), view(2)], [QUESTION, QUESTION, ("what else ?", [])])


@contextmanager
def counted(policy: Policy) -> Iterator[list[int]]:
    """How many videos each pass of the tower took."""
    calls: list[int] = []
    inner = policy.family.encode

    def counting(model: Any, those: list[Prompt]) -> list[VisionFeatures]:
        calls.append(sum(len(p.grid) > 0 for p in those))
        return inner(model, those)

    policy.family.encode = counting  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del policy.family.encode  # type: ignore[attr-defined]
        policy.cache = None


def equal(some: list[VisionFeatures], others: list[VisionFeatures]) -> bool:
    return all(
        torch.equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip((one.pooled, *one.deepstack), (other.pooled, *other.deepstack), strict=True)
    )


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_what_was_encoded_to_the_bit(tmp_path: Path, family: str, kind: torch.dtype) -> None:
    """Each view once, alone; read by another policy object, as another run is."""
    first, second = a_policy(family), a_policy(family)
    for one in (first, second):
        one.model.to(kind)
    asked = some(first)
    with torch.no_grad():
        alone = [first.encode([p])[0] for p in asked]
        with counted(first) as calls:
            first.keep_features(tmp_path, "fp32")
            kept = first.encode(asked)
            assert calls == [1, 1], "two views, encoded once each"
        with counted(second) as calls:
            cache = second.keep_features(tmp_path, "fp32")
            read = second.encode(list(reversed(asked)))
            assert calls == []
            assert (cache.found, cache.encoded) == (3, 0)
    assert equal(kept, alone)
    assert equal(read, list(reversed(alone)))
    assert {f.pooled.dtype for f in read} == {kind}


def test_a_prompt_without_a_video_is_not_kept(tmp_path: Path, policy: Policy) -> None:
    nothing = View(view(1).frames[:0], view(1).times[:0])
    [blind] = policy.prompts([nothing], [QUESTION], blind=True)
    policy.keep_features(tmp_path, "fp32")
    try:
        [found] = policy.encode([blind])
    finally:
        policy.cache = None
    assert len(found.pooled) == 0
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]


def test_answers_are_the_same(tmp_path: Path, policy: Policy) -> None:
    v = view(2)
    requests = [Request(v.frames, v.times, "choice", *QUESTION, seeds=[1, 2])]
    plain = policy.answer(requests, temperature=1.0, max_tokens=6)
    policy.keep_features(tmp_path, "fp32")
    try:
        assert policy.answer(requests, temperature=1.0, max_tokens=6) == plain
        assert policy.answer(requests, temperature=1.0, max_tokens=6) == plain
    finally:
        policy.cache = None


def test_the_name_of_a_view_is_of_all_that_the_tower_sees(policy: Policy) -> None:
    one, same, other, larger = prompts(policy, view(2), view(2), view(2, seed=1), view(2, 96, 64))
    assert view_name(one) == view_name(same)
    assert len({view_name(p) for p in (one, other, larger)}) == 3
    turned = Prompt(one.ids, one.types, one.positions, one.pixels, one.grid[:, [0, 2, 1]])
    assert view_name(turned) != view_name(one)
    rounded = Prompt(one.ids, one.types, one.positions, one.pixels.float(), one.grid)
    assert view_name(rounded) != view_name(one)


def test_a_folder_of_another_tower_is_refused(tmp_path: Path, policy: Policy) -> None:
    policy.keep_features(tmp_path, "fp32")
    policy.cache = None
    with pytest.raises(UserError, match=r"family qwen3_vl, this run has qwen2_5_vl.*give another folder"):
        a_policy("qwen2_5_vl").keep_features(tmp_path, "fp32")
    with pytest.raises(UserError, match=r"another vision tower \(tower \w+, this run has \w+\)"):
        a_policy(seed=1).keep_features(tmp_path, "fp32")
    with pytest.raises(UserError, match="arithmetic fp32, this run has bf16"):
        a_policy().keep_features(tmp_path, "bf16")
    a_policy().keep_features(tmp_path, "fp32")


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, policy: Policy) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        policy.keep_features(tmp_path, "fp32")
    with pytest.raises(UserError, match="expected a folder for features"):
        policy.keep_features(tmp_path / "thesis.txt", "fp32")
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="expected a folder for features"):
        policy.keep_features(tmp_path, "fp32")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "absent"])
def test_what_is_damaged_is_encoded_anew(tmp_path: Path, policy: Policy, damage: str) -> None:
    [asked] = policy.prompts([view(2)], [QUESTION])
    cache = policy.keep_features(tmp_path, "fp32")
    try:
        expected = policy.encode([asked])
        file = cache.place(asked)
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        if damage == "absent":
            file.unlink()
        else:
            file.write_bytes({"cut": data[:-40], "flipped": data, "empty": b""}[damage])
        assert equal(policy.encode([asked]), expected)
        assert (cache.found, cache.encoded) == (0, 2)
        assert equal(policy.encode([asked]), expected)
        assert (cache.found, cache.encoded) == (1, 2)
    finally:
        policy.cache = None


def test_what_does_not_fit_is_refused_before_the_run(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asked] = policy.prompts([view(2)], [QUESTION])
    cache = policy.keep_features(tmp_path, "fp32")
    policy.encode([asked])
    policy.cache = None
    size = cache.place(asked).stat().st_size
    free = shutil.disk_usage(tmp_path)._replace(free=10 * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert cache.room(asked, 11) == (11 * size, 10 * size)
    with pytest.raises(UserError, match=r"features of 12 views take about .* GB are free"):
        cache.room(asked, 12)


def test_a_disk_that_is_full_is_a_clear_error(tmp_path: Path, policy: Policy) -> None:
    """Files may not grow beyond a few bytes."""
    policy.keep_features(tmp_path, "fp32")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=r"features could not be written.*make room"):
            policy.encode(policy.prompts([view(2)], [QUESTION]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        policy.cache = None
    assert not list(tmp_path.glob("*/*")), "nothing half is left"


def test_several_may_fill_one_folder(tmp_path: Path) -> None:
    """Threads stand for processes: all claim the folder and encode the same views at the same time."""
    policies = [a_policy() for _ in range(4)]
    asked = policies[0].prompts([view(2, seed=seed) for seed in range(6)], [QUESTION] * 6)

    def fill(one: Policy) -> list[VisionFeatures]:
        one.keep_features(tmp_path, "fp32")
        return one.encode(asked)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fill, policies))
    assert all(equal(one, found[0]) for one in found)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 6
    assert not list(tmp_path.rglob(".*"))
    assert json.loads((tmp_path / MANIFEST).read_text())["family"] == "qwen3_vl"


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path, policy: Policy) -> None:
    policy.keep_features(tmp_path, "fp32")
    old, new = tmp_path / "3f" / ".old.safetensors.x.tmp", tmp_path / "3f" / ".new.safetensors.y.tmp"
    old.parent.mkdir()
    for file in (old, new):
        file.write_bytes(b"half")
    past = time.time() - 2 * STALE_S
    os.utime(old, (past, past))
    policy.keep_features(tmp_path, "fp32")
    policy.cache = None
    assert [file.exists() for file in (old, new)] == [False, True]


def test_nothing_is_pickled(tmp_path: Path, policy: Policy) -> None:
    policy.keep_features(tmp_path, "fp32")
    policy.encode(policy.prompts([view(2)], [QUESTION]))
    policy.cache = None
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".json", ".safetensors"}
