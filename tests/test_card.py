"""The data card of a curated dataset: what it tells, in what layout, and that no text can break it."""

import contextlib
import io
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import overlaps, source_cards
from pipeline.card import render
from pipeline.groups import wilson
from pipeline.markdown import cell, fence, head, table
from pipeline.overlaps import Found, Overlap, Recipe
from pipeline.store import Store
from pipeline.summary import ViewCounts, overlap_facts, view_counts
from tests import tags
from tests.card_parts import sections

VIEWS = ViewCounts(Counter({4: 9}), Counter({"anchor": 9, "importance": 27}), Counter({8: 36}))
OVERLAPS = {"leaks": "Nobody looked for leaks.", "duplicates": "Looked for: 0 pairs."}
COMMANDS = ["strive-data ingest a.json", "strive-data select --min-var 0.1"]
SECTIONS = (
    "What it is for",
    "What was left out, and why",
    "Sources and licences",
    "Policy and draws",
    "Reward spread",
    "Without frames, and with one",
    "Overlap with benchmarks",
    "Views",
    "How it was made",
    "How to open it",
    "Limits",
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
hostile = texts | st.sampled_from(
    [
        "a | b",
        "---",
        "\n---\n",
        "```\n````",
        "<script>alert(1)</script>",
        "[x](http://x)",
        ": {",
        "&amp;",
        "a\\|b",
        "\u2028",
    ]
)
steady = settings(deadline=None, max_examples=60)


def frames(judged: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(tags.curated(judged).drop_columns(["variants"])))


def card(judged: pl.DataFrame | None = None, facts: dict[str, str] | None = None, **changes: Any) -> str:
    pool = tags.verdicts(60) if judged is None else judged
    given_ = {"overlaps": OVERLAPS, "commands": COMMANDS, "views": VIEWS} | changes
    return render(facts or tags.facts(), frames(pool), pool, **given_)


def head_of(text: str) -> dict[str, Any]:
    """The yaml head, read as the Hub reads it."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found is not None
    values: dict[str, Any] = yaml.safe_load(found[1])
    return values


def rows_of(section: str) -> list[list[str]]:
    """The cells of all table lines of a section, dashes left out."""
    lines = [line for line in section.splitlines() if line.startswith("| ") and not set(line) <= set("| -")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_card_has_its_sections_in_order() -> None:
    text = card()
    assert tuple(sections(text)) == SECTIONS
    assert text == card()
    assert text.endswith("\n") and "\n\n\n" not in text


def test_the_head_is_the_hubs() -> None:
    values = head_of(card())
    assert values["pretty_name"] == "d"
    assert values["license"] == "other" and values["license_name"] == "terms-of-the-sources"
    assert values["size_categories"] == ["n<1K"]
    assert values["source_datasets"] == ["nextgqa", "toyworld"]
    assert values["configs"] == [{"config_name": "default", "data_files": ["data/*.lance", "_versions/*"]}]
    assert {"video-text-to-text"} <= set(values["task_categories"])
    assert values["version"] == "first"


@pytest.mark.parametrize(
    ("datasets", "licence"),
    [({"toyworld"}, "apache-2.0"), ({"perception-test"}, "cc-by-4.0"), ({"perception-test", "toyworld"}, "other")],
)
def test_one_licence_that_covers_everything_is_named(datasets: set[str], licence: str) -> None:
    pool = tags.verdicts(60).with_columns(dataset=pl.Series(sorted(datasets) * (60 // len(datasets))))
    assert head_of(card(pool))["license"] == licence


def test_every_source_card_tells_its_licence() -> None:
    for name in [*source_cards.names(), "toyworld"]:
        text = source_cards.licence(name)
        assert text and text.endswith(".") and "\n" not in text and "##" not in text
    assert source_cards.licence("nextgqa").startswith("Annotations: MIT")  # type: ignore[union-attr]
    assert [source_cards.licence(name) for name in ("TEMPLATE", "../README", "__init__", "", "nobody's")] == [None] * 5
    assert source_cards.hub_licence("Annotations: MIT. Videos: not stated.") is None


def test_the_whole_licence_stands_in_the_card() -> None:
    pool = tags.verdicts(60).with_columns(dataset=pl.lit("video-mme"))
    said = source_cards.licence("video-mme")
    assert said is not None and said in card(pool)
    assert "no card here tells" in card(pool.with_columns(dataset=pl.lit("somebody's")))


def test_the_funnel_by_task_and_source_adds_up() -> None:
    pool = tags.verdicts(60)
    rows = rows_of(sections(card(pool))["What was left out, and why"])
    heads = [i for i, row in enumerate(rows) if row[1] == "pool"]
    assert len(heads) == 2
    for start, by in zip(heads, ("task", "source"), strict=True):
        reasons = rows[start][4:]
        assert set(reasons) == set(pool["reason"]) - {""}
        for row in rows[start + 1 : start + 1 + 3]:
            mine = pool if row[0] == "all" else pool.filter(pl.col(by) == row[0])
            kept = mine.filter(pl.col("reason") == "").height
            low, high = wilson(kept, mine.height)
            assert row[1:4] == [str(mine.height), str(kept), f"{kept / mine.height:.3f} ({low:.3f} to {high:.3f})"]
            assert [int(n) for n in row[4:]] == [mine.filter(pl.col("reason") == r).height for r in reasons]


def test_the_card_tells_settings_draws_and_gaps() -> None:
    text = card()
    parts = sections(text)
    assert "| least variance, grounding | 0.01 |" in parts["What was left out, and why"]
    assert "| max_blind_acc | 0.5 |" in parts["What was left out, and why"]
    assert "| exclude | leaks |" in parts["What was left out, and why"]
    assert "min_acc" not in parts["What was left out, and why"]  # it was not set
    for name in ("policy", "temperature", "seed", "drawing", "max_tokens", "views"):
        assert f"| {name} | {tags.facts()[name]} |" in parts["Policy and draws"]
    assert "432 draws of 54 samples: 8 to 8 a sample, median 8." in parts["Policy and draws"]
    assert "No sample was asked with one frame" in parts["Without frames, and with one"]
    assert "| source0 | blind |" in parts["Without frames, and with one"]
    assert "- leaks: Nobody looked for leaks." in parts["Overlap with benchmarks"]
    assert "importance (27)" in parts["Views"]
    for wanted in ("| torch |", "| polars |", "0123456789abcdef", *COMMANDS):
        assert wanted in parts["How it was made"]


def test_adaptive_drawing_is_said_to_be_biased() -> None:
    assert "biased" not in card()
    assert "biased" in card(facts=tags.facts(drawing="adaptive"))
    assert "`weight`" in card(facts=tags.facts(options='{"mode": "weight"}'))


def test_a_card_of_a_pool_without_probes_and_without_thresholds() -> None:
    pool = tags.verdicts(20).with_columns(blind_draws=pl.lit(0, pl.Int32), blind_mean=pl.lit(None, pl.Float64))
    text = card(pool, tags.facts(thresholds="null", options="{}"))
    assert "No sample was asked without frames" in text and "No sample was asked with one frame" in text
    assert "least variance" not in text


@steady
@given(hostile, hostile, hostile, hostile)
def test_no_text_breaks_the_head_or_a_table(name: str, source: str, policy: str, line: str) -> None:
    pool = tags.verdicts(20).with_columns(source=pl.lit(source), dataset=pl.lit(source))
    text = card(pool, tags.facts(name=name, policy=policy, tag=line), commands=[line], overlaps={source: line})
    values = head_of(text)
    assert values["pretty_name"] == name and values["source_datasets"] == [source] and values["version"] == line
    body = text[text.index("\n---\n", 4) :]
    while (start := re.search(r"^(`{3,})\w*$", body, re.MULTILINE)) is not None:  # what stands in fences is inert
        end = re.compile(rf"^{start[1]}$", re.MULTILINE).search(body, start.end())
        assert end is not None
        body = body[: start.start()] + body[end.end() :]
    assert "<" not in body.replace("&lt;", "") and not re.search(r"(?<!\\)\[x(?<!\\)\]", body)
    widths: list[list[int]] = [[]]
    for row in body.splitlines():
        if row.startswith("|"):
            widths[-1].append(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)))
        elif widths[-1]:
            widths.append([])
    assert all(len(set(found)) == 1 for found in widths if found)
    assert sum(line.startswith("## ") for line in body.splitlines()) == len(SECTIONS)


@steady
@given(hostile)
def test_cells_are_one_line_and_show_the_text(text: str) -> None:
    shown = cell(text)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`\[\]*]", shown)
    plain = re.sub(r"\\(.)", r"\1", shown).replace("&lt;", "<").replace("&amp;", "&")
    assert plain.split() == re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split()


@steady
@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), hostile | st.lists(hostile, max_size=3), max_size=4))
def test_a_head_comes_back_as_it_was(values: dict[str, Any]) -> None:
    assert head_of(head(values) + "# title\n") == values


@steady
@given(hostile)
def test_a_fence_holds_its_text(text: str) -> None:
    first, *_, last, end = fence(text, "sh").split("\n")
    assert end == "" and first == last + "sh" and set(last) == {"`"}
    assert last not in text


def test_very_long_cells_are_cut() -> None:
    assert cell("x" * 1000) == "x" * 300 + " ..."
    assert table(["a"], [["b|c"]]) == "| a |\n| --- |\n| b\\|c |\n"


def test_the_card_opens_the_dataset_as_it_says(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    first, second = tags.verdicts(60), tags.verdicts(60, min_var=0.2)
    tags.add_tag(store, first, "first")
    tags.add_tag(store, second, "second")
    text = render(
        store.facts("d", "first"),
        frames(first),
        first,
        overlaps={},
        commands=[],
        views=view_counts(tags.curated(first)),
    )
    code = sections(text)["How to open it"].split("```")[1].removeprefix("python")
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code.replace("<this folder>", str(store.curated_path("d"))), names)
    kept = [pool.filter(pl.col("reason") == "").height for pool in (first, second)]
    assert [len(names[name].collect()) for name in ("this_one", "newest")] == kept
    assert "reward_var" in out.getvalue()


def test_the_hubs_library_opens_the_newest_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `configs` of the head, with the card as README.md beside the data."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    store = Store(tmp_path / "s", create=True)
    first, second = tags.verdicts(60), tags.verdicts(60, min_var=0.2)
    tags.add_tag(store, first, "first")
    tags.add_tag(store, second, "second")
    folder = store.curated_path("d")
    (folder / "README.md").write_text(card(second), encoding="utf-8")
    (found,) = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache")).values()
    assert sorted(found["sample_id"]) == store.curated("d")["sample_id"].to_pylist()


def test_a_quarter_of_a_million_rows_take_a_second() -> None:
    pool = pl.concat([tags.verdicts(2_500).with_columns(sample_id=pl.col("sample_id") + str(i)) for i in range(100)])
    columns = ["sample_id", "source", "dataset", "split", "video_id", "task"]
    kept = pool.filter(pl.col("reason") == "").select(*columns, frames_fingerprint="video_id")
    begun = time.process_time()
    text = render(tags.facts(), kept, pool, overlaps=OVERLAPS, commands=COMMANDS, views=VIEWS)
    assert time.process_time() - begun < 1
    assert f"{kept.height} of 250000 samples" in text and head_of(text)["size_categories"] == ["100K<n<1M"]


def test_overlaps_say_whether_anybody_looked_and_what_is_here(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    pool = tags.verdicts(8)
    tags.add_pool(store, pool)
    kept = pool.select("sample_id", "video_id")
    said = overlap_facts(store, kept)
    assert "Nobody looked for leaks" in said["leaks"] and "strive-data leaks --against" in said["leaks"]
    assert "Nobody looked for duplicates" in said["duplicates"] and "strive-data duplicates" in said["duplicates"]

    leaks = [Overlap("video", "v0000000", "x", "content", 1.0), Overlap("video", "gone", "x", "content", 1.0)]
    leaks += [Overlap("question", f"s000000{i}", "y", "text", 0.95) for i in (1, 2)]
    overlaps.write(store, Found(Recipe("leaks", "", 0.9, 0.95, ("val", "test")), leaks, 2, 8))
    twins = [
        Overlap("video", "v0000000", "v0000001", "content", 1.0),
        Overlap("video", "v0000000", "z", "content", 1.0),
    ]
    overlaps.write(store, Found(Recipe("duplicates", "clip", 0.9, 0.95), twins, 2, 8))
    said = overlap_facts(store, kept)
    assert "against val, test" in said["leaks"] and "4 pairs" in said["leaks"]
    assert "1 videos and 2 questions" in said["leaks"]
    assert "scorer clip" in said["duplicates"] and "1 videos and 0 questions" in said["duplicates"]

    tags.add_pool(store, tags.verdicts(9).tail(1))
    assert "have changed" in overlap_facts(store, kept)["leaks"]
