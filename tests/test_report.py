"""The report: what it reads of a store, its film strips, its bounds, and the command."""

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cli.report import report
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.report import data, page, samples
from pipeline.report.choice import choose
from pipeline.report.film import A_STRIP, LONGEST, POINTS, curve, data_url, film_of
from pipeline.store import Store
from tests.report_world import FACTS, POLICY, a_pool, a_world, rollout

MB = 1_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return a_world(Store(tmp_path_factory.mktemp("report") / "s", create=True))


def test_a_film_holds_each_picture_once(store: Store) -> None:
    reader = FrameReader(store)
    sample = {"video_id": "v0", "spans": [[3.0, 5.0]], "clip": []}
    row = next(
        row for row in store.curated("curated").to_pylist() if row["video_id"] == "v0" and row["task"] == "grounding"
    )
    film = film_of(reader, sample, row["variants"], {"scorer": "test", "scores": np.arange(24) / 24})
    assert isinstance(film, dict)
    assert [strip["variant"] for strip in film["strips"]] == [0, 1, 2, 3]
    frames = [frame for strip in film["strips"] for frame in strip["frames"]]
    assert len(film["images"]) == len({frame[0] for frame in frames}) < len(frames)  # views share frames
    for strip, view in zip(film["strips"], row["variants"], strict=True):
        assert [frame[1] for frame in strip["frames"]] == view["times"]
        assert [frame[2] for frame in strip["frames"]] == pytest.approx([i / 24 for i in view["indices"]], abs=1e-4)
        assert [frame[3] for frame in strip["frames"]] == [int(3 <= t < 5) for t in view["times"]]
    with Image.open(io.BytesIO(base64.b64decode(film["images"][0].split(",")[1]))) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (film["width"], film["height"])


def test_large_frames_are_made_small_and_long_views_thinned(store: Store) -> None:
    reader = FrameReader(store)
    view = {"variant": 0, "kind": "anchor", "indices": list(range(24)), "times": [i / 2 for i in range(24)]}
    film = film_of(
        reader, {"video_id": "v0", "spans": [], "clip": []}, [view | {"crop": [0, 0, 1, 1], "scale": 1.0}], None
    )
    assert isinstance(film, dict)
    (strip,) = film["strips"]
    assert len(strip["frames"]) == A_STRIP
    assert strip["left_out"] == 24 - A_STRIP
    assert strip["frames"][0][1:] == [0.0, None, 0]
    assert strip["frames"][-1][1] == 11.5
    wide = np.zeros((90, 1000, 3), np.uint8)
    with Image.open(io.BytesIO(base64.b64decode(data_url(wide).split(",")[1]))) as picture:
        assert max(picture.size) == LONGEST


def test_a_film_says_why_it_is_not_there(store: Store) -> None:
    reader = FrameReader(store)
    sample = {"video_id": "v0", "spans": [], "clip": []}
    view = {"variant": 0, "kind": "anchor", "indices": [0], "times": [0.25], "crop": [0, 0, 1, 1], "scale": 1.0}
    assert film_of(reader, sample, [], None) == "no views were drawn for this sample"
    assert film_of(reader, sample | {"video_id": "gone"}, [view], None) == "the frames of its video are not cached"
    assert "other frames" in str(film_of(reader, sample, [view], None))
    assert "scores are of other" in str(
        film_of(reader, sample, [view | {"times": [0.0]}], {"scorer": "t", "scores": [0.5]})
    )


@given(st.lists(st.floats(width=32), max_size=400))
def test_a_curve_keeps_its_peak(scores: list[float]) -> None:
    points = curve(np.arange(len(scores)) / 2, np.array(scores, np.float64))
    finite = [score for score in scores if np.isfinite(score)]
    assert len(points) == min(len(finite), POINTS)
    assert [t for t, _ in points] == sorted(t for t, _ in points)
    if finite:
        assert max(score for _, score in points) == round(max(finite), 4)


