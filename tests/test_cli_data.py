"""strive-data as users type it: reports, one JSON object on stdout, one line for a mistake."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import output
from pipeline.framereader import FrameReader
from pipeline.store import Store
from tests.clips import write_clip

ROOT = Path(__file__).parent.parent


def start(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cli.data", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def typed(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    process = start(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def reported(*words: object) -> dict[str, Any]:
    """The one JSON object that a command prints with --json."""
    code, out, err = typed(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two videos and a broken one, ingested and cached; what each command reported."""
    folder = tmp_path_factory.mktemp("line")
    for place, name in enumerate("ab"):
        write_clip(folder / f"{name}.mp4", 20, tint=50 * place)
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:-300])
    rows = [{"video": f"{name}.mp4", "question": "what?", "answer": "a dog"} for name in ("a", "b", "broken", "none")]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = folder / "store"
    found = {"folder": folder, "store": store}
    found["ingest"] = reported("ingest", folder / "mine.jsonl", "--store", store)
    found["ingest again"] = reported("ingest", folder / "mine.jsonl", "--store", store)
    found["cache"] = reported("cache-frames", "--store", store, "--fps", 4)
    found["cache again"] = reported("cache-frames", "--store", store, "--fps", 4)
    found["status"] = reported("status", "--store", store)
    return found


def test_ingest_reports_what_became_of_the_rows(line: dict[str, Any]) -> None:
    found = line["ingest"]
    assert (found["rows"], found["samples"], found["rejected"], found["repaired"]) == (4, 2, 2, 0)
    assert found["reasons"]["missing file"] == 1
    assert found["next"].startswith("strive-data cache-frames")
    again = line["ingest again"]
    assert (again["samples"], again["added"], again["removed"], again["videos_added"]) == (2, 0, 0, 0)
    assert again["reasons"] == found["reasons"]


def test_a_second_run_says_0_to_do(line: dict[str, Any]) -> None:
    assert (line["cache"]["to_do"], line["cache"]["done"]) == (2, 2)
    assert line["cache"]["estimated_bytes"] == line["cache"]["rows"] * 96 * 64 * 3
    assert (line["cache again"]["to_do"], line["cache again"]["already"], line["cache again"]["rows"]) == (0, 2, 0)


def test_status_shows_the_store(line: dict[str, Any]) -> None:
    found = line["status"]
    assert {name: (t["rows"], t["items"], t["stale"]) for name, t in found["tables"].items() if t["rows"]} == {
        "videos": (2, 2, 0),
        "samples": (2, 2, 0),
        "frames": (16, 2, 0),
    }
    assert found["tables"]["frames"]["fingerprints"] == 2
    assert found["quarantine"]["ingest mine"]["missing file"] == 1
    assert found["bytes"] >= sum(t["bytes"] for t in found["tables"].values()) > 16 * 96 * 64 * 3


def test_changing_the_rate_redoes_the_frames(line: dict[str, Any], tmp_path: Path) -> None:
    changed = reported("cache-frames", "--store", line["store"], "--fps", 2, "--codec", "jpeg", "--short-side", 32)
    assert (changed["stale"], changed["done"]) == (2, 2)
    reader = FrameReader(Store(line["store"]))
    assert [reader.count(video) for video in reader.videos] == [4, 4]
    assert [reader.size(video) for video in reader.videos] == [(32, 48)] * 2


def test_stale_rows_are_counted(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 20)
    (tmp_path / "m.jsonl").write_text(json.dumps({"video": "a.mp4", "question": "what?", "answer": "a dog"}))
    reported("ingest", tmp_path / "m.jsonl", "--store", tmp_path / "s")
    reported("cache-frames", "--store", tmp_path / "s")
    store = Store(tmp_path / "s")
    store.delete("videos", "true")
    tables = reported("status", "--store", tmp_path / "s")["tables"]
    assert (tables["samples"]["stale"], tables["frames"]["stale"]) == (1, store.count("frames"))


