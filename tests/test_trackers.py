"""Trackers through accelerate: they get what a run does, and never stop it."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from tests import toy_run
from tests.test_house import imported, name_of, sources, tree_of
from tests.toy_store import a_store
from trainer.trackers import WAITING, Trackers, check_trackers, flat, names

ROW = {
    "step": 7,
    "reward_mean": 0.5,
    "reward_std": 0.25,
    "dead_group_share": 0.125,
    "between_share": None,
    "grad_norm": 1.5,
    "tokens": 600,
    "seconds": {"stream": 0.5, "rollout": 1.5, "update": 1.0},
}


class FileTracker(GeneralTracker):  # type: ignore[misc]
    """A tracker of accelerate's kind that writes lines into a file; told to, it fails at one of its calls."""

    name = "file"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: Path, fails: str = "", error: BaseException | None = None) -> None:
        super().__init__()
        self.path, self.fails, self.error = path, fails, error or RuntimeError("no connection")

    @property
    def tracker(self) -> Path:
        return self.path

    def _line(self, call: str, **values: Any) -> None:
        if call == self.fails and values.get("step", 3) == 3:
            raise self.error
        with self.path.open("a") as stream:
            stream.write(json.dumps({"call": call, **values}) + "\n")

    def start(self) -> None:
        self._line("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._line("settings", values=values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._line("log", values=values, step=step)

    def finish(self) -> None:
        self._line("finish")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def a_run(trackers: Trackers, steps: int = 5) -> None:
    with trackers:
        for step in range(1, steps + 1):
            trackers.log(ROW | {"step": step})


def test_a_tracker_gets_the_settings_and_every_row_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    settings = {"lr": 1e-6, "tag": None, "clip": [0.2, 0.28], "resume": False}
    a_run(Trackers([FileTracker(tmp_path / "log")], tmp_path, settings, say=said.append))
    lines = lines_of(tmp_path / "log")
    assert [line["call"] for line in lines] == ["start", "settings", *["log"] * 5, "finish"]
    assert lines[1]["values"] == {"lr": 1e-6, "tag": "none", "clip": "[0.2, 0.28]", "resume": False}
    assert [line["step"] for line in lines[2:-1]] == [1, 2, 3, 4, 5]
    values = lines[2]["values"]
    assert values["seconds/rollout"] == 1.5
    assert values["grad_norm"] == 1.5
    assert "between_share" not in values
    assert "step" not in values
    assert said == []


@pytest.mark.parametrize("call", ["start", "settings", "log", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("no connection"), SystemExit(1)], ids=["error", "exit"])
def test_a_tracker_that_fails_is_said_once_and_dropped_alone(tmp_path: Path, call: str, error: BaseException) -> None:
    said: list[str] = []
    bad, good = FileTracker(tmp_path / "bad", call, error), FileTracker(tmp_path / "good")
    a_run(Trackers([bad, good], tmp_path, {}, say=said.append))
    assert len(said) == 1
    assert said[0].startswith(f"tracker file dropped: {type(error).__name__}")
    assert [line["call"] for line in lines_of(tmp_path / "good")] == ["start", "settings", *["log"] * 5, "finish"]
    seen = [line["call"] for line in lines_of(tmp_path / "bad")]
    assert (
        seen
        == ["start", "settings", *["log"] * 5, "finish"][: {"start": 0, "settings": 1, "log": 4, "finish": 7}[call]]
    )


def test_a_tracker_that_hangs_costs_no_step_and_no_end(tmp_path: Path) -> None:
    for call in ("start", "log", "finish"):
        let_go = threading.Event()

        class Hanging(FileTracker):
            def _line(self, name: str, call: str = call, let_go: threading.Event = let_go, **values: Any) -> None:
                if name == call:
                    let_go.wait(30)

        said: list[str] = []
        begun = time.monotonic()
        a_run(Trackers([Hanging(tmp_path / "x")], tmp_path, {}, say=said.append, patience=0.2), WAITING // 2)
        assert time.monotonic() - begun < 5
        assert said == [
            "tracker file dropped: it did not finish within 0.2 s. The run goes on; metrics.jsonl has every step."
        ]
        let_go.set()


def test_a_tracker_that_falls_behind_is_dropped_and_holds_no_more_rows(tmp_path: Path) -> None:
    let_go = threading.Event()

    class Slow(FileTracker):
        def start(self) -> None:
            let_go.wait(30)

    said: list[str] = []
    a_run(Trackers([Slow(tmp_path / "x")], tmp_path, {}, say=said.append), WAITING + 50)
    let_go.set()
    assert len(said) == 1
    assert f"{WAITING} steps behind" in said[0]


def test_a_tracker_that_is_not_installed_is_said_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)  # as where it is not installed
    a_run(Trackers(["trackio"], tmp_path, {}))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("tracker trackio dropped: ModuleNotFoundError") == 1


def test_what_a_tracker_prints_is_not_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Greeting(FileTracker):
        def start(self) -> None:
            print("welcome")

    a_run(Trackers([Greeting(tmp_path / "x")], tmp_path, {}))
    print("the result")
    captured = capsys.readouterr()
    assert captured.out == "the result\n"
    assert captured.err == "welcome\n"


def test_a_run_computes_the_same_without_its_trackers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    store = a_store(tmp_path / "store", clips=2).path
    plain = toy_run.a_run(store, tmp_path / "a", steps=1)
    assert toy_run.a_run(store, tmp_path / "b", steps=1, trackers=("trackio",)) == plain
    with pytest.raises(UserError, match="trackers 'trackia'"):
        toy_run.a_run(store, tmp_path / "c", trackers=("trackia",))
    assert not (tmp_path / "c").exists()  # told before any work


def test_a_tensorboard_file_has_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    said: list[str] = []
    a_run(Trackers(["tensorboard"], tmp_path, {"lr": 1e-6, "tag": None}, say=said.append))
    assert said == []
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("grad_norm")] == [(step, 1.5) for step in range(1, 6)]
    assert events.Scalars("seconds/update")[0].value == 1.0


def test_an_unknown_tracker_is_a_mistake_that_names_the_known_ones() -> None:
    assert {"tensorboard", "trackio", "wandb"} <= set(names())
    check_trackers(["tensorboard", "wandb"])
    with pytest.raises(UserError, match=r"tensorbord.*tensorboard") as error:
        check_trackers(["tensorboard", "tensorbord"])
    assert "\n" not in str(error.value)


def test_one_module_imports_trackers() -> None:
    libraries = {"tensorboard", "tensorboardX", "wandb", "trackio", "accelerate.tracking"}
    owners = {
        name_of(file)
        for file in sources()
        if any(one in libraries or one.split(".")[0] in libraries for one in imported(tree_of(file)))
    }
    assert owners == {"trainer/trackers.py"}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), JSON, max_size=4))
def test_what_is_logged_are_finite_numbers_and_settings_lose_none(values: dict[str, Any]) -> None:
    assert all(isinstance(v, int | float) and abs(v) < float("inf") for v in flat(values).values())
    kept = flat(values, texts=True)
    assert all(isinstance(v, int | float | str | bool) for v in kept.values())
    assert set(flat(values)) <= set(kept)
