"""Sources under arbitrary rows and contents: each row ends as a sound draft or with a reason, never in an error."""

import datetime
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.prompts import LETTERS
from pipeline.schemas import TASKS
from pipeline.sources import SOURCES, Draft, Rejected, Source
from tests.source_files import Example, rows_of
from tests.test_sources import EXAMPLES

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMED = {source.name: source for source in SOURCES}

any_text = st.text(st.characters(exclude_categories=()), max_size=12)  # halves of surrogate pairs too
WORDS = (
    "",
    " ",
    "A",
    "b",
    "(C)",
    "A. red",
    "yes",
    "No.",
    "multiple choice",
    "multiple-choice",
    "open-ended",
    "numerical",
)
NUMBERS = ("0", "1", "-1", "3.5", "1e400", "nan", "inf", "²", "٣", "1-2", "[1, 2]", "[[1, 2], [2, 1]]", "9" * 400)
FORMS = (
    "[",
    "null",
    "a|b",
    "<answer>A</answer>",
    "Which?\nA. red\nB. blue",
    "first:3",
    "end:50%",
    "choice",
    "grounding",
)
ODD = (
    "https://[",
    "https://x/videos/%ff.mp4",
    "<image 1>",
    "../x",
    "\0",
    "\ud800",
    "##",
    "a 1 2##b",
    "Generated Caption:",
)
said = st.sampled_from(WORDS + NUMBERS + FORMS + ODD)
leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 8),
    st.sampled_from([10**400, -(10**400), 2**63]),
    st.floats(),
    st.floats(0, 20),
    said,
    any_text,
    st.binary(max_size=4),
    st.sampled_from([Decimal("2.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("1e999")]),
    st.sampled_from([datetime.datetime(2020, 1, 2), datetime.date(2020, 1, 2), datetime.timedelta(days=1)]),
)
span = st.lists(leaf | st.floats(-1, 99), min_size=2, max_size=2)
json_value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text | said, inner, max_size=4), max_leaves=8
)
many = st.integers(0, 40).map(lambda number: [f"the {place}." for place in range(number)])
value = st.one_of(json_value, many, st.lists(said, max_size=30), span, st.lists(span, max_size=4))


def example_rows(example: Example) -> list[Any]:
    """The rows of an example, with what lies beside it under the roles that its format gives."""
    source = NAMED[example.source]
    roles = {"gsub_val.json": "gsub", "Charades_v1_test.csv": "lengths", "subset_answers.json": "answers"}
    return source.rows(example.content, {roles.get(name, name): held for name, held in example.beside.items()})


def check(outcomes: list[Draft | Rejected], rows: list[Any]) -> None:
    """One outcome a row, each of them sound."""
    assert len(outcomes) == len(rows)
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.reason and len(outcome.reason) < 60 and str(outcome)
            continue
        assert outcome.task in TASKS and outcome.video and outcome.question and outcome.row_id and outcome.dataset
        json.loads(outcome.origin)
        "".join((outcome.origin, outcome.video, outcome.question, outcome.answer, *outcome.options)).encode()
        if outcome.task in ("choice", "grounded_choice"):
            assert 2 <= len(outcome.options) <= len(LETTERS) and all(outcome.options)
            assert outcome.answer in LETTERS[: len(outcome.options)]
        else:
            assert outcome.options == ()
        if outcome.task == "number":
            assert math.isfinite(float(outcome.answer))
        assert list(outcome.spans) == sorted(outcome.spans)
        assert all(math.isfinite(start) and math.isfinite(end) and start < end for start, end in outcome.spans)
        assert outcome.spans or outcome.task not in ("grounding", "grounded_choice")
        assert outcome.length_s is None or (math.isfinite(outcome.length_s) and outcome.length_s > 0)
        assert outcome.cut is None or (0 <= outcome.cut[0] < outcome.cut[1] < math.inf)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a content."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def replaced(content: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A content with another value at a path."""
    if not path:
        return new
    if isinstance(content, dict):
        return {key: replaced(item, path[1:], new) if key == path[0] else item for key, item in content.items()}
    return [replaced(item, path[1:], new) if key == path[0] else item for key, item in enumerate(content)]


def nested(depth: int) -> Any:
    deep: Any = 1
    for level in range(depth):
        deep = [deep] if level % 2 else {"a": deep}
    return deep


by_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
by_example = pytest.mark.parametrize(
    "example", EXAMPLES, ids=[f"{example.source}-{example.file}" for example in EXAMPLES]
)


@by_example
@FUZZ
@given(data=st.data())
def test_any_value_in_any_field(example: Example, data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(example_rows(example)))
    assert isinstance(row, dict)
    fields = data.draw(st.sets(st.sampled_from(sorted(row)), min_size=1))
    rows = [row | {field: data.draw(value) for field in fields}]
    check(NAMED[example.source].drafts(rows), rows)


@by_source
@FUZZ
@given(data=st.data())
def test_any_row(source: Source, data: st.DataObject) -> None:
    known = {str(key) for e in EXAMPLES if e.source == source.name for row in example_rows(e) for key in row}
    rows = data.draw(
        st.lists(st.dictionaries(st.sampled_from(sorted(known)) | st.none() | any_text, value), max_size=3)
    )
    rows += [data.draw(json_value)]
    check(source.drafts(rows), rows)


@by_example
@FUZZ
@given(data=st.data())
def test_any_value_at_any_place_of_a_file(example: Example, data: st.DataObject) -> None:
    """Also where the files beside it hold anything."""
    source = NAMED[example.source]
    path = data.draw(st.sampled_from([(), *places(example.content)]))
    beside = data.draw(st.fixed_dictionaries({}, optional={"one.json": value, "gsub": value, "lengths": value}))
    content = replaced(example.content, path, data.draw(value))
    source.fits(content, example.file)
    source.beside(Path("folder") / example.file, content)
    rows = rows_of(source, content, beside | data.draw(st.fixed_dictionaries({}, optional={"answers": value})))
    if rows != "unexpected layout":
        check(source.drafts(rows), rows)


@by_source
@FUZZ
@given(content=json_value, beside=st.dictionaries(st.sampled_from(["gsub", "lengths", "answers", "a"]), json_value))
def test_any_content(source: Source, content: Any, beside: dict[str, Any]) -> None:
    source.fits(content, "a")
    source.beside(Path("a.json"), content)
    rows = rows_of(source, content, beside)
    if rows != "unexpected layout":
        check(source.drafts(rows), rows)


@by_example
@pytest.mark.parametrize("depth", [200, 800, 5000])
def test_lists_without_end_in_any_field(example: Example, depth: int) -> None:
    source = NAMED[example.source]
    row = example_rows(example)[0]
    rows = [row | {field: nested(depth)} for field in row] + [row | {"more": nested(depth)}, nested(depth)]
    check(source.drafts(rows), rows)
    for path in places(example.content):
        found = rows_of(source, replaced(example.content, path, nested(depth)), {})
        assert found == "unexpected layout" or len(source.drafts(found)) == len(found)
