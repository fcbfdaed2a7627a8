"""Reading cached frames: their bytes go from the data file straight into the caller's array, and are checked there.

Lance's own take copies frames into new memory first, which was measured to take four to ten times as long. Its data
files say where each value lies, so frames are read from there. Data files that are laid out in another way (tiny
frames, frames that are all equal), or lie on an object store, are read through Lance: the same frames, slower.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import simplejpeg

from pipeline.checksum import checksum
from pipeline.errors import UserError
from pipeline.store import Store

_COLUMNS = ["video_id", "index", "time_s", "height", "width", "codec", "checksum", "fingerprint"]
_PREFIX = 8  # bytes in which a data file holds the length of the value that follows
_FRAGMENT = 1 << 32  # an address is fragment times this, plus row
_TAKE = 8  # frames that are taken through Lance at once
_FAR_TAKE = 64  # the same from an object store, where each take waits for an answer
_THREADS = 4  # a reader leaves the other cores to the model

Pages = Sequence[Sequence[tuple[int, int]]]


class _Run(NamedTuple):
    """The rows of one video, which lie behind each other."""

    start: int
    length: int
    height: int
    width: int
    codec: str
    fingerprint: str
    whole: bool


class _File(NamedTuple):
    """A data file, and for each of its rows where the value begins, length first, and how long it is: int64 [rows]."""

    path: Path
    begins: np.ndarray
    sizes: np.ndarray


class _Job(NamedTuple):
    """A frame to be read from an open file."""

    frame: int
    descriptor: int
    begin: int
    size: int


class FrameReader:
    """Reads cached frames by video and index, from one version of the table. Safe to use from several threads.

    Opening reads the small columns once; memory is a few numbers a frame and a few words a video.

    Args:
        threads: that read and decode one call's frames. Default: one a core, at most 4.
    """

    def __init__(self, store: Store, threads: int | None = None) -> None:
        self._snapshot = store.snapshot("frames")
        self._files: dict[int, _File | None] = {}
        self._threads = threads or min(_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(self._threads - 1, "frames") if self._threads > 1 else None
        table = self._snapshot.columns(_COLUMNS)
        self._addresses = self._snapshot.addresses()
        self._times = table["time_s"].to_numpy()
        self._checksums = table["checksum"].to_numpy()
        self._runs: dict[str, _Run] = {}
        if not table.num_rows:
            return
        index = table["index"].to_numpy()
        codes = table["video_id"].combine_chunks().dictionary_encode()
        video = codes.indices.to_numpy()
        starts = np.flatnonzero(np.r_[True, video[1:] != video[:-1]])
        ends = np.r_[starts[1:], len(video)]
        firsts = table.take(pa.array(starts)).to_pylist()
        for start, end, row in zip(starts.tolist(), ends.tolist(), firsts, strict=True):
            name = row["video_id"]
            whole = name not in self._runs and bool((index[start:end] == np.arange(end - start)).all())
            shape = row["height"], row["width"], row["codec"]
            self._runs[name] = _Run(start, end - start, *shape, row["fingerprint"], whole)

    @property
    def videos(self) -> list[str]:
        """Ids of the cached videos, sorted."""
        return sorted(self._runs)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._runs

    def count(self, video_id: str) -> int:
        """Number of cached frames of a video."""
        return self._run(video_id).length

    def times(self, video_id: str) -> np.ndarray:
        """float64 [n]: true times of its frames, seconds from the first frame's start."""
        run = self._run(video_id)
        times: np.ndarray = self._times[run.start : run.start + run.length]
        return times

    def size(self, video_id: str) -> tuple[int, int]:
        """(height, width) of its frames, pixels."""
        run = self._run(video_id)
        return run.height, run.width

    def fingerprint(self, video_id: str) -> str:
        """Fingerprint of its cached frames."""
        return self._run(video_id).fingerprint

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Frames of one video, in any order, repeats allowed.

        Args:
            out: uint8 [len(indices), H, W, 3], contiguous: filled and returned. Default: a new array.

        Returns:
            uint8 [len(indices), H, W, 3], RGB; the caller's own.

        Raises:
            UserError: the video has no cached frames, or some of them are missing.
            IndexError: an index is outside the video.
            ValueError: stored bytes do not match their checksum, or `out` has another shape.
        """
        run = self._run(video_id)
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < run.length):
            raise IndexError(f"frames {wanted.min()}..{wanted.max()} of video {video_id}, which has {run.length}")
        shape = (len(wanted), run.height, run.width, 3)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out must be a contiguous uint8 array of {shape}, not {out.dtype} {out.shape}")
        first: dict[int, int] = {}  # index -> its place in `out`
        for place, index in enumerate(wanted.tolist()):
            first.setdefault(index, place)
        self._fill(video_id, run, first, out)
        for place, index in enumerate(wanted.tolist()):
            if first[index] != place:
                out[place] = out[first[index]]
        return out

    def _fill(self, video_id: str, run: _Run, places: dict[int, int], out: np.ndarray) -> None:
        """Read each index of a video into its place of `out`."""
        jobs: list[_Job] = []
        packed: list[int] = []
        streams: dict[int, FileIO] = {}

        def read(job: _Job) -> None:
            target = out[places[job.frame]]
            plain = run.codec == "raw" and job.size == target.nbytes
            data = target.reshape(-1) if plain else np.empty(job.size, np.uint8)
            prefix = bytearray(_PREFIX)
            count = os.preadv(job.descriptor, [prefix, data.data], job.begin)
            if count != _PREFIX + job.size or int.from_bytes(prefix, "little") != job.size:
                raise _damaged(video_id, job.frame)
            self._check(video_id, run, job.frame, data)
            if not plain:
                _decode(video_id, run, job.frame, data, target)

        with ExitStack() as stack:
            for index in sorted(places):
                fragment, row = divmod(int(self._addresses[run.start + index]), _FRAGMENT)
                file = self._file(fragment)
                if file is None:
                    packed.append(index)
                    continue
                if fragment not in streams:
                    streams[fragment] = stack.enter_context(FileIO(file.path))
                jobs.append(_Job(index, streams[fragment].fileno(), int(file.begins[row]), int(file.sizes[row])))
            self._share(read, jobs)
        step = _TAKE if self._snapshot.local else _FAR_TAKE
        for i in range(0, len(packed), step):
            some = packed[i : i + step]
            rows = self._snapshot.take([run.start + index for index in some], ["pixels"])
            for index, value in zip(some, rows["pixels"], strict=True):
                data = np.frombuffer(value.as_buffer(), np.uint8)
                self._check(video_id, run, index, data)
                _decode(video_id, run, index, data, out[places[index]])

    def _share(self, read: Callable[[_Job], None], jobs: Sequence[_Job]) -> None:
        """Do all jobs; each thread, the caller's too, takes the next as soon as it has done one."""
        queue = iter(jobs)

        def work() -> None:
            for job in queue:
                read(job)

        others = [self._pool.submit(work) for _ in range(min(self._threads, len(jobs)) - 1)] if self._pool else []
        try:
            work()
        finally:
            wait(others)  # they write into the caller's array
        for other in others:
            other.result()

    def _check(self, video_id: str, run: _Run, index: int, data: np.ndarray) -> None:
        if checksum(data) != self._checksums[run.start + index]:
            raise _damaged(video_id, index)

    def _file(self, fragment: int) -> _File | None:
        """Where the values of a fragment lie; None when only Lance can tell. Threads may compute it twice."""
        if not self._snapshot.local:
            return None
        if fragment not in self._files:
            path, pages, rows = self._snapshot.pages(fragment, "pixels")
            self._files[fragment] = value_places(path, pages, rows)
        return self._files[fragment]

    def _run(self, video_id: str) -> _Run:
        run = self._runs.get(video_id)
        if run is None:
            raise UserError(f"video {video_id}", "it has no cached frames", "strive-data cache-frames")
        if not run.whole:
            raise UserError(
                f"video {video_id}",
                "some of its cached frames are missing",
                "remove its rows, then strive-data cache-frames",
            )
        return run


