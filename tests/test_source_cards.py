"""The cards: one for every source, in one order, and true: their examples are read by the adapters they describe."""

import importlib
import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from cli.sources import sources as command
from pipeline import source_cards as cards
from pipeline import spans, videofolder
from pipeline.errors import UserError
from pipeline.schemas import TASKS
from pipeline.sources import SOURCES, Draft, Rejected, Source, find, generic, is_evaluation, read
from pipeline.sources import draft as checks
from tests import card_parts as parts
from tests.card_sources import ROOT, asked_for, literals, made, modules, reasons
from tests.real_data import real_folder

NAMES = [source.name for source in SOURCES]
NO_SOURCES = {"TEMPLATE", "toyworld"}  # how a card is written, and a world that has no adapter of its own

REAL = (
    *("nextqa/val.csv", "nextqa/test.csv", "nextgqa/val.csv", "nextgqa/test.csv"),
    *("charades_sta/charades_sta_train.txt", "charades_sta/charades_sta_test.txt"),
    *("activitynet_captions/train.json", "activitynet_captions/val.json", "activitynet_captions/test.json"),
    *("time_r1/train_2k5.json", "time_r1/tvgbench.json"),
)

_ABSOLUTE = re.compile(r"(?:^|[\s`\"'(=])(/[A-Za-z][\w.-]*/|~/|[A-Z]:\\)", re.MULTILINE)


def as_rows(drafts: list[Draft | Rejected]) -> list[dict[str, Any]]:
    """Drafts as a card shows them."""
    return [
        {"rejected": draft.reason}
        if isinstance(draft, Rejected)
        else {
            "task": draft.task,
            "question": draft.question,
            "options": list(draft.options),
            "answer": draft.answer,
            "spans": [list(span) for span in draft.spans],
        }
        for draft in drafts
    ]


def write(block: parts.Block, folder: Path) -> Path:
    """The file that a block of a card stands for; a parquet file is shown as the JSON list of its rows."""
    file = folder / block.title
    assert file.parent == folder and block.language == {".parquet": "json", ".txt": "text"}.get(
        file.suffix, file.suffix[1:]
    )
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(json.loads(block.text)), file)
    else:
        file.write_text(block.text, encoding="utf-8")
    return file


def left_out(name: str) -> str:
    """What a card says of rows that are left out or repaired, on one line."""
    return " ".join(parts.sections(cards.card(name))["What is left out and repaired"].split())


def run(*words: str) -> tuple[int, str, BaseException | None]:
    """Exit code, stdout and error of `sources` in an app of its own."""
    app = typer.Typer()
    app.command("sources")(command)
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "80"})
    return done.exit_code, done.stdout, done.exception


def test_every_source_has_a_card_and_every_card_a_source() -> None:
    files = {file.stem for file in (ROOT / "data_cards").glob("*.md")}
    assert files - NO_SOURCES == set(NAMES)
    assert cards.names() == NAMES


def test_cards_are_packaged() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert cards.PACKAGE in build["packages"]["find"]["include"]
    assert build["package-data"][cards.PACKAGE] == ["*.md"]
    assert importlib.import_module(cards.PACKAGE).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_sections_stand_in_their_order(name: str) -> None:
    text = cards.card(name)
    assert text.startswith("# ") and text.endswith("\n")
    found = parts.sections(text)
    assert tuple(found) == parts.SECTIONS
    assert all(found.values()), "a section is empty"


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_those_of_the_source(name: str) -> None:
    named = set(parts.named(parts.sections(cards.card(name))["Task"]))
    assert named & set(TASKS) == set(find(name).tasks)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_becomes_what_the_card_says(name: str, tmp_path: Path) -> None:
    *files, told = parts.examples(cards.card(name))
    assert files and told.title == parts.SAMPLES and told.language == "json"
    main, *_ = [write(block, tmp_path) for block in files]
    source, rows = read(main)
    assert source.name == name
    drafts = source.drafts(rows)
    assert as_rows(drafts) == json.loads(told.text)
    assert any(isinstance(draft, Draft) for draft in drafts)


@pytest.mark.parametrize("name", NAMES)
def test_the_split_of_the_example_is_named(name: str) -> None:
    """A reader finds, under "Use", the split that the example's file would get."""
    source = find(name)
    main = parts.examples(cards.card(name))[0]
    split = source.split(main.title.split(".")[0]) or source.default_split
    assert re.search(rf"\b{split}\b", parts.sections(cards.card(name))["Use"])


@pytest.mark.parametrize("file", REAL)
def test_sizes_are_those_of_the_real_files(file: str) -> None:
    source, rows = read(real_folder("annotations") / file)
    size = parts.sections(cards.card(source.name))["Size"]
    assert f"{len(rows):,}" in size
    videos = {row.get("video") or row.get("video_id") or row.get("path") for row in rows}
    assert f"{len(videos):,}" in size


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_field_of_the_table_is_read_or_said_not_to_be(source: Source) -> None:
    known = literals(source)
    patterns = [text for text in known if "(?:" in text]  # of columns whose names differ by a number
    table = parts.fields(cards.card(source.name))
    assert table
    told = [name for row in table if "not read" not in row.becomes for name in row.fields]
    wrong = {name for name in told if name not in known and not any(re.fullmatch(p, name) for p in patterns)}
    assert not wrong, f"not in the adapter: {wrong}"


