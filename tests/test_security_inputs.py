"""Annotations and videos by somebody who means harm: other files, other rows, more than a machine holds."""

import json
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas, sources
from pipeline.decode import DecodeError, decode, packets, scan_packets
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.measures import rouge_l
from pipeline.runner import run
from pipeline.sources import Draft, Rejected
from pipeline.store import Store
from tests.clips import number_of, remux, write_clip

NAMES = (
    *("-i.mp4", "--version.mp4", "; touch x.mp4", "$(touch x).mp4", "a|b`touch x`.mp4", "%03d.mp4", "*.mp4", "~.mp4"),
    *("concat:a.mp4", "http:a.mp4", "pipe:0.mp4", "quote'\".mp4", "[red]b.mp4", "new\nline.mp4", "\x1b[31mc.mp4"),
)
OUTSIDE = (
    "../secret.mp4",
    "a/../../secret.mp4",
    "/etc/passwd",
    "..",
    ".",
    "",
    "secret\0.mp4",
    "x" * 1_000_000 + ".mp4",
)


def annotations(folder: Path, videos: list[str], **columns: Any) -> Path:
    rows = [{"video": name, "question": "what?", "answer": "a dog"} | columns for name in videos]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_video_of_any_name_is_that_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, away = tmp_path / "videos", tmp_path / "cwd"
    folder.mkdir()
    away.mkdir()
    monkeypatch.chdir(away)
    for place, name in enumerate(NAMES):
        write_clip(tmp_path / "clip.mp4", place + 1).rename(folder / name)  # known by its number of frames
    store = Store(tmp_path / "s", create=True)
    found = ingest(store, annotations(tmp_path, list(NAMES)), folder)
    assert (found.samples, found.rejected, found.videos) == (len(NAMES), 0, len(NAMES))
    run(CacheFrames(fps=10), store)
    reader = FrameReader(store)
    paths = {row["video_id"]: Path(row["path"]).name for row in store.table("videos").to_pylist()}
    assert {paths[video]: reader.count(video) for video in reader.videos} == {n: i + 1 for i, n in enumerate(NAMES)}
    assert all(number_of(reader.read(video, [0])[0]) == 0 for video in reader.videos)
    assert sorted(os.listdir(tmp_path)) == ["cwd", "rows.jsonl", "s", "videos"]
    assert not list(away.iterdir())