def value_places(path: Path, pages: Pages, rows: int) -> _File | None:
    """Where the values of a column of plain bytes lie in a data file.

    A page of such a column has two buffers: the values, each behind its length, and an index of where each begins and
    where the last one ends. That layout is recognised by its own numbers, which must agree with each other.

    Args:
        pages: the (position, size) of each buffer of each page of the column.
        rows: of the file, deleted ones included.

    Returns:
        None when the pages are laid out in another way.
    """
    begins: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    with FileIO(path) as stream:
        for buffers in pages:
            if len(buffers) != 2:
                return None
            (start, size), (index_start, index_size) = buffers
            offsets = _offsets(os.pread(stream.fileno(), index_size, index_start), size)
            if offsets is None:
                return None
            if int.from_bytes(os.pread(stream.fileno(), _PREFIX, start), "little") != offsets[1] - _PREFIX:
                return None
            begins.append(start + offsets[:-1])
            ends.append(start + offsets[1:])
    if sum(map(len, begins)) != rows:
        return None
    begin, end = np.concatenate(begins), np.concatenate(ends)
    return _File(path, begin, end - begin - _PREFIX)


def _offsets(index: bytes, size: int) -> np.ndarray | None:
    """The index of a page, int64, whatever its width; None when it does not divide `size` bytes into values."""
    for width in (1, 2, 4, 8):
        if len(index) % width == 0 and len(index) >= 2 * width:
            offsets = np.frombuffer(index, f"<u{width}").astype(np.int64)
            if offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) > _PREFIX).all():
                return offsets
    return None


def _decode(video_id: str, run: _Run, index: int, data: np.ndarray, target: np.ndarray) -> None:
    """Bytes that match their checksum to uint8 [H, W, 3] in `target`."""
    if run.codec == "raw" and data.size == target.size:
        target[:] = data.reshape(target.shape)
    elif run.codec == "jpeg":
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        if (height, width) != target.shape[:2]:
            raise _damaged(video_id, index)
        simplejpeg.decode_jpeg(data, "RGB", buffer=target)
    else:
        raise _damaged(video_id, index)


def _damaged(video_id: str, index: int) -> ValueError:
    return ValueError(
        f"frame {index} of video {video_id} is damaged: its bytes do not match their checksum; "
        "remove the rows of this video and run strive-data cache-frames again"
    )