def test_a_toy_world_of_one_clip_has_no_question_of_grounding(tmp_path: Path) -> None:
    found = reported("ingest", "--store", tmp_path / "s", "--clips", 1, "--workers", 0)
    assert found["samples"] == 5 and [Path(f["source"]).name for f in found["files"]] == ["toyworld-train"]


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
    process = start("ingest", "--store", tmp_path / "s", "--clips", 20_000)
    signal.signal(signal.SIGINT, before)
    assert process.stderr and process.stderr.readline().startswith("writing the toy world")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    said = "error: interrupted; what was finished is kept, the same command goes on from there\n"
    assert (process.returncode, out, err) == (output.INTERRUPTED, "", said)


def test_without_a_file_the_toy_world_is_ingested(tmp_path: Path) -> None:
    first = reported("ingest", "--store", tmp_path / "s", "--clips", 2, "--workers", 0)
    assert (first["videos"], first["videos_added"], first["rejected"]) == (2, 2, 0)
    assert first["samples"] == first["added"] == sum(first["tasks"].values()) > 2
    again = reported("ingest", "--store", tmp_path / "s", "--clips", 2, "--workers", 0)
    assert (again["samples"], again["added"], again["removed"]) == (first["samples"], 0, 0)


def test_people_get_a_short_table(line: dict[str, Any]) -> None:
    code, out, _ = typed("ingest", line["folder"] / "mine.jsonl", "--store", line["store"])
    assert code == 0
    for word in ("came in", "4 rows", "went out", "2 samples", "left out", "1 missing file", "next"):
        assert word in out
    code, out, _ = typed("status", "--store", line["store"])
    assert code == 0
    assert "quarantine" in out


def test_inspect_looks_into_tables(line: dict[str, Any]) -> None:
    found = reported("inspect", "samples", "--store", line["store"], "--columns", "question,answer", "--limit", 1)
    assert found == {
        "table": "samples",
        "rows": 2,
        "columns": ["question", "answer"],
        "records": [{"question": "what?", "answer": "a dog"}],
    }
    frames = reported(
        "inspect", "frames", "--store", line["store"], "--where", '"index" = 0', "--columns", "pixels,time_s"
    )
    assert frames["rows"] == 2
    assert all(record["pixels"].endswith(" bytes>") for record in frames["records"])
    code, out, _ = typed("inspect", "--store", line["store"])
    assert code == 0
    assert "frames: " in out


def test_mistakes_end_with_one_line_and_exit_code_2(line: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "one.jsonl").write_text(json.dumps({"question": "what?", "answer": "a dog"}))
    (tmp_path / "two.jsonl").write_text(json.dumps({"video": "no.mp4", "question": "what?", "answer": "a dog"}))
    (tmp_path / "future").mkdir()
    (tmp_path / "future" / "store.json").write_text('{"store_version": 99}')
    store, new = ("--store", line["store"]), ("--store", tmp_path / "new")
    mistakes: list[tuple[tuple[object, ...], str]] = [
        (("ingest", tmp_path / "none.json", *new), "no such file"),
        (("ingest", tmp_path / "empty.json", *new), "no rows"),
        (("ingest", tmp_path / "list.json", *new), "no rows"),
        (("ingest", tmp_path / "one.jsonl", *new), "no video named"),
        (("ingest", tmp_path / "two.jsonl", *new), "missing file"),
        (("ingest", tmp_path / "two.jsonl", *new, "--map", "question"), "FIELD=COLUMN"),
        (("ingest", "--clips", "0", *new), "--clips 0"),
        (("status", "--store", tmp_path / "future"), "version 99"),
        (("cache-frames", "--store", tmp_path / "future"), "version 99"),
        (("cache-frames", "--store", tmp_path / "nowhere"), "no store here"),
        (("cache-frames", *store, "--workers", "0"), "--workers 0"),
        (("cache-frames", *store, "--fps", "0"), "--fps 0"),
        (("cache-frames", *store, "--fps", "many"), "--fps"),
        (("inspect", "pictures", *store), "pictures"),
        (("inspect", "curated:none", *store), "none"),
        (("inspect", "samples", *store, "--where", "nothing = 1"), "nothing"),
        (("inspect", "samples", *store, "--columns", "nothing"), "nothing"),
        (("dance",), "dance"),
    ]
    for at in range(0, len(mistakes), 4):
        running = [(start(*words), words, said) for words, said in mistakes[at : at + 4]]
        for process, words, said in running:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 2, (words, err)
            assert out == "", words
            lines = err.strip().splitlines()
            assert len(lines) == 1, (words, err)
            assert lines[0].startswith("error: "), words
            assert said in lines[0], (words, err)
            assert "Next: " in lines[0], (words, err)


