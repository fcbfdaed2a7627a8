"""Reading cached frames: the same bytes from the data file as through Lance, each checked, in any order."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.checksum import checksum
from pipeline.errors import UserError
from pipeline.framereader import FrameReader, value_places
from pipeline.schemas import FRAMES
from pipeline.store import Store, write_fragments

HEIGHT, WIDTH = 24, 32


def noise(n: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def rows_of(video: str, frames: np.ndarray, codec: str = "raw") -> pa.Table:
    """Rows of `frames` as the cache writes them."""
    data = [f.tobytes() if codec == "raw" else simplejpeg.encode_jpeg(f, 90, "RGB", "420") for f in frames]
    n, height, width, _ = frames.shape
    columns = {
        "video_id": [video] * n,
        "index": list(range(n)),
        "time_s": [i / 2 for i in range(n)],
        "height": [height] * n,
        "width": [width] * n,
        "codec": [codec] * n,
        "checksum": [checksum(d) for d in data],
        "backend": ["test"] * n,
        "pixels": data,
        "fingerprint": [f"f {video}"] * n,
    }
    return pa.table(columns, schema=FRAMES)


def through_lance(store: Store) -> FrameReader:
    """A reader that knows of no data file how it is laid out."""
    reader = FrameReader(store, threads=1)
    reader._file = lambda fragment: None  # type: ignore[method-assign]
    return reader


def is_direct(reader: FrameReader, video: str) -> bool:
    """Whether all frames of a video are read from the data file itself."""
    run = reader._run(video)
    addresses = reader._addresses[run.start : run.start + run.length]
    return all(reader._file(int(address) >> 32) is not None for address in addresses)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("threads", [1, 3])
def test_both_ways_of_reading_give_the_same_bytes(store: Store, codec: str, threads: int) -> None:
    """Positions count rows that are left; several videos a file, several files, several pages a file."""
    videos = {name: noise(n, n) for name, n in {"a": 5, "b": 40, "c": 70, "d": 3}.items()}
    for some in (["a", "b"], ["c"], ["d"]):
        store.append("frames", pa.concat_tables(rows_of(name, videos[name], codec) for name in some))
    store.delete("frames", "video_id = 'a'")
    store.append("frames", rows_of("a", videos["a"], codec))
    fast, plain = FrameReader(store, threads), through_lance(store)
    for name, frames in videos.items():
        assert is_direct(fast, name)
        for indices in (range(len(frames)), [0], [2, 1, 2, 0, 0], [len(frames) - 1, 0], []):
            found = fast.read(name, indices)
            np.testing.assert_array_equal(found, plain.read(name, indices))
            assert found.shape == (len(indices), HEIGHT, WIDTH, 3)
            if codec == "raw":
                np.testing.assert_array_equal(found, frames[np.asarray(indices, int)])


def test_the_files_of_this_lance_are_read_directly(store: Store) -> None:
    """An upgrade that lays files out in another way would give the same frames, ten times slower: this test tells."""
    store.append("frames", rows_of("v", noise(3)))
    frames = noise(70)
    parts = [rows_of("w", frames).slice(i, 16) for i in range(0, 70, 16)]
    store.commit_fragments("frames", write_fragments(store.path, "frames", parts))
    reader = FrameReader(store)
    assert is_direct(reader, "v")
    assert is_direct(reader, "w")
    np.testing.assert_array_equal(reader.read("w", [69, 3, 40]), frames[[69, 3, 40]])


def test_the_name_of_the_store_does_not_matter(tmp_path: Path) -> None:
    store = Store(tmp_path / "a b%20c ü:#?", create=True)
    store.append("frames", rows_of("v", noise(3)))
    np.testing.assert_array_equal(FrameReader(store).read("v", [2]), noise(3)[[2]])


@pytest.mark.parametrize("frames", [np.zeros((6, 2, 2, 3), np.uint8), np.full((40, HEIGHT, WIDTH, 3), 7, np.uint8)])
def test_tiny_and_constant_frames_are_read_all_the_same(store: Store, frames: np.ndarray) -> None:
    """Lance packs such values together, or stores one for all."""
    store.append("frames", rows_of("v", frames))
    np.testing.assert_array_equal(FrameReader(store).read("v", [4, 1, 1]), frames[[4, 1, 1]])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    sides=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    removed=st.sets(st.integers(0, 4)),
    data=st.data(),
)
def test_whatever_is_stored_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: Sequence[int],
    sides: tuple[int, int],
    removed: set[int],
    data: st.DataObject,
) -> None:
    store = Store(tmp_path_factory.mktemp("s"), create=True)
    videos = {f"v{i}": noise(n, i, *sides) for i, n in enumerate(lengths)}
    for name, frames in videos.items():
        store.append("frames", rows_of(name, frames))
    store.remove_items("frames", [(f"v{i}",) for i in removed])
    reader = FrameReader(store)
    assert reader.videos == sorted(set(videos) - {f"v{i}" for i in removed})
    for name in reader.videos:
        wanted = data.draw(st.lists(st.integers(0, len(videos[name]) - 1), max_size=12))
        np.testing.assert_array_equal(reader.read(name, wanted), videos[name][np.asarray(wanted, int)])


def test_a_callers_array_is_filled(store: Store) -> None:
    frames = noise(6)
    store.append("frames", rows_of("v", frames))
    reader = FrameReader(store)
    out = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
    assert reader.read("v", [3, 0, 3, 5], out) is out
    np.testing.assert_array_equal(out, frames[[3, 0, 3, 5]])
    for wrong in (out[:3], out.astype(np.int16), np.zeros((4, HEIGHT, WIDTH, 6), np.uint8)[..., ::2]):
        with pytest.raises(ValueError, match="out must be"):
            reader.read("v", [0, 1, 2, 3], wrong)


def test_several_threads_may_read_at_once(store: Store) -> None:
    frames = noise(30)
    store.append("frames", rows_of("v", frames))
    reader = FrameReader(store, threads=2)
    wanted = [np.random.default_rng(i).integers(0, 30, 8) for i in range(64)]
    with ThreadPoolExecutor(4) as pool:
        for indices, found in zip(wanted, pool.map(lambda i: reader.read("v", i), wanted), strict=True):
            np.testing.assert_array_equal(found, frames[indices])


def test_wrong_requests_are_refused(store: Store) -> None:
    store.append("frames", rows_of("v", noise(4)))
    reader = FrameReader(store)
    for wrong in ([-1], [4], [0, 4]):
        with pytest.raises(IndexError, match="video v, which has 4"):
            reader.read("v", wrong)
    with pytest.raises(UserError, match="cache-frames"):
        reader.read("nobody", [0])
    assert ("v" in reader, "nobody" in reader) == (True, False)


def test_an_empty_cache_reads_as_empty(store: Store) -> None:
    assert FrameReader(store).videos == []


def test_missing_rows_of_a_video_are_noticed(store: Store) -> None:
    store.append("frames", pa.concat_tables([rows_of("a", noise(4)), rows_of("b", noise(2))]))
    store.delete("frames", "video_id = 'a' AND index = 2")
    reader = FrameReader(store)
    with pytest.raises(UserError, match="some of its cached frames are missing"):
        reader.read("a", [0])
    assert reader.read("b", [0]).shape[0] == 1


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("place", [-8, -4, 0, 100, -1000])
def test_a_flipped_byte_is_noticed(store: Store, codec: str, place: int) -> None:
    """Lance keeps no checksum: it reads such a row without an error. The length before a value counts too."""
    store.append("frames", rows_of("v", noise(5), codec))
    pixels = store.table("frames", ["pixels"])["pixels"][2].as_py()
    data = next(p for p in (store.table_path("frames") / "data").iterdir() if pixels in p.read_bytes())
    content = bytearray(data.read_bytes())
    place = len(pixels) - 1 if place == -1000 else place
    content[content.index(pixels) + place] ^= 1
    data.write_bytes(content)
    reader = FrameReader(Store(store.path))
    assert reader.read("v", [1, 3]).shape[0] == 2
    with pytest.raises(ValueError, match="frame 2 of video v is damaged"):
        reader.read("v", [1, 2, 3])
    if place >= 0:
        with pytest.raises(ValueError, match="frame 2 of video v is damaged"):
            through_lance(store).read("v", [1, 2, 3])


def test_a_cut_data_file_is_noticed(store: Store) -> None:
    store.append("frames", rows_of("v", noise(5)))
    reader = FrameReader(store)
    reader.read("v", [0])
    data = next((store.table_path("frames") / "data").iterdir())
    data.write_bytes(data.read_bytes()[: 3 * HEIGHT * WIDTH * 3])
    with pytest.raises(ValueError, match="frame 4 of video v is damaged"):
        reader.read("v", [4])


def a_page(values: Sequence[bytes], width: int) -> tuple[bytes, bytes]:
    """The two buffers of a page: values behind their lengths, and the index of where each begins."""
    body = b"".join(len(v).to_bytes(8, "little") + v for v in values)
    ends = [0, *itertools.accumulate(8 + len(v) for v in values)]
    return body, b"".join(end.to_bytes(width, "little") for end in ends)


@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=60, deadline=None)
def test_values_are_found_by_their_index(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[bytes]], width: int
) -> None:
    content, places = b"head", []
    for values in pages:
        body, index = a_page(values, width)
        places.append([(len(content), len(body)), (len(content) + len(body), len(index))])
        content += body + index
    file = tmp_path_factory.mktemp("f") / "file"
    file.write_bytes(content)
    flat = [value for values in pages for value in values]
    found = value_places(file, places, len(flat))
    assert found is not None
    for value, begin, size in zip(flat, found.begins, found.sizes, strict=True):
        assert content[begin + 8 : begin + 8 + size] == value
    assert value_places(file, places, len(flat) + 1) is None
    assert value_places(file, [places[0][:1]], 1) is None
    (start, size), index_place = places[0]
    assert value_places(file, [[(start, size - 1), index_place], *places[1:]], len(flat)) is None