def test_the_generic_card_tells_all_that_a_mapping_may_name() -> None:
    assert {name for row in parts.fields(cards.card("generic")) for name in row.fields} == set(generic.FIELDS)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_column_that_is_asked_for_is_told(source: Source) -> None:
    text = parts.sections(cards.card(source.name))["Files and fields"]
    told = {word for name in parts.named(text) for word in (name, *re.findall(r"\w+", name))}
    missing = asked_for(source) - told - made(source)
    assert not missing, f"the card is silent on {sorted(missing)}"


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_every_reason_of_an_adapter_is_told(source: Source) -> None:
    """A reason of the whole file is an error, and no row's."""
    told = left_out(source.name)
    missing = {reason for reason in reasons(modules(source)[0]) if reason not in told} - {"unexpected layout"}
    assert not missing
    shown = json.loads(parts.examples(cards.card(source.name))[-1].text)
    assert all(row["rejected"] in told for row in shown if "rejected" in row)


def test_the_reasons_that_all_sources_share_are_told_once() -> None:
    """Those of the common checks, and every repair."""
    told = left_out("generic")
    missing = {text for module in (checks, spans, videofolder) for text in reasons(module) if text not in told}
    assert missing <= {"no video length", "cut outside the video", "unreadable cut"}  # of the sources that have them
    repairs = re.findall(r'repairs\.append\("([^"]+)"\)', inspect.getsource(checks) + inspect.getsource(spans))
    assert repairs and not [text for text in repairs if text not in told]


@pytest.mark.parametrize("name", sorted({*NAMES, *NO_SOURCES}))
def test_cards_name_no_absolute_path(name: str) -> None:
    text = (ROOT / "data_cards" / f"{name}.md").read_text(encoding="utf-8")
    assert not _ABSOLUTE.findall(text)


@pytest.mark.parametrize("name", sorted({*NAMES, *NO_SOURCES}))
def test_lines_are_short_but_for_tables_and_jsonl(name: str) -> None:
    text = (ROOT / "data_cards" / f"{name}.md").read_text(encoding="utf-8")
    long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("| ", "{"))]
    assert not long


def test_the_files_of_an_example_are_named_where_fences_are_not_shown() -> None:
    text = cards.titled(cards.card("nextgqa"))
    for name in ("val.csv", "gsub_val.json", "samples"):
        assert f"`{name}`:\n\n```" in text
    assert "title=" not in text


def test_unknown_cards_are_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"one of .*nextgqa.*Next: strive-data sources"):
        cards.card("nextgpa")
    with pytest.raises(UserError):
        cards.card("../README")


def test_examples_and_fields_are_parsed() -> None:
    text = (
        "# A\n\n## Files and fields\n\n| field | becomes |\n|---|---|\n| `a`, `b` | `x` and \\| y |\n"
        "| `c` | not read |\n\n"
        '## Example\n\n```csv title="a.csv"\nx,y\n```\n\n```json\n[1]\n```\n\n```json title="samples"\n[]\n```\n'
    )
    assert parts.examples(text) == [parts.Block("csv", "a.csv", "x,y\n"), parts.Block("json", "samples", "[]\n")]
    assert [row.fields for row in parts.fields(text)] == [("a", "b"), ("c",)]
    assert list(parts.sections(text)) == ["Files and fields", "Example"]


def test_the_paths_rule_catches_what_it_forbids() -> None:
    caught = ["see /home/me/x", "`/data/x`", "--videos=/mnt/x", "~/x", "C:\\x"]
    allowed = ["and/or", "a / b", "./videos/x", "videos/Art/0.mp4", "https://a.b/c/d", "owner/name"]
    assert all(_ABSOLUTE.search(text) for text in caught)
    assert not [text for text in allowed if _ABSOLUTE.search(text)]


def test_sources_lists_all() -> None:
    code, out, _ = run()
    assert code == 0
    for name in NAMES:
        assert re.search(rf"│ {name} ", out), name
    code, out, _ = run("--json")
    found = json.loads(out)
    assert code == 0 and list(found) == ["sources"]
    assert [s["name"] for s in found["sources"]] == NAMES
    for listed, source in zip(found["sources"], SOURCES, strict=True):
        assert listed == {
            "name": source.name,
            "title": source.title,
            "tasks": list(source.tasks),
            "split": source.default_split,
            "evaluation": is_evaluation(source.default_split),
        }


@pytest.mark.parametrize("name", NAMES)
def test_sources_shows_a_card(name: str) -> None:
    code, out, _ = run(name)
    assert code == 0 and out == cards.card(name)
    code, out, _ = run(name, "--json")
    source = find(name)
    assert json.loads(out) == {
        "name": name,
        "title": source.title,
        "tasks": list(source.tasks),
        "card": cards.card(name),
    }


def test_sources_says_which_there_are() -> None:
    _, _, error = run("nextgpa")
    assert isinstance(error, UserError) and "nextgqa" in str(error)
