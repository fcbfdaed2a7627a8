"""The whole line on an object store, by the real programs: what a folder holds, no secret anywhere, one line for a
mistake."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import data, storage, train
from pipeline.errors import UserError
from pipeline.schemas import TABLES
from pipeline.store import Store
from pipeline.store.location import read_options, share
from tests.s3_server import SECRET, Server, serving
from toyworld import dataset
from trainer.config import RunConfig, SftConfig
from trainer.settings import build

ROOT = Path(__file__).parent.parent

Line = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """Types a command in this process, and returns what it printed on stdout."""
    apps = {data.PROGRAM: data.app, train.PROGRAM: train.app}

    def type_(program: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [program, *words])
        apps[program](list(words), standalone_mode=False)
        return capfd.readouterr().out

    yield type_
    share({})


def secret_file(server: Server, folder: Path) -> Path:
    file = folder / "s3.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in server.options.items()))
    return file


def sorted_rows(store: Store, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.table(name).to_pylist()
    return sorted(rows, key=repr)


def test_the_whole_line_gives_what_it_gives_in_a_folder(server: Server, tmp_path: Path, line: Line) -> None:
    (annotations, *_) = dataset.write(tmp_path / "toy", 2, 0, "train")
    options = str(secret_file(server, tmp_path))
    remote = ["--store", "s3://lab/runs/toy", "--storage", options]
    printed: list[str] = []
    stages = (
        ("ingest", str(annotations), "--source", "toy"),
        ("cache-frames", "--fps", "2", "--workers", "1"),
        ("score-frames",),
        ("build-variants", "--variants", "2"),
        ("select", "--draws", "2", "--min-var", "0", "--tag", "v1"),
        ("search", "a red circle"),
        ("cache-frames", "--fps", "2", "--json"),
    )
    for place in (["--store", str(tmp_path / "store")], remote):
        printed += [line("strive-data", *words, *place) for words in stages]
        assert json.loads(printed[-1])["to_do"] == 0, "the second time there is nothing to do"
    there, here = Store("s3://lab/runs/toy"), Store(tmp_path / "store")
    for name in TABLES:
        assert sorted_rows(there, name) == sorted_rows(here, name), name
        assert there.count(name) > 0 or name in ("quarantine", "overlaps", "overlap_checks")
    assert there.curated("default", "v1").equals(here.curated("default", "v1"))
    assert there.verdicts("default", "v1").equals(here.verdicts("default", "v1"))
    assert there.card("default", "v1").startswith("---")

    config = tmp_path / "run.toml"
    config.write_text(f'store = "s3://lab/runs/toy"\nsteps = 1\n[storage]\n{Path(options).read_text()}')
    printed.append(
        line("strive-train", "run", "--config", str(config), "--out", str(tmp_path / "run"), "--groups", "1")
        + line("strive-train", "eval", *remote, "--limit", "1", "--out", str(tmp_path / "eval"), "--max-tokens", "8")
    )
    others = (
        *(("status",), ("inspect",), ("inspect", "samples"), ("quarantine",), ("duplicates",)),
        *(("show", "--out", str(tmp_path / "show.png")), ("diff", "v1", "v1")),
        *(
            ("report", "--out", str(tmp_path / "page.html")),
            ("export", "--format", "jsonl", "--out", str(tmp_path / "out")),
        ),
    )
    printed += [line("strive-data", *words, *remote) for words in others]
    status = json.loads(line("strive-data", "status", *remote, "--json"))
    assert status["store"] == "s3://lab/runs/toy"
    assert status["tables"]["frames"]["bytes"] > 0
    assert not any(table["stale"] for table in status["tables"].values())
    assert f"--store s3://lab/runs/toy --storage {options}" in " ".join("".join(printed).replace("│", " ").split())
    assert there.commands()[0].startswith("strive-data ingest")
    _holds_no_secret(tmp_path, "".join(printed))


def _holds_no_secret(folder: Path, printed: str) -> None:
    assert SECRET not in printed
    holding = [p for p in folder.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert sorted(holding) == [folder / "run.toml", folder / "s3.toml"]


def test_secrets_on_the_command_line_go_no_further(
    server: Server, tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for pair in server.options.items() for word in ("--storage-option", "=".join(pair))]
    place = ["--store", "s3://lab/by words", *words[:-2], f"{words[-2]}={words[-1]}"]
    printed = line("strive-data", "ingest", "--clips", "2", *place)
    (command,) = Store("s3://lab/by words").commands()
    assert "aws_secret_access_key=***" in command
    assert "allow_http=true" in command
    assert (tmp_path / "strive-toyworld").is_dir()
    kept = [p.read_bytes() for p in Path(server.folder).rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in content for content in (*kept, printed.encode()))
    message = storage.again("error: x. Next: strive-data ingest --store s3://lab/y")
    assert message.startswith("error: x. Next: strive-data ingest --store s3://lab/y --storage-option aws_endpoint=")
    assert SECRET not in message


def test_the_environment_is_enough(server: Server, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    Store("s3://lab/env", create=True, options=server.options)
    for name, value in server.options.items():
        monkeypatch.setenv(name.upper(), value)
    assert (
        json.loads(line("strive-data", "status", "--store", "s3://lab/env", "--json"))["tables"]["frames"]["rows"] == 0
    )


def test_a_config_names_a_store_without_mangling_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('store = "s3://lab/x"\n[storage]\naws_secret_access_key = "s3cret"\n')
    config = build(RunConfig, base={"policy": "p"}, file=tmp_path / "c.toml")
    assert config.store == "s3://lab/x"
    assert json.loads(config.model_dump_json())["store"] == "s3://lab/x"
    assert "s3cret" not in repr(config)
    with pytest.raises(UserError, match="one value each"):
        read_options(None, (), {"storage": {"nested": 1}})
    assert SftConfig(policy="p", store=tmp_path).store == str(tmp_path)
    with pytest.raises(UserError, match="store"):
        build(RunConfig, base={"policy": "p"}, options={"store": 3})


BAD: list[tuple[list[str], str]] = [
    (["--store", "ftp://x/y"], "ftp:// is not known"),
    (["--store", "s3://nobody/y", "--storage", "s3.toml"], "no such bucket"),
    (["--store", "s3://lab/y", "--storage", "s3.toml", "--storage-option", "aws_access_key_id=x"], "access is refused"),
    (["--store", "s3://lab/y", "--storage", "none.toml"], "expected a TOML or JSON file"),
]


@pytest.mark.parametrize(("words", "expected"), BAD)
def test_a_mistake_is_one_line(
    server: Server,
    tmp_path: Path,
    words: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    secret_file(server, tmp_path)
    command = [sys.executable, "-m", "cli.data", "status", *words]
    begun = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert time.monotonic() - begun < 60
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr
    assert SECRET not in done.stderr
