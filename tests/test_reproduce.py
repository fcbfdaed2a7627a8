"""The evidence: a tiny one is whole, the same twice, and goes on where it was stopped; its judgement by itself."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import data, train
from pipeline.errors import UserError
from pipeline.store import Store
from toyworld.demo_figures import column
from toyworld.reproduce import __main__ as program
from toyworld.reproduce import annotations, collect, curves, page, runs, start
from toyworld.reproduce.datasets import random_places, spatial_only
from toyworld.reproduce.plan import (
    ARMS,
    BEYOND,
    FULL,
    SMALL,
    SMALL_GRPO,
    SPATIAL,
    STRIVE,
    TABLES,
    TINY,
    WRONG_SELECTED,
    Run,
    runs_of,
)
from toyworld.reproduce.work import Workplace
from trainer.config import RunConfig
from trainer.metrics import read_rows

pytestmark = pytest.mark.timeout(900)  # two whole ones on a busy machine

APPS = {"strive-data": data.app, "strive-train": train.app}


class Here:
    """Does commands in this process, and counts them; `last` is the one before which it is stopped."""

    def __init__(self, last: int = 10**6) -> None:
        self.last, self.done = last, list[Sequence[str]]()

    def __call__(self, words: Sequence[str]) -> str:
        self.done.append(words)
        if len(self.done) > self.last:
            if "run" in words:  # half of it is done, as a run leaves it that is told to end
                words = [*words[: words.index("--steps") + 1], "1", *words[words.index("--steps") + 2 :]]
                self._do(words)
            raise KeyboardInterrupt
        return self._do(words)

    def _do(self, words: Sequence[str]) -> str:
        if words[0] == "python":
            {"toyworld.reproduce.start": start, "toyworld.reproduce.annotations": annotations}[words[2]].main(words[3:])
            return ""
        result = CliRunner().invoke(APPS[words[0]], list(words[1:]), catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Here]:
    """A folder with the tiny evidence, and what was done for it."""
    folder = tmp_path_factory.mktemp("reproduce")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        program.reproduce(Workplace(Path("results"), here := Here()), Path("docs"), TINY, beyond=False)
        torch.set_num_threads(threads)
    return folder, here


def files(folder: Path) -> dict[str, bytes]:
    """What the page is made of, wall times aside."""
    docs = folder / "docs"
    return {
        file.relative_to(docs).as_posix(): file.read_bytes()
        for file in sorted(docs.rglob("*"))
        if file.is_file() and not file.name.startswith("times")
    }


def test_a_stopped_one_goes_on_and_comes_to_the_same_page(
    whole: tuple[Path, Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = whole
    monkeypatch.chdir(tmp_path)
    place = Path("results")
    strive = next(i for i, words in enumerate(before.done) if f"results/runs/{STRIVE}-0" in words)
    with pytest.raises(KeyboardInterrupt):
        program.reproduce(Workplace(place, Here(strive)), Path("docs"), TINY, beyond=False)
    assert not (tmp_path / "docs").exists()
    program.reproduce(Workplace(place, rest := Here()), Path("docs"), TINY, beyond=False)
    assert len(rest.done) == len(before.done) - strive, "what was done is not repeated"
    assert "--resume" in rest.done[0] and rest.done[0][:2] == before.done[strive][:2]
    assert files(tmp_path) == files(folder)
    steps = json.loads((tmp_path / f"results/runs/{STRIVE}-0/run.json").read_text())["sessions"]
    assert [session["from_step"] for session in steps] == [0, 1]


def test_a_whole_one_has_nothing_to_do_and_a_lost_run_is_done_again(
    whole: tuple[Path, Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = whole
    monkeypatch.chdir(folder)
    before = files(folder)
    program.reproduce(Workplace(Path("results"), again := Here()), Path("docs"), TINY, beyond=False)
    assert not again.done and files(folder) == before
    config = folder / "results/runs/all-0/config.json"
    config.write_text(config.read_text().replace('"lr": 0.0001', '"lr": 0.0002'))
    program.reproduce(Workplace(Path("results"), again := Here()), Path("docs"), TINY, beyond=False)
    assert [words[:2] for words in again.done] == [["strive-train", "run"]], "other settings: another run"
    assert "--resume" not in again.done[0] and files(folder) == before


def test_beyond_the_papers_shares_the_controls_and_fills_its_section(
    whole: tuple[Path, Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = whole
    monkeypatch.chdir(folder)
    before = files(folder)
    shutil.copytree(folder / "docs", tmp_path / "docs")
    program.reproduce(Workplace(Path("results"), here := Here()), tmp_path / "docs", TINY, beyond=True)
    trained = {words[words.index("--out") + 1] for words in here.done if words[1] == "run"}
    assert trained == {f"results/runs/{name}-0" for name in set(BEYOND) - set(ARMS)}
    after = files(tmp_path)
    assert set(after) == {*before, "results/beyond.json"} and files(folder) == before
    page, old = after["results.md"].decode(), before["results.md"].decode()
    assert page.split("## Beyond")[0] == old.split("## Beyond")[0]
    assert "Not run" in old and "Not run" not in page and all(arm.title in page for arm in BEYOND.values())


def test_a_reader_finds_folder_settings_and_seed_of_every_run(whole: tuple[Path, Here]) -> None:
    folder, here = whole
    text = (folder / "docs/results.md").read_text()
    typed = {tuple(words) for words in here.done}
    for run in runs_of(TINY, beyond=False):
        assert f"| {run.name} | results/runs/{run.name} | {run.seed} |" in text
        command = next(line for line in text.splitlines() if f"--out results/runs/{run.name} " in line)
        assert any(set(shlex.split(command)) <= set(words) for words in typed)
        config = json.loads((folder / f"results/runs/{run.name}/config.json").read_text())
        assert config["seed"] == run.seed and config["steps"] == TINY.steps


def test_every_run_draws_the_same_number(whole: tuple[Path, Here]) -> None:
    folder, _ = whole
    drawn = {
        run.name: sum(row["rollouts"] for row in read_rows(folder / f"results/runs/{run.name}/metrics.jsonl"))
        for run in runs_of(TINY, beyond=False)
        if not run.arm.sft
    }
    assert set(drawn.values()) == {TINY.steps * TINY.groups * TINY.pool}


def test_the_datasets_are_what_they_are_called(whole: tuple[Path, Here]) -> None:
    folder, _ = whole
    store = Store(folder / "results/store")
    rows = store.curated(SPATIAL).to_pylist()
    assert rows == sorted(rows, key=lambda row: str(row["sample_id"]))
    for row in rows:
        assert len({tuple(view["indices"]) for view in row["variants"]}) == 1
        if row["task"] == "number":
            assert all(view["crop"] == [0, 0, 1, 1] and view["scale"] == 1 for view in row["variants"])
    assert any(view["scale"] < 1 or view["crop"][0] > 0 for row in rows for view in row["variants"])
    assert all(row["variants"][0]["scale"] == 1 for row in rows)
    same = [spatial_only(row) for row in store.curated("selected").to_pylist()]
    assert [row["sample_id"] for row in same] == [row["sample_id"] for row in rows]
    assert {row["task"] for row in store.curated("grounded-choice").to_pylist()} == {"grounded_choice"}
    assert store.curated("random", "seed0").num_rows == store.curated("selected").num_rows


def test_random_places_are_distinct_and_differ_by_seed() -> None:
    places = random_places(100, 30, 1)
    assert len(set(places)) == 30 and places == sorted(places) and set(places) <= set(range(100))
    assert places == random_places(100, 30, 1) != random_places(100, 30, 2)


def test_one_program_at_a_time_in_its_own_folder(tmp_path: Path) -> None:
    place, other = Workplace(tmp_path / "r"), Workplace(tmp_path / "r")
    with place.held({"clips": 1}), pytest.raises(UserError, match="a program works there"), other.held({"clips": 1}):
        pass
    with pytest.raises(UserError, match="another scale"), other.held({"clips": 2}):
        pass
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is no folder of this program"), Workplace(tmp_path / "thesis").held({}):
        pass


def test_a_command_that_fails_is_told_with_its_log(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "r")
    with place.held({}):
        assert place.command("good", ["python", "-c", "print('{\"kept\": 1}')"]) == {"kept": 1}
        with pytest.raises(UserError, match=r"exit code 3.*bad\.log"):
            place.command("bad", ["python", "-c", "raise SystemExit(3)"])
        place.stop()
        with pytest.raises(UserError, match="was not begun"):
            place.command("late", ["python", "-c", ""])


def test_all_settings_are_real_and_every_pool_is_as_large() -> None:
    for scale in (FULL, TINY):
        for run in [*runs_of(scale, beyond=False), *runs_of(scale, beyond=True)]:
            if not run.arm.sft:
                config = RunConfig.model_validate({"policy": "p", **_given(run.settings(scale))})
                assert config.groups * config.variants * config.responses == scale.groups * scale.pool
    assert {arm for table in TABLES for arm in table.arms} == set(ARMS)
    assert {arm for pair in collect.pairs(beyond=True) for arm in pair} == set(BEYOND)
    assert FULL.test_clips * 5 * 7 / 8 >= 500 and FULL.seeds >= 3 and FULL.beyond_seeds >= 5


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def test_a_command_line_says_what_the_settings_say(tmp_path: Path) -> None:
    words = runs.train_words(Workplace(tmp_path), Run(ARMS["sft"], 1), TINY)
    assert words[:2] == ["strive-train", "sft"] and "groups=1" in words and "--groups" not in words
    words = runs.train_words(Workplace(tmp_path), Run(ARMS["random"], 1), TINY)
    assert words[words.index("--tag") + 1] == "seed1" and words[words.index("--responses") + 1] == "16"
    words = runs.train_words(Workplace(tmp_path), Run(ARMS[WRONG_SELECTED], 1), TINY)
    assert {str(tmp_path / "wrong-store"), str(tmp_path / "noisy-start")} < set(words)


def test_the_curves_are_the_same_bytes_twice(tmp_path: Path) -> None:
    rows = [
        {"step": i, "reward_std": 0.3, "dead_group_share": i / 9, "grad_norm": None if i == 3 else 1.0}
        for i in range(9)
    ]
    each = {arm: [rows, rows[::-1]] for arm in curves.COLOURS}
    for name in ("a.png", "b.png"):
        curves.draw(each, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600
    assert len(column(rows, "grad_norm")) == 9


def test_the_page_says_when_beyond_was_not_run_and_what_it_came_to_when_it_was(whole: tuple[Path, Here]) -> None:
    folder, _ = whole
    found = json.loads((folder / "docs/results/reproduce.json").read_text())
    assert "Not run: `python -m" in page.page(found, None)
    arms = dict.fromkeys(BEYOND, found["arms"][STRIVE])
    for low, verdict in ((0.01, "**Beats both controls on both views:"), (-0.01, "**No recipe beats")):
        gain = {f"accuracy_{view}": [0.03, low, 0.05] for view in ("importance", "anchor")}
        against: dict[str, Any] = {
            name: dict.fromkeys(collect.CONTROLS, gain) for name in BEYOND if name not in collect.CONTROLS
        }
        against[SMALL][SMALL_GRPO] = gain
        beyond = {"scale": found["scale"], "arms": arms, "against": against, "runs": []}
        text = page.page(found, beyond)
        assert verdict in text and BEYOND[SMALL].title in text
