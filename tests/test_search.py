"""Search over frames: exact and approximate indexes, their cache, moments, and the command."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli import search as cli_search
from cli.data import app
from pipeline import duplicates, runner, schemas, search
from pipeline.contactsheet import Tile, contact_sheet
from pipeline.errors import UserError
from pipeline.framereader import FrameReader
from pipeline.moments import encode_query, find
from pipeline.scores import EmbedFrames
from pipeline.store import Store
from tests.curation_world import FRAMES, a_sample, a_scorer, add_samples, add_videos

DIM = 16


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((max(1, count // 50), dim)))
    noise = rng.standard_normal((count, dim)) / np.sqrt(dim)
    return unit(centres[rng.integers(0, len(centres), count)] + 0.7 * noise).astype(np.float16)


def in_blocks(vectors: np.ndarray, size: int = 700) -> search.Blocks:
    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(vectors), size):
            yield vectors[start : start + size]

    return blocks


def embed(store: Store, vectors: dict[str, np.ndarray], scorer: str = "test", recipe: str = "") -> None:
    rows = [
        {"video_id": video, "scorer": scorer, "dim": v.shape[1], "embeddings": v.ravel(), "fingerprint": video + recipe}
        for video, v in vectors.items()
    ]
    store.append("frame_embeddings", pa.Table.from_pylist(rows, schema=schemas.FRAME_EMBEDDINGS))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three videos of 24 frames, half a second apart, with embeddings; written out of order."""
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2", "v3"])
    embed(store, {f"v{i}": clustered(FRAMES, DIM, i) for i in (3, 1, 2)})
    return store


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**31), st.sampled_from([0, 10**6]))
@settings(max_examples=25, deadline=None)
def test_all_cells_or_none_find_what_numpy_finds(count: int, k: int, seed: int, limit: int) -> None:
    vectors, query = clustered(count, 8, seed), clustered(3, 8, seed + 1).astype(np.float32)
    index = search.build(in_blocks(vectors, 64), count, 8, limit)
    if limit == 0:
        index.nprobe = index.nlist
    k = min(k, count)
    cosines, _ = index.search(query, k)
    truth = -np.sort(-(query @ vectors.astype(np.float32).T), axis=1)[:, :k]
    assert np.allclose(cosines, truth, atol=1e-5)
    assert np.allclose(search.exact(in_blocks(vectors, 50), query, k), truth, atol=1e-5)
    assert search.recall_of(cosines, truth) == 1.0


