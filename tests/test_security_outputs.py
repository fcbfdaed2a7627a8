"""What comes out: nothing steers a terminal, and no key or password is kept or shown."""

import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import output
from cli.data import app
from pipeline import runner, schemas
from pipeline.errors import UserError
from pipeline.safetext import redacted, visible, visible_json
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos
from tests.endpoint_server import Asked, completion, fault, serving

ORDERS = "\x1b]0;owned\x07\x1b[2J\x1b[31m\r\x08\x9b31m\x7f\u202edesrever\u2066"


def plain(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cs") for c in text) and not re.search(
        "[\u200e\u200f\u202a-\u202e\u2066-\u2069]", text
    )


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_can_be_shown(text: str) -> None:
    assert plain(visible(text))
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text
    assert plain(visible_json(json.dumps(text, ensure_ascii=False)))


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    texts = {"question": f"what {ORDERS}?", "source": f"src {ORDERS}", "split": f"train{ORDERS}"}
    add_samples(store, [a_sample("a", "v1", **texts), a_sample("b", "v1", "grounding", **texts)])
    failed = {"stage": f"ingest {ORDERS}", "key": f"k{ORDERS}", "reason": f"r{ORDERS}", "message": f"[red]{ORDERS}[/x]"}
    failed |= {"kept": False, "fingerprint": "f"}  # type: ignore[dict-item]
    store.append("quarantine", pa.Table.from_pylist([failed], schema=schemas.QUARANTINE))
    return store


def command(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False, prog_name="strive-data")


@pytest.mark.parametrize(
    "words",
    [["status"], ["quarantine"], ["inspect", "samples"], ["inspect", "samples", "--columns", "question,source"]],
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_a_store_holds_does_not_steer_the_terminal(
    store: Store, words: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command(*words, *more, "--store", store.path)
    out = capsys.readouterr().out
    assert plain(out)
    assert "\\x1b" in out or "\\u001b" in out
    if more:
        assert ORDERS in json.dumps(json.loads(out), ensure_ascii=False).encode().decode(
            "unicode_escape", "ignore"
        ) or (ORDERS in str(json.loads(out)).encode().decode("unicode_escape", "ignore"))


def test_an_error_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(**options: Any) -> None:
        raise UserError(f"file {ORDERS}", "another name", f"rename {ORDERS}")

    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        output.run(wrong, "strive-data")  # type: ignore[arg-type]
    output.note(ORDERS)
    output.line(ORDERS)
    output.print_summary(ORDERS, ORDERS, ORDERS, {ORDERS: 1}, ORDERS)
    out, err = capsys.readouterr()
    assert plain(out) and plain(err)
    assert "another name" in err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:sesame@host:8000/v1", "http://***@host:8000/v1"),
        ("s3://sesame@bucket/path", "s3://***@bucket/path"),
        ("--endpoint=https://me:sesame@host", "--endpoint=https://***@host"),
        ("https://host/a?X-Amz-Signature=sesame&x=1", "https://host/a?X-Amz-Signature=***&x=1"),
        ("aws_secret_access_key=sesame", "aws_secret_access_key=***"),
        ("--storage-option=account_key=sesame", "--storage-option=account_key=***"),
        ('{"api_key": "sesame", "region": "eu"}', '{"api_key": "***", "region": "eu"}'),
        ("access_token: sesame", "access_token: ***"),
        *((text, text) for text in ("--max-tokens=64", "micro_tokens=8", "loss=token", "a@b.c", "number=mra,iou=2")),
        *((text, text) for text in ("s3://bucket/a/b@c", "http://127.0.0.1:8000/v1", "task = 'choice'", "monkey=1")),
    ],
)
def test_secrets_are_known_by_their_form(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_no_secret_is_kept_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A key from the environment and a password in the address, against a server that repeats both."""
    secrets = ("sesame-key", "hunter2", "bWU6aHVudGVyMg==")  # the last: me:hunter2, as a header has it
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    add_samples(store, [a_sample("a", "v1"), a_sample("b", "v1")])
    add_scores(store, {"a": np.linspace(0, 1, FRAMES), "b": np.linspace(0, 1, FRAMES)})
    runner.run(BuildVariants(), store)

    async def telltale(asked: Asked) -> Any:
        if asked.number % 4 == 3:
            return fault(400, f"you are {asked.headers.get('authorization')} me:hunter2 {secrets}")
        return completion("<answer>B</answer>")

    monkeypatch.setenv("STRIVE_API_KEY", "sesame-key")
    monkeypatch.setattr(os, "_exit", sys.exit)
    with serving(telltale) as server:
        url = server.url.replace("//", "//me:hunter2@")
        select = ["select", "--endpoint", url, "--policy", "toy", "--keep-all", "--draws", "4", "--concurrency", "1"]
        export = ["export", "--format", "jsonl", "--out", str(tmp_path / "out"), "--clips"]
        failing = ["select", "--endpoint", url.replace("/v1", ""), "--policy", "none", "--retries", "0"]
        for words, code in ((select, 0), (export, None), (failing, None)):
            monkeypatch.setattr(sys, "argv", ["strive-data", *words, "--store", str(store.path)])
            with pytest.raises(SystemExit) as ended:
                output.run(app, "strive-data")
            assert code is None or ended.value.code == code
        assert any("sesame-key" in str(asked.headers) or "Basic" in str(asked.headers) for asked in server.asked)
    said = "".join(capfd.readouterr())
    assert "***@127.0.0.1" in (store.path / "commands.jsonl").read_text()
    cards = list(store.path.rglob("cards/*.md"))
    assert cards and "***@127.0.0.1" in cards[0].read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret not in said
        assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert any(b"HTTP 400: you are" in path.read_bytes() for path in files), "the refusal is kept, without the secrets"
