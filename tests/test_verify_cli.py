"""strive-data verify: what it prints, how it ends, and that it knows the settings that were typed."""

import json
from pathlib import Path

import pytest
import typer

from cli.recipes import commands_for, stages
from cli.verify import verify
from pipeline.errors import UserError
from pipeline.frames import CacheFrames
from pipeline.runner import run
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests import verify_world as world


def ended(**options: object) -> int:
    """The exit code of the command."""
    try:
        verify(**{"frames": "all", "pixels": 0, "seed": 0, "repair": False, "as_json": True} | options)  # type: ignore[arg-type]
    except typer.Exit as end:
        return int(end.exit_code)
    return 0


def test_verify_ends_with_1_until_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = world.annotate(tmp_path)
    store = Store(tmp_path / "store", create=True)
    world.bring(store, files)
    typed = f"strive-data cache-frames --fps 4 --store {store.path}"
    store.remember(typed)
    assert ended(store=store.path, pixels=3) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["well"], said["findings"], said["pixels_checked"], said["next"]) == (True, [], 3, [])

    world.cut(world.data_file(store, "frames"))
    assert ended(store=store.path) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(f["table"], f["what"]) for f in said["findings"]] == [("frames", "cut file")]
    assert said["next"] == [f"strive-data verify --repair --store {store.path}", typed]
    assert ended(store=store.path, as_json=False) == 1
    assert "cut file" in capsys.readouterr().out

    assert ended(store=store.path, repair=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["next"] == [typed] and len(said["repaired"]) == 1
    run(CacheFrames(fps=4), store)
    assert ended(store=store.path) == 0
    with pytest.raises(UserError, match="--frames many"):
        verify(store=store.path, frames="many")


def test_stages_have_the_settings_of_the_last_commands(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    assert stages(store) == ([], [])
    assert commands_for(store, "select") == [f"strive-data select --store {tmp_path}"]
    for words in (
        "cache-frames --fps 1",
        "ingest a.json",
        "ingest b.json",
        "cache-frames --fps 3 --codec jpeg --strict",
    ):
        store.remember(f"strive-data {words} --store {tmp_path}")
    store.remember("strive-data build-variants --variants 2 --frames 5 --no-spatial --sampler bolt")
    store.remember("strive-data score-frames --model nowhere --store x")
    found, skipped = stages(store)
    assert found[0] == CacheFrames(fps=3, codec="jpeg", strict=True)
    views = found[1]
    assert isinstance(views, BuildVariants) and len(found) == 2
    assert (views.m, views.frames, views.spatial, views.sampler) == (2, 5, False, "bolt")
    assert len(skipped) == 1 and "nowhere" in skipped[0]
    assert [c.split()[2] for c in commands_for(store, "ingest")] == ["a.json", "b.json"]
    assert commands_for(store, "cache-frames")[0].split()[3] == "3"