def test_names_that_lead_out_of_the_folder_are_rejected_each_with_a_short_reason(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_clip(tmp_path / "secret.mp4", 3)
    write_clip(folder / "a.mp4", 4)
    store = Store(tmp_path / "s", create=True)
    file = annotations(tmp_path, ["a.mp4", *OUTSIDE])
    with file.open("a") as stream:
        stream.write(json.dumps({"video": "a.mp4", "question": "how many?", "task": "x" * 1_000_000}) + "\n")
    found = ingest(store, file, folder)
    assert (found.samples, found.rejected) == (1, len(OUTSIDE) + 1)
    assert [Path(row["path"]).name for row in store.table("videos").to_pylist()] == ["a.mp4"]
    rows = store.table("quarantine").to_pylist()
    assert max(len(row["message"]) + len(row["key"]) for row in rows) < 10_000


def test_a_link_is_followed_for_it_is_the_user_who_put_it_into_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").symlink_to(write_clip(tmp_path / "elsewhere.mp4", 3))
    found = ingest(Store(tmp_path / "s", create=True), annotations(tmp_path, ["a.mp4"]), folder)
    assert (found.samples, found.videos) == (1, 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\n../secret.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile b.mp4\n"),
        ("net.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\nhttp://127.0.0.1:PORT/a.ts\n#EXT-X-ENDLIST\n"),
        ("net.mp4", "ffconcat version 1.0\nfile http://127.0.0.1:PORT/a.ts\n"),
        ("net.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video PORT RTP/AVP 96\n"),
    ],
)
def test_a_playlist_is_no_video_and_opens_nothing(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    remux(write_clip(folder / "b.mp4", 5), tmp_path / "secret.ts")
    with socket.create_server(("127.0.0.1", 0)) as door:
        file = folder / name
        file.write_text(text.replace("PORT", str(door.getsockname()[1])))
        if name.startswith("list"):  # FFmpeg itself would go where it leads
            with av.open(f"file:{file}") as container:
                assert container.streams.video
        with pytest.raises(DecodeError) as caught:
            scan_packets(file)
        assert caught.value.reason == "unreadable container"
        assert not select.select([door], [], [], 0)[0], "it was asked for over the network"


def test_a_picture_too_large_for_any_decoder_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = write_clip(tmp_path / "a.mp4", 5), write_clip(tmp_path / "b.mp4", 5, size=(192, 128))
    monkeypatch.setattr(packets, "MOST_PIXELS", 96 * 64)
    assert len(scan_packets(small).times) == 5
    with pytest.raises(DecodeError) as caught:
        scan_packets(large)
    assert caught.value.reason == "picture too large"
    # One that grows in the middle of the stream, where no container tells.
    pieces = [remux(clip, clip.with_suffix(".h264")).read_bytes() for clip in (small, large)]
    (tmp_path / "grows.h264").write_bytes(pieces[0] + pieces[1])
    assert len(scan_packets(tmp_path / "grows.h264").times) == 10
    with pytest.raises(DecodeError):
        decode(tmp_path / "grows.h264", [0.3])
    monkeypatch.undo()
    assert decode(tmp_path / "grows.h264", [0.3]).frames.shape[0] == 1


BOMBS: dict[str, Callable[[], str]] = {
    "deep.json": lambda: "[" * 200_000,
    "deep.jsonl": lambda: '{"a":' * 200_000,
    "number.json": lambda: '[{"video": "a.mp4", "answer": ' + "9" * 100_000 + "}]",
    "deep.yaml": lambda: "[" * 5_000,
    "aliases.yaml": lambda: (
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    ),
    "object.yaml": lambda: "!!python/object/apply:os.mkdir [planted]",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_file_that_grows_when_it_is_read_is_one_line_of_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.write_text(BOMBS[name]())
    begun = time.process_time()
    with pytest.raises(UserError, match="not readable as"):
        sources.read(file, "auto", None)
    assert time.process_time() - begun < 5
    assert os.listdir(tmp_path) == [name]


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    *(float("nan"), float("inf"), -1e308, 10**400, -1, True, None, "", "\0", "a\x1b[2Jb", "\ud800", "x" * 1_000_000),
    *(nested(400), {"a": {}}, [], [[]], [float("nan")] * 2, "9" * 100_000, "[" * 10_000, "1e999", "A" * 10_000),
)


@pytest.mark.parametrize(
    "field", ["video", "question", "answer", "options", "spans", "task", "id", "split", "duration"]
)
def test_a_row_of_any_values_is_a_draft_or_a_reason(tmp_path: Path, field: str) -> None:
    good = {"video": "a.mp4", "question": "what?", "answer": "A", "options": ["a dog", "a cat"], "duration": 9}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*(good | {field: value} for value in VALUES), good]))
    source, rows = sources.read(file, "generic", None)
    begun = time.process_time()
    drafts = source.drafts(rows)
    assert len(drafts) == len(VALUES) + 1
    assert isinstance(drafts[-1], Draft)
    assert all(isinstance(draft, Draft | Rejected) for draft in drafts)
    assert time.process_time() - begun < 5


@pytest.fixture(scope="module")
def a_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("sql") / "s", create=True)


@settings(max_examples=15)
@given(
    st.lists(
        st.text() | st.sampled_from(["'", "' OR '1'='1", "'; --", "\\'", "%", "\0", "a'b"]), min_size=2, unique=True
    )
)
def test_a_key_of_any_text_is_that_key_in_sql(a_store: Store, keys: list[str]) -> None:
    a_store.delete("quarantine", "true")
    row = {"stage": "t", "reason": "r", "message": "m", "kept": False, "fingerprint": "f"}
    a_store.append("quarantine", pa.Table.from_pylist([row | {"key": key} for key in keys], schema=schemas.QUARANTINE))
    a_store.remove_items("quarantine", [("t", keys[0])])
    assert sorted(a_store.table("quarantine")["key"].to_pylist()) == sorted(keys[1:])


def test_a_source_of_any_name_replaces_its_own_samples_alone(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 3)
    store = Store(tmp_path / "s", create=True)
    ingest(store, annotations(tmp_path, ["a.mp4"]), source_name="a")
    for question in ("what?", "who?"):
        found = ingest(store, annotations(tmp_path, ["a.mp4"], question=question), source_name="b' OR source = 'a")
        assert found.samples == 1
    assert sorted(store.table("samples")["source"].to_pylist()) == ["a", "b' OR source = 'a"]


def test_an_answer_of_a_hundred_thousand_words_is_scored_in_no_time() -> None:
    true = " ".join(f"w{i}" for i in range(1_000))
    begun = time.process_time()
    assert 0 < rouge_l("w1 w2 no " * 33_000, true) < 0.1
    assert rouge_l(true, true) == 1.0
    assert time.process_time() - begun < 2