def test_help_and_version_are_complete() -> None:
    running = [
        start(),
        start("--version"),
        *(start(name, "--help") for name in ("ingest", "cache-frames", "status", "inspect")),
    ]
    texts = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 6
    for name in ("ingest", "cache-frames", "score-frames", "build-variants", "select", "status", "inspect"):
        assert name in texts[0]
    assert texts[1].startswith("strive-data ")
    for option in ("--store", "--json", "--deadline", "--workers", "--codec", "--max-frames", "--short-side", "--fps"):
        assert option in texts[3]


def test_json_knows_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (1, None)}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": [1, None]}}


def test_bars_are_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    bar = output.Bar()
    bar.start("work", 3)
    bar.advance(3)
    bar.stop()
    assert capsys.readouterr() == ("", "")


def test_texts_of_users_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """rich reads [red] as a colour and fails on [/x]."""
    output.print_table("[/t]", ["a"], [["is it [red] or [/x]?"]])
    output.print_records("wide", list("abcdefgh"), [dict.fromkeys("abcdefgh", "[/y]")])
    output.print_summary("s", "[/in]", "[out]", {"[/why]": 1}, "next")
    shown = capsys.readouterr().out
    for text in ("[/t]", "is it [red] or [/x]?", "[/y]", "[/in]", "[out]", "1 [/why]"):
        assert text in shown


def test_sizes_read_well() -> None:
    assert [output.size(n) for n in (0, 999, 1500, 2_500_000, 3 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2.5 MB",
        "3.0 TB",
    ]


def test_annotations_alone_and_what_failed(tmp_path: Path) -> None:
    """A file of annotations is worth looking into before its videos have been fetched."""
    rows = [
        {"video": "v1", "timestamp": [1.0, 2.0], "sentence": "it begins", "duration": 9.0},
        {"video": "v1", "timestamp": [5.0, 900.0], "sentence": "it ends", "duration": 9.0},
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    found = reported("ingest", tmp_path / "train.json", "--store", tmp_path / "s")
    assert (found["format"], found["samples"], found["rejected"], found["waiting"]) == ("time-r1", 1, 1, 1)
    assert found["reasons"] == {"span out of range": 1}
    assert found["next"].endswith("--videos DIR")
    status = reported("status", "--store", tmp_path / "s")
    assert status["rejected"] == {"time-r1-train": {"span out of range": 1}}
    assert status["waiting"] == {"time-r1-train": 1}

    listed = reported("quarantine", "--store", tmp_path / "s")
    assert [(row["stage"], row["reason"]) for row in listed["records"]] == [
        ("ingest time-r1-train", "span out of range"),
        ("probe time-r1-train", "missing file"),
    ]
    assert listed["next"] == []
    only = reported("quarantine", "--store", tmp_path / "s", "--reason", "missing", "--retry")
    assert (only["rows"], only["next"]) == (1, [f"strive-data ingest --store {tmp_path / 's'}"])
    assert reported("quarantine", "--store", tmp_path / "s")["rows"] == 1
    code, out, _ = typed("quarantine", "--store", tmp_path / "s")
    assert code == 0
    assert "span out of range" in out
    for words, said in ((("--stage", "poems"), "the stages are"), (("--reason", "poems"), "the reasons are")):
        code, out, err = typed("quarantine", "--store", tmp_path / "s", *words)
        assert (code, out) == (2, "")
        assert said in err
    code, _, err = typed("ingest", tmp_path / "train.json", "--videos", tmp_path / "none", "--store", tmp_path / "s")
    assert code == 2
    assert "no such folder" in err