def test_what_is_read_is_what_the_store_holds(store: Store) -> None:
    content = data.read(store, "curated", "v1", samples=30, films=30)
    rows = {row["sample_id"]: row for row in content.shown.samples}
    assert len(rows) == 30 == content.verdicts.height
    ledger = store.table("rollouts").to_pylist()
    for row in rows.values():
        drawn = [r for r in ledger if r["sample_id"] == row["sample_id"]]
        assert len(row["responses"]) == len(drawn)
        assert [r["variant"] for r in row["responses"]] == sorted(
            (r["variant"] for r in drawn), key=lambda v: (v < 0, abs(v))
        )
        assert not row["changed"]
        assert row["film"]["strips"]
        if row["stats"]:
            seen = [r["reward"] for r in row["responses"] if r["variant"] >= 0]
            assert np.mean(seen) == pytest.approx(row["stats"]["reward_mean"], abs=1e-6)
    assert {row["reason"] for row in rows.values()} >= {"", "all wrong", "all right", "no rollouts", "answered blind"}
    unseen = [row for row in rows.values() if row["reason"] == "no rollouts"]
    assert all(row["stats"] is None and row["responses"] == [] and row["question"] for row in unseen)


def test_a_ledger_that_moved_on_is_told(tmp_path: Path) -> None:
    store = a_world(Store(tmp_path / "s", create=True), 6)
    store.delete("rollouts", "sample_id = 's0000' AND draw = 7 AND variant >= 0")
    store.delete("samples", "sample_id = 's0001'")
    rows = {row["sample_id"]: row for row in data.read(store, "curated").shown.samples}
    assert [key for key, row in rows.items() if row["changed"]] == ["s0000"]
    assert [key for key, row in rows.items() if row["question"] is None] == ["s0001"]


def looked_at(ledger: list[dict[str, Any]], made: tuple[int | None, ...], facts: dict[str, str]) -> list[Any]:
    """(variant, draw) of the rollouts of a sample of four views that a tag looked at."""
    counts = dict(zip(("draws", "blind_draws", "one_frame_draws"), made, strict=True))
    schema = {"sample_id": pl.String, "task": pl.String} | dict.fromkeys(counts, pl.Int32)
    verdict = pl.DataFrame([{"sample_id": "a", "task": "choice", **counts}], schema)
    found = data.rollouts(pl.DataFrame(ledger), verdict, FACTS | facts, {"a": 4})
    return [(row["variant"], row["draw"]) for row in found["a"]]


def test_only_rollouts_that_the_tag_looked_at_are_shown() -> None:
    """The ledger holds draws on the anchor alone, draws dealt to all views, and more of each than the verdict used."""
    dealt, anchor = {(draw % 4, draw) for draw in range(12)}, {(0, draw) for draw in range(12)}
    probes = {(probe, draw) for probe in (-1, -2) for draw in range(6)}
    ledger = [rollout("a", variant, draw, "choice", 1.0) for variant, draw in sorted(dealt | anchor | probes)]
    on_anchor = {"views": "anchor"}
    assert looked_at(ledger, (3, 2, 1), on_anchor) == [(0, 0), (0, 1), (0, 2), (-1, 0), (-1, 1), (-2, 0)]
    assert looked_at(ledger, (6, 1, 0), {}) == [(0, 0), (0, 4), (1, 1), (1, 5), (2, 2), (3, 3), (-1, 0)]
    assert looked_at(ledger, (None, None, None), {"draws": "2", "blind_draws": "1"}) == [(0, 0), (1, 1), (-1, 0)]
    holes = [row for row in ledger if row["draw"] != 1]  # a draw that failed: the verdict stands on the others
    assert looked_at(holes, (3, 0, 0), on_anchor) == [(0, 0), (0, 2), (0, 3)]


