"""Every frame that comes back is the one that was asked for: its number is burnt into its pixels."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import (
    DecodeError,
    content_id,
    decode,
    decode_frames,
    frame_times,
    nearest,
    probe,
    scan_packets,
)
from tests.clips import cut_clip, damage, number_of, remux, write_clip, write_sound

KINDS = (
    *("plain", "no-b-frames", "rotated-90", "rotated-180", "rotated-270", "variable-rate", "late-start"),
    *("cut", "mkv", "transport-stream", "open-gop", "avi", "one-frame", "two-streams", "-dash: colon"),
)


def write_two_streams(path: Path, small: Path, large: Path) -> Path:
    """Two video streams; the one that players show, the default, comes second."""
    with av.open(str(small)) as a, av.open(str(large)) as b, av.open(str(path), "w") as new:
        sources = [a.streams.video[0], b.streams.video[0]]
        copies = [new.add_stream_from_template(stream) for stream in sources]
        copies[1].disposition = av.stream.Disposition.default
        for stream, copy in zip(sources, copies, strict=True):
            for packet in stream.container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    new.mux(packet)
    return path


def write_late_start(path: Path, source: Path) -> Path:
    """Timestamps that begin at 1.5 s; Matroska keeps them so."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = round(1.5 / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                new.mux(packet)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    plain = write_clip(folder / "plain.mp4")
    made: dict[str, Callable[[], Path]] = {
        "plain": lambda: plain,
        "no-b-frames": lambda: write_clip(folder / "bf0.mp4", bframes=0, gop=250),
        "variable-rate": lambda: write_clip(folder / "vfr.mp4", ticks=lambda i: i + i // 3 + 4 * (i > 20)),
        "late-start": lambda: write_late_start(folder / "late.mkv", plain),
        "cut": lambda: cut_clip(plain, folder / "cut.mp4", 17),
        "mkv": lambda: remux(plain, folder / "plain.mkv"),
        "transport-stream": lambda: write_clip(folder / "plain.ts"),
        "open-gop": lambda: write_clip(folder / "open.mp4", 60, x264="open-gop=1:keyint=12"),
        "avi": lambda: write_clip(folder / "plain.avi"),
        "one-frame": lambda: write_clip(folder / "one.mp4", 1),
        "two-streams": lambda: write_two_streams(
            folder / "two.mp4", write_clip(folder / "s.mp4", size=(48, 32)), plain
        ),
        "-dash: colon": lambda: remux(plain, folder / "-dash: 1.mp4"),
    }
    for angle in (90, 180, 270):
        made[f"rotated-{angle}"] = lambda angle=angle: write_clip(folder / f"r{angle}.mp4", rotation=angle)
    return {kind: make() for kind, make in made.items()}


def numbers(frames: np.ndarray, rotation: int) -> list[int]:
    return [number_of(np.rot90(frame, -(rotation // 90))) for frame in frames]


def frames_or_none(path: Path) -> np.ndarray | None:
    """All frames of a file, or None when it says that it cannot be decoded."""
    try:
        return decode(path, frame_times(path)).frames
    except DecodeError:
        return None


def first_number(kind: str) -> int:
    return 17 if kind == "cut" else 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("short_side", [None, 40])
def test_frames_are_the_ones_asked_for(clips: dict[str, Path], kind: str, short_side: int | None) -> None:
    scan = scan_packets(clips[kind])
    n = len(scan.times)
    rng = np.random.default_rng(0)
    for indices in (
        np.arange(n),
        np.linspace(0, n - 1, 5).round().astype(int),
        np.arange(n - 1, -1, -3),
        rng.integers(0, n, 12),
        np.array([n - 1, 0, n - 1, n // 2]),
    ):
        found = decode(clips[kind], scan.times[indices], short_side)
        assert numbers(found.frames, scan.rotation) == [first_number(kind) + i for i in indices.tolist()]
        np.testing.assert_array_equal(found.times, scan.times[indices])
        assert min(found.frames.shape[1:3]) == (short_side or 64)


@pytest.mark.parametrize("kind", KINDS)
def test_decord_reads_only_files_that_it_reads_rightly(clips: dict[str, Path], kind: str) -> None:
    odd = kind in ("cut", "transport-stream", "open-gop", "avi")
    backend = decode(clips[kind], [0.0]).backend
    assert backend == "pyav" if odd else backend in ("decord", "pyav")
    if kind in ("plain", "variable-rate", "rotated-90", "mkv"):
        assert backend == "decord"


def test_both_backends_agree(clips: dict[str, Path]) -> None:
    """One file in two containers, of which decord must not read one."""
    decord, pyav = (decode(clips[kind], [0.0, 1.3, 3.9]) for kind in ("plain", "transport-stream"))
    assert (decord.backend, pyav.backend) == ("decord", "pyav")
    assert np.abs(decord.frames.astype(int) - pyav.frames).mean() < 2


def test_times_are_true_times_from_the_first_frame(clips: dict[str, Path]) -> None:
    np.testing.assert_allclose(frame_times(clips["plain"]), np.arange(40) / 10, atol=1e-9)
    np.testing.assert_allclose(frame_times(clips["cut"]), np.arange(23) / 10, atol=1e-9)
    np.testing.assert_allclose(frame_times(clips["late-start"]), np.arange(40) / 10, atol=1e-9)
    variable = np.array([i + i // 3 + 4 * (i > 20) for i in range(40)]) / 10
    np.testing.assert_allclose(frame_times(clips["variable-rate"]), variable, atol=1e-9)


def test_probe_tells_what_a_file_holds(clips: dict[str, Path]) -> None:
    plain = probe(clips["plain"])
    assert (plain.codec, plain.width, plain.height, plain.rotation) == ("h264", 96, 64, 0)
    assert (plain.frame_count, plain.variable_rate, plain.status) == (40, False, "ok")
    assert plain.duration_s == pytest.approx(4.0)
    assert plain.fps == pytest.approx(10.0)
    turned = probe(clips["rotated-90"])
    assert (turned.width, turned.height, turned.rotation) == (64, 96, 90)
    assert probe(clips["variable-rate"]).variable_rate
    assert "edit list" in probe(clips["cut"]).status
    assert probe(clips["two-streams"]).width == 96


def test_content_names_a_file(clips: dict[str, Path], tmp_path: Path) -> None:
    twin = tmp_path / "other name.mp4"
    twin.write_bytes(clips["plain"].read_bytes())
    assert content_id(twin) == content_id(clips["plain"])
    assert len({content_id(path) for kind, path in clips.items() if kind != "-dash: colon"}) == len(clips) - 1
    large = tmp_path / "large"
    large.write_bytes(bytes(5 << 20))
    longer = tmp_path / "longer"
    longer.write_bytes(bytes((5 << 20) + 1))
    assert content_id(large) != content_id(longer)


def test_no_frames_are_made_larger(clips: dict[str, Path]) -> None:
    assert decode(clips["plain"], [0.0], 500).frames.shape == (1, 64, 96, 3)
    assert decode(clips["plain"], []).frames.shape == (0, 64, 96, 3)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"no video at all", "unreadable container"), (None, "missing file")]
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (probe, frame_times, lambda p: decode(p, [0.0])):
        with pytest.raises(DecodeError) as caught:
            read(path)
        assert caught.value.reason == reason
        assert str(path) in str(caught.value)


def test_sound_and_folders_are_no_videos(tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as caught:
        probe(write_sound(tmp_path / "sound.mp4"))
    assert caught.value.reason == "no video stream"
    with pytest.raises(DecodeError) as caught:
        probe(tmp_path)
    assert caught.value.reason == "not a file"


def test_encrypted_pictures_are_refused(clips: dict[str, Path], tmp_path: Path) -> None:
    """Encrypted AV1 decodes to noise without an error; the sample description names the encryption."""
    hidden = tmp_path / "hidden.mp4"
    hidden.write_bytes(clips["plain"].read_bytes().replace(b"avc1", b"encv"))
    with pytest.raises(DecodeError) as caught:
        probe(hidden)
    assert caught.value.reason == "encrypted"


def test_a_truncated_file_gives_no_wrong_frame(clips: dict[str, Path], tmp_path: Path) -> None:
    """Matroska opens without its end: the frames that are there are right, and no others are made up."""
    data = clips["mkv"].read_bytes()
    short = tmp_path / "short.mkv"
    short.write_bytes(data[: len(data) // 2])
    frames = frames_or_none(short)
    assert frames is None or numbers(frames, 0) == list(range(len(frames)))


@pytest.mark.parametrize("start", [0.2, 0.45, 0.7])
def test_a_damaged_file_gives_no_frame_twice(tmp_path: Path, start: float) -> None:
    """decord by itself repeats the last good frame where packets are broken."""
    source = write_clip(tmp_path / "source.mp4", 60, gop=60, bframes=0)
    broken = damage(source, tmp_path / "broken.mp4", [(start, start + 0.15)])
    frames = frames_or_none(broken)
    told = [] if frames is None else [number for number in numbers(frames, 0) if number >= 0]
    assert len(set(told)) >= len(told) - 1


def test_long_videos_come_in_chunks(clips: dict[str, Path]) -> None:
    for kind in ("plain", "transport-stream"):
        scan = scan_packets(clips[kind])
        parts = list(decode_frames(clips[kind], scan, np.arange(40)))
        assert [len(part.frames) for part in parts] == [32, 8]
        assert numbers(np.concatenate([part.frames for part in parts]), 0) == list(range(40))


@given(
    st.lists(st.floats(0.001, 3.0), min_size=0, max_size=30),
    st.lists(st.floats(-1.0, 100.0), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_nearest_is_the_nearest(gaps: list[float], targets: list[float]) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    chosen = nearest(times, targets)
    for target, index in zip(targets, chosen.tolist(), strict=True):
        distances = np.abs(times - target)
        assert distances[index] == pytest.approx(distances.min(), abs=1e-9)