def test_the_approximate_index_looks_into_few_cells_and_reaches_its_recall(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors, queries = clustered(40_000, 64), clustered(40_000, 64)[::100].astype(np.float32)
    queries = unit(queries + 0.05 * np.random.default_rng(1).standard_normal(queries.shape)).astype(np.float32)
    index = search.build(in_blocks(vectors, 9_999), len(vectors), 64, exact_limit=1000)
    chosen = search.tune(index, in_blocks(vectors), queries[::4], "queries")
    assert chosen.value >= search.TARGET_RECALL
    others = queries[1::4]
    truth = search.exact(in_blocks(vectors), others, 10)
    recall = search.recall_of(index.search(others, 10)[0], truth)
    with capsys.disabled():
        print(f"\n40,000 vectors: recall@10 {recall:.4f} with {chosen.cells} of {index.nlist} cells")
    assert recall >= 0.95
    assert chosen.cells < index.nlist / 2
    index.nprobe = 1
    assert search.recall_of(index.search(others, 10)[0], truth) <= recall


def test_positions_name_video_and_frame(store: Store) -> None:
    of = search.embedded(store, "test")
    index = search.open_index(store, of)
    vectors = of.read(["v3", "v1"])
    assert len(index) == 3 * FRAMES
    assert index.recall is None
    for video, frame in (("v1", 0), ("v1", FRAMES - 1), ("v3", 0), ("v3", 7)):
        cosines, positions = index.search(vectors[video][frame : frame + 1], 1)
        assert index.place(int(positions[0, 0])) == (video, frame)
        assert index.videos[index.owners(positions)[0, 0]] == video
        assert cosines[0, 0] == pytest.approx(1.0, abs=2e-3)
    assert index.owners(np.array([[-1]])) == -1


def test_an_index_is_built_once_for_the_same_embeddings(store: Store) -> None:
    built: list[int] = []

    def opened(**options: Any) -> search.FrameIndex:
        return search.open_index(store, search.embedded(store, "test"), fresh=built.append, **options)

    query = clustered(2, DIM, 9)
    first = opened(exact_limit=10)
    assert (built, first.recall is not None) == ([3 * FRAMES], True)
    again = opened(exact_limit=10)
    assert built == [3 * FRAMES]
    assert again.recall == first.recall
    assert all(np.array_equal(a, b) for a, b in zip(first.search(query, 9), again.search(query, 9), strict=True))

    store.remove_items("frame_embeddings", [("v2",)])
    embed(store, {"v2": clustered(FRAMES, DIM, 77)}, recipe="new")
    changed = opened(exact_limit=10)
    assert len(built) == 2
    assert not np.array_equal(changed.search(query, 9)[0], first.search(query, 9)[0])
    assert len(list((store.path / "indexes").iterdir())) == 2  # the older one is gone


def test_new_questions_measure_again_but_build_nothing(store: Store) -> None:
    built: list[int] = []
    asked: list[int] = []

    def encode(texts: list[str]) -> np.ndarray:
        asked.append(len(texts))
        return clustered(len(texts), DIM, len(texts))

    def opened() -> search.FrameIndex:
        return search.open_index(store, search.embedded(store, "test"), encode, 10, built.append)

    assert opened().recall == search.open_index(store, search.embedded(store, "test"), None, 10).recall
    assert asked == []  # there are no questions: frames are the queries
    add_samples(store, [a_sample(f"s{i}", "v1") for i in range(20)])
    recall = opened().recall
    assert recall is not None
    assert (recall.of, recall.queries, asked, built) == ("questions", 20, [20], [3 * FRAMES])
    assert opened().recall == recall
    assert asked == [20]


def moments(store: Store, queries: np.ndarray, **options: Any) -> list[Any]:
    index = search.open_index(store, search.embedded(store, "test"))
    return find(index, FrameReader(store), {"v1": "a.mp4"}, queries, **options)


def test_frames_of_one_moment_are_found_once_and_the_best_of_them_stays(store: Store) -> None:
    query = search.embedded(store, "test").read(["v1"])["v1"][5:6]
    hits = moments(store, query, top=30, gap_s=2.0)
    assert (hits[0].video_id, hits[0].time_s, hits[0].path, hits[0].index) == ("v1", 2.5, "a.mp4", 5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for i, hit in enumerate(hits):
        assert all(hit.video_id != other.video_id or abs(hit.time_s - other.time_s) >= 2.0 for other in hits[:i])
    assert len(moments(store, query, top=500, gap_s=0.0)) == 3 * FRAMES
    assert moments(store, query, top=4) == hits[:4]


def test_the_best_window_of_a_long_text_counts(store: Store) -> None:
    vectors = search.embedded(store, "test").read(["v1", "v2"])
    both = moments(store, np.stack([vectors["v1"][3], vectors["v2"][9]]), top=2)
    assert {(hit.video_id, hit.index) for hit in both} == {("v1", 3), ("v2", 9)}


def test_frames_that_are_cached_otherwise_by_now_are_left_out(store: Store) -> None:
    store.delete("frames", "video_id = 'v1'")
    add_videos(store, ["v1"], frames=5, recipe="another")
    query = search.embedded(store, "test").read(["v1"])["v1"][5:6]
    assert {hit.video_id for hit in moments(store, query, top=100)} == {"v2", "v3"}


def test_which_scorer_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    assert search.pick_scorer(store, None, "usual") == ""
    with pytest.raises(UserError, match="none"):
        search.pick_scorer(store, "wanted")
    embed(store, {"v1": clustered(3, DIM)}, "first")
    assert search.pick_scorer(store, None, "usual") == "first"
    embed(store, {"v2": clustered(3, 8)}, "usual")
    assert search.pick_scorer(store, None, "usual") == "usual"
    assert search.pick_scorer(store, "first", "usual") == "first"
    assert search.embedded(store, "usual").dim == 8
    for bad in ({"wanted": "other"}, {"wanted": None, "usual": "other"}):
        with pytest.raises(UserError, match="first, usual"):
            search.pick_scorer(store, **bad)


class Letters:
    """An encoder of counted letters: what a text has, its embedding shows."""

    context, frames_a_pass = 6, 8

    def count_tokens(self, text: str) -> int:
        return len(text)

    def encode_windows(self, windows: Sequence[str]) -> np.ndarray:
        return np.array([[window.count(letter) for letter in "abc"] for window in windows], np.float32)

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def test_no_part_of_a_long_text_is_lost() -> None:
    assert encode_query(Letters(), "aaa bbb ccc").sum(0).tolist() == [3, 3, 3]


def test_a_contact_sheet_holds_pictures_of_any_shape(tmp_path: Path) -> None:
    shapes = [(90, 160), (160, 90), (64, 64), (2, 2), (300, 20)]
    tiles = [Tile(np.full((*shape, 3), 200, np.uint8), "0:01.0 · 0.5", "a name " * 40) for shape in shapes]
    contact_sheet(tiles, "a long title " * 40, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.width > 1000
    with pytest.raises(ValueError, match="picture"):
        contact_sheet([], "", tmp_path / "none.png")


def test_the_commands_show_the_thresholds_that_the_library_has() -> None:
    assert (cli_search.VIDEOS, cli_search.QUESTIONS) == (duplicates.VIDEO_THRESHOLD, duplicates.QUESTION_THRESHOLD)


def command(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False, prog_name="strive-data")


def test_the_command_finds_draws_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1", "v2"])
    model = a_scorer(tmp_path / "clip")
    runner.run(EmbedFrames(str(model)), store)
    words = ["search", "a person opens a door", "--store", store.path, "--device", "cpu"]
    command(*words, "--model", model, "--top", 3, "--out", tmp_path / "sheet.png", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (len(found["hits"]), found["frames"], found["recall"]) == (3, 2 * FRAMES, None)
    assert Image.open(found["sheet"]).format == "PNG"
    command(*words, "--model", model, "--exact-limit", 10)
    assert "approximate, recall@10" in capsys.readouterr().err
    with pytest.raises(UserError, match="clip@"):  # the usual scorer has embedded nothing here
        command(*words)
    with pytest.raises(UserError, match="does not exist"):
        command(*words, "--model", model, "--out", tmp_path / "no" / "sheet.png")
    with pytest.raises(UserError, match="a text"):
        command("search", " ", "--store", store.path)
