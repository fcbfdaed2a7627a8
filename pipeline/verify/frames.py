"""The pixels of the cache: against their checksums, and against the videos that they were decoded from."""

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.checksum import checksum
from pipeline.decode import DecodeError, content_id, decode_frames, nearest, scan_packets
from pipeline.framereader import FrameReader, value_places
from pipeline.runner import Progress
from pipeline.schemas import KEYS
from pipeline.store import Store
from pipeline.verify.findings import OWNER, Finding, some
from pipeline.verify.tables import Tables

FLIPPED, MOVED, OTHER = "wrong checksum", "video changed", "other pixels"
_PREFIX = 8  # bytes in which a data file holds the length of the value that follows
_TOLERANCE = {"raw": 2.0, "jpeg": 6.0}
"""Mean difference in levels of 255 up to which a frame is the one decoded anew: another version of a decoder rounds
otherwise, and JPEG loses some."""


def check_sums(
    tables: Tables, sample: int | None = None, progress: Progress | None = None, seed: int = 0
) -> tuple[list[Finding], int]:
    """Compare frames with their checksums.

    Args:
        sample: so many, drawn at random; None: all of them.

    Returns:
        one finding with the frames that are damaged, if any, and how many were compared.
    """
    examined = tables.examined["frames"]
    chosen = _drawn(examined.rows, sample, seed)
    total = examined.rows if chosen is None else len(chosen)
    if progress:
        progress.start("verify frames", total)
    bad: list[tuple[str, int]] = []
    begun = done = 0
    for rows, stored in examined.stored():
        mine = np.arange(rows.num_rows)
        if chosen is not None:
            mine = chosen[(chosen >= begun) & (chosen < begun + rows.num_rows)] - begun
        begun += rows.num_rows
        if not len(mine):
            continue
        part = rows.take(pa.array(mine))
        inside = (part["_rowaddr"].to_numpy() & np.uint64((1 << 32) - 1)).astype(np.int64)
        for i, data in enumerate(_values(stored, inside)):
            if data is None or checksum(data) != part["checksum"][i].as_py():
                bad.append((part["video_id"][i].as_py(), part["index"][i].as_py()))
        done += len(mine)
        if progress:
            progress.advance(len(mine))
    if progress:
        progress.stop()
    return _flipped(tables, bad), done


def _values(stored: Any, rows: npt.NDArray[np.int64]) -> Iterator[Any]:
    """The bytes of rows of a data file; None where there are no such bytes."""
    if not stored.local:
        yield from stored.many(rows.tolist())
        return
    path, pages, count = stored.pages()
    places = value_places(path, pages, count)
    if places is None:
        for row in rows.tolist():
            yield stored.take(row)
        return
    with FileIO(path) as stream:
        for row in rows.tolist():
            size = int(places.sizes[row])
            data = os.pread(stream.fileno(), _PREFIX + size, int(places.begins[row]))
            whole = len(data) == _PREFIX + size and int.from_bytes(data[:_PREFIX], "little") == size
            yield memoryview(data)[_PREFIX:] if whole else None


def _drawn(count: int, sample: int | None, seed: int) -> npt.NDArray[np.int64] | None:
    """Rows to look at, ascending; None: all."""
    if sample is None or sample >= count:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, sample, replace=False)).astype(np.int64)


def _flipped(tables: Tables, bad: list[tuple[str, int]]) -> list[Finding]:
    if not bad:
        return []
    rows = tables.frame("frames", KEYS["frames"])
    drop = rows.filter(pl.col("video_id").is_in(sorted({video for video, _ in bad})))["_rowaddr"].to_numpy()
    about = "their bytes do not match their checksums; their videos are cached anew as wholes"
    where = some([f"frame {index} of {video}" for video, index in bad])
    return [Finding("frames", FLIPPED, len(bad), where, about, OWNER["frames"], unit="frames", drop=drop)]


def changed_videos(tables: Tables) -> list[Finding]:
    """Video files whose size is not what it was. A file that is gone is no damage: its frames are cached."""
    changed = []
    for video, path, size in tables.frame("videos", ["video_id", "path", "bytes"]).drop("_rowaddr").iter_rows():
        try:
            now = os.stat(path).st_size
        except OSError:
            continue
        if now != size:
            changed.append(f"{video} ({path}: {now} bytes instead of {size})")
    return _moved(changed)


def check_pixels(store: Store, tables: Tables, count: int, seed: int = 0) -> tuple[list[Finding], int, list[str]]:
    """Decode frames drawn at random again and compare them with the cache. Their videos' contents are compared, too.

    Args:
        count: frames.

    Returns:
        findings; frames that were compared; what could not be compared, and why.
    """
    if not tables.whole("frames", "videos"):
        return [], 0, ["pixels were not compared with their videos: first repair the tables"]
    rows = tables.frame("frames", ["video_id", "index", "time_s", "width", "height", "codec"])
    chosen = _drawn(rows.height, count, seed)
    picked = rows if chosen is None else rows[chosen]
    paths = dict(tables.frame("videos", ["video_id", "path"]).drop("_rowaddr").iter_rows())
    reader = FrameReader(store)
    changed: list[str] = []
    bad: list[tuple[str, int]] = []
    gone: list[str] = []
    compared = 0
    for (video,), frames in picked.group_by("video_id", maintain_order=True):
        path = Path(paths.get(video, ""))
        try:
            if not path.is_file():
                gone.append(str(video))
                continue
            if content_id(path) != video:
                changed.append(f"{video} ({path})")
                continue
            differences = _differences(reader, str(video), path, frames)
        except DecodeError as error:
            changed.append(f"{video} ({error})")
            continue
        compared += len(differences)
        bad += [(str(video), index) for index, far in differences.items() if far]
    found = _moved(changed)
    if bad:
        drop = rows.filter(pl.col("video_id").is_in(sorted({video for video, _ in bad})))["_rowaddr"].to_numpy()
        where = some([f"frame {index} of {video}" for video, index in bad])
        about = "their videos show something else at these times; they are cached anew as wholes"
        found.append(Finding("frames", OTHER, len(bad), where, about, "cache-frames", unit="frames", drop=drop))
    skipped = [f"pixels of {len(gone)} videos were not compared: their files are not there"] if gone else []
    return found, compared, skipped


def _differences(reader: FrameReader, video: str, path: Path, frames: pl.DataFrame) -> dict[int, bool]:
    """{index: whether the cached frame is another than the one that the file shows at its time}."""
    scan = scan_packets(path)
    times = frames["time_s"].to_numpy()
    wanted = nearest(scan.times, times)
    height, width, codec = frames["height"][0], frames["width"][0], frames["codec"][0]
    cached = reader.read(video, frames["index"].to_list()).astype(np.float32)
    shown: dict[int, npt.NDArray[np.uint8]] = {}
    for part in decode_frames(path, scan, np.unique(wanted), (width, height)):
        shown.update(zip(part.indices.tolist(), part.frames, strict=True))
    out = {}
    for place, (index, at) in enumerate(zip(frames["index"].to_list(), wanted.tolist(), strict=True)):
        if at not in shown or abs(scan.times[at] - times[place]) > 1e-6:
            out[index] = True
        else:
            out[index] = bool(np.abs(cached[place] - shown[at]).mean() > _TOLERANCE[codec])
    return out


def _moved(changed: list[str]) -> list[Finding]:
    about = "these files are no longer the videos that were read; cached frames stay true to the old ones"
    redo = "ingest"
    return [Finding("videos", MOVED, len(changed), some(changed), about, redo, unit="files")] if changed else []
