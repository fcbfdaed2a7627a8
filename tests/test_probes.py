"""Fingerprints of rollouts: they tell apart whatever differs, and only that."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from pipeline.framereader import FrameReader
from pipeline.probes import PROBES, Sampling, askable, row_texts, shown
from pipeline.schemas import SAMPLES, VARIANTS
from pipeline.store import Store
from pipeline.views import BLIND, ONE_FRAME
from tests.curation_world import a_sample, add_samples, add_videos

ROWS = pa.schema([pa.field(name, SAMPLES.field(name).type) for name in ("question", "options", "spans", "clip")])
TEXT = st.text(alphabet="ab:,~1\n", max_size=4)
NUMBER = st.sampled_from([0.0, -0.0, 1.0, 1.5])
ROW = st.fixed_dictionaries(
    {
        "question": st.none() | TEXT,
        "options": st.none() | st.lists(TEXT, max_size=3),
        "spans": st.lists(st.lists(NUMBER, min_size=1, max_size=2), max_size=3),
        "clip": st.lists(NUMBER, max_size=2),
    }
)


@settings(deadline=None, max_examples=300)
@given(st.lists(ROW, min_size=2, max_size=8))
def test_texts_of_rows_are_equal_for_equal_rows_alone(rows: list[dict[str, object]]) -> None:
    table = pa.Table.from_pylist(rows, schema=ROWS)
    exact = [repr(sorted(row.items())) for row in rows]  # unlike ==, it tells -0.0 from 0.0
    texts = row_texts(table)
    assert len(texts) == len(rows)
    assert [[a == b for a in texts] for b in texts] == [[a == b for a in exact] for b in exact]
    assert row_texts(table.slice(1)) == texts[1:]
    assert row_texts(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == texts


def test_a_policy_is_shown_a_view_or_its_middle_frame_or_nothing() -> None:
    assert shown([1, 4, 7, 9], 2) == [1, 4, 7, 9]
    assert shown([1, 4, 7, 9], ONE_FRAME) == [7]
    assert shown([1, 4, 7, 9], BLIND) == []


def a_store(
    folder: Path, recipe: str = "2 fps", sample: dict[str, Any] | None = None, view: dict[str, Any] | None = None
) -> Store:
    """Two samples on one video, each with two views; a column of the first sample or of its anchor as given."""
    store = Store(folder, create=True)
    add_videos(store, ["v"], recipe=recipe)
    add_samples(store, [a_sample("a", "v", **(sample or {})), a_sample("b", "v")])
    rows = [
        {
            "sample_id": key,
            "video_id": "v",
            "variant": number,
            "kind": "anchor",
            "indices": [1, 5, 9],
            "times": [0.5, 2.5, 4.5],
            "crop": [0.0, 0.0, 1.0, 1.0],
            "scale": 1.0,
            "seed": 0,
            "coverage": 0.5,
            "overlap": 0.0,
            "fingerprint": "x",
        }
        | (view if view and (key, number) == ("a", 0) else {})
        for key in ("b", "a")
        for number in (1, 0)
    ]
    store.append("variants", pa.Table.from_pylist(rows, schema=VARIANTS))
    return store


def prints(store: Store, probe: str, sampling: Sampling | None = None, policy: str = "p") -> dict[tuple[str, int], str]:
    asked = askable(store, FrameReader(store), policy, probe, sampling or Sampling())
    assert asked.sort("sample_id", "variant").equals(asked)
    return {(sample_id, variant): print_ for sample_id, variant, print_ in asked.iter_rows()}


def test_no_two_rollouts_share_a_fingerprint_even_where_everything_shown_is_equal(tmp_path: Path) -> None:
    store = a_store(tmp_path / "s")
    found = {probe: prints(store, probe) for probe in PROBES}
    assert set(found["variants"]) == {(key, number) for key in "ab" for number in (0, 1)}
    assert set(found["blind"]) == {("a", BLIND), ("b", BLIND)}
    assert set(found["one-frame"]) == {("a", ONE_FRAME), ("b", ONE_FRAME)}
    assert found["anchor"].items() <= found["variants"].items()
    every = [print_ for probe in ("variants", "blind", "one-frame") for print_ in found[probe].values()]
    assert len(set(every)) == len(every) == 8


@pytest.mark.parametrize(
    "changed",
    [
        {"question": "what else?"},
        {"options": ["red", "blue", "green"]},
        {"answer": "C"},
        {"spans": [[1.0, 2.0]]},
        {"clip": [0.0, 3.0]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_asked_of_one_sample_changes_its_rollouts_alone(tmp_path: Path, changed: dict[str, Any]) -> None:
    before, after = a_store(tmp_path / "a"), a_store(tmp_path / "b", sample=changed)
    for probe in PROBES:
        old, new = prints(before, probe), prints(after, probe)
        assert {key for key in old if old[key] != new[key]} == {key for key in old if key[0] == "a"}


@pytest.mark.parametrize(
    ("changed", "one_frame"),
    [
        ({"indices": [1, 5, 10]}, False),
        ({"indices": [1, 6, 9]}, True),
        ({"crop": [0.0, 0.0, 0.5, 1.0]}, True),
        ({"scale": 0.5}, True),
        ({"seed": 9}, None),
    ],
)
def test_what_is_seen_changes_the_rollouts_that_see_it(
    tmp_path: Path, changed: dict[str, Any], one_frame: bool | None
) -> None:
    before, after = a_store(tmp_path / "a"), a_store(tmp_path / "b", view=changed)
    differs = {
        probe: {key for key, print_ in prints(before, probe).items() if prints(after, probe)[key] != print_}
        for probe in PROBES
    }
    seen = set() if one_frame is None else {("a", 0)}
    expected = {"anchor": seen, "variants": seen, "blind": set()}
    assert differs == expected | {"one-frame": {("a", ONE_FRAME)} if one_frame else set()}


def test_other_frames_change_all_but_the_blind(tmp_path: Path) -> None:
    before, after = a_store(tmp_path / "a"), a_store(tmp_path / "b", recipe="4 fps")
    for probe in PROBES:
        old, new = prints(before, probe), prints(after, probe)
        assert all((old[key] == new[key]) == (probe == "blind") for key in old)


@pytest.mark.parametrize("other", [Sampling(0.5), Sampling(max_tokens=9), Sampling(seed=1), None], ids=str)
def test_how_is_drawn_and_by_whom_changes_all(tmp_path: Path, other: Sampling | None) -> None:
    store = a_store(tmp_path / "s")
    for probe in PROBES:
        old, new = prints(store, probe), prints(store, probe, other, "p" if other else "q")
        assert not set(old.values()) & set(new.values())