def test_mistakes_are_told_with_the_next_command(store: Store, tmp_path: Path) -> None:
    for arguments, words in (
        ({"name": "other"}, "curated"),
        ({"name": "curated", "tag": "v9"}, "v1"),
        ({"name": "curated", "samples": 0}, "--samples 0"),
        ({"name": "curated", "samples": 10**6}, "1 to"),
        ({"name": "curated", "films": -1}, "--open-film"),
    ):
        with pytest.raises(UserError, match=words) as error:
            data.read(store, **arguments)  # type: ignore[arg-type]
        assert error.value.next_command
    content = data.read(store, "curated", samples=1, films=0)
    with pytest.raises(UserError, match="mkdir"):
        page.write(content, tmp_path / "no" / "r.html")
    with pytest.raises(UserError, match="it is a folder"):
        page.write(content, tmp_path)
    empty = a_world(Store(tmp_path / "s", create=True), 3)
    empty.delete("rollouts", f"policy = '{POLICY}'")
    with pytest.raises(UserError, match=r"no rollouts .*strive-data select"):
        data.read(empty, "curated")


def test_the_command_writes_the_page_and_says_what_is_in_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    report(store.path, "curated", None, out, 10, 4, 0, True)
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == out.stat().st_size
    assert (said["pool"], said["samples"], said["films"], said["tag"]) == (30, 10, 4, "v1")
    assert "10 of 30" in re.sub("<.*?>", "", out.read_text(encoding="utf-8"))
    assert not list(tmp_path.glob(".*"))
    first = out.read_bytes()
    report(store.path, "curated", "v1", out, 10, 4, 0, False)
    assert out.read_bytes() == first  # the same store, the same page
    assert "10 samples in full" in capsys.readouterr().out.replace("\n", " ")


def test_a_page_holds_no_address_but_its_own_pictures(store: Store) -> None:
    text = page.render(data.read(store, "curated"))
    assert "default-src 'none'" in text
    assert "unsafe" not in text.split("</head>")[0].split("<style>")[0]
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, never loaded


def test_bounds_hold_whatever_is_in_the_store() -> None:
    """Hostile lengths in every text, of characters that take most bytes in the page."""
    long = "<" * 100_000
    row = {"question": long, "options": [long] * 40, "answer": long, "spans": [[0.0, 1.0]] * 500, "clip": []}
    named = dict.fromkeys(("source", "dataset", "split", "video_id", "reason"), long)
    empty = dict.fromkeys(("reward_mean", "blind_mean"))
    drawn = rollout("s", 0, 0, "choice", 1.0, long) | {"reward": 1.0, "parse_error": long}
    many = [
        samples.Sample(row, {"sample_id": f"{k}{long}", "task": "choice", **named, **empty}, "random", [], [drawn] * 12)
        for k in range(200)
    ]
    picture = {"images": ["x" * 100_000]}
    found = samples.shown(many, 200, lambda key: picture)
    assert samples.size(found.samples) < samples.ROW_BYTES + samples.RESPONSE_BYTES + samples.FILM_BYTES + 100_000
    assert 0 < len(found.samples) < found.asked == 200
    assert found.films == min(samples.FILM_BYTES // samples.size(picture), len(found.samples))
    assert found.films + found.beyond_films == len(found.samples)
    assert found.without_responses + sum("responses" in row for row in found.samples) == len(found.samples)


def test_a_page_of_a_large_pool_is_small_and_quick(store: Store) -> None:
    content = data.read(store, "curated", samples=20, films=20)
    pool = a_pool(100_000)
    large = data.Content(content.facts, pool, content.shown)
    start = time.perf_counter()
    choose(pool, 200, 0)
    text = page.render(large)
    assert time.perf_counter() - start < 5
    assert len(text.encode("utf-8")) < 15 * MB
    assert "20 of 100,000" in re.sub("<.*?>", "", text)
    (inside,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert len(json.loads(inside)["samples"]) == 20
