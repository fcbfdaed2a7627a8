"""Every frame that comes back is the one that was asked for: its number is burnt into its pixels."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import (
    DecodeError,
    Scan,
    decode,
    decode_frames,
    frame_times,
    nearest,
    probe,
    scan_packets,
    target_size,
    upright_size,
)
from tests.clips import cut_clip, encode, has_encoder, number_of, picture, remux, write_clip

ORDINARY = ("plain", "no-b-frames", "long-gop", "rotated-90", "rotated-180", "rotated-270", "variable-rate", "mkv")
ODD = ("cut", "transport-stream", "program-stream", "open-gop", "open-gop-hevc", "avi", "avi-mpeg4", "gif", "av1")
OTHERS = (
    "late-start",
    "intra-refresh",
    "interlaced",
    "one-frame",
    "two-streams",
    "10-bit",
    "vp9-no-duration",
    "-dash: colon",
    "non-ascii",
)
KINDS = (*ORDINARY, *ODD, *OTHERS)
ENCODERS = {"open-gop-hevc": "libx265", "av1": "libsvtav1", "vp9-no-duration": "libvpx-vp9", "gif": "gif"}


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


def makers(folder: Path, plain: Path) -> dict[str, Callable[[], Path]]:
    """How each kind of clip is made."""
    pictures = [picture(i) for i in range(40)]
    hevc = {"preset": "ultrafast", "x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none:pools=1"}
    av1 = {"preset": "12", "crf": "20", "g": "12", "svtav1-params": "lp=1"}
    vp9 = {"deadline": "realtime", "cpu-used": "8", "g": "12", "crf": "10", "threads": "1"}
    return {
        "plain": lambda: plain,
        "no-b-frames": lambda: write_clip(folder / "bf0.mp4", bframes=0, gop=250),
        "long-gop": lambda: write_clip(folder / "gop.mp4", gop=250, bframes=3),
        "variable-rate": lambda: write_clip(folder / "vfr.mp4", ticks=lambda i: i + i // 3 + 4 * (i > 20)),
        "late-start": lambda: write_late_start(folder / "late.mkv", plain),
        "cut": lambda: cut_clip(plain, folder / "cut.mp4", 17),
        "mkv": lambda: remux(plain, folder / "plain.mkv"),
        "transport-stream": lambda: write_clip(folder / "plain.ts"),
        "program-stream": lambda: encode(folder / "2.mpg", "mpeg2video", pictures, 25, {"bf": "2", "qscale": "2"}),
        "intra-refresh": lambda: write_clip(folder / "refresh.mp4", x264="intra-refresh=1:keyint=12"),
        "interlaced": lambda: write_clip(folder / "fields.mp4", x264="tff=1:keyint=12"),
        "open-gop": lambda: write_clip(folder / "open.mp4", 60, x264="open-gop=1:keyint=12"),
        "open-gop-hevc": lambda: encode(folder / "hevc.mp4", "libx265", pictures, options=hevc),
        "avi": lambda: write_clip(folder / "plain.avi"),
        "avi-mpeg4": lambda: encode(folder / "4.avi", "mpeg4", pictures, options={"bf": "2", "g": "12", "qscale": "2"}),
        "gif": lambda: encode(folder / "plain.gif", "gif", pictures, pix_fmt="rgb8"),
        "av1": lambda: encode(folder / "av1.mkv", "libsvtav1", pictures, options=av1),
        "vp9-no-duration": lambda: encode(
            folder / "vp9.webm", "libvpx-vp9", pictures, options=vp9, container={"live": "1"}
        ),
        "10-bit": lambda: write_clip(folder / "ten.mp4", pix_fmt="yuv420p10le"),
        "one-frame": lambda: write_clip(folder / "one.mp4", 1),
        "two-streams": lambda: write_two_streams(
            folder / "two.mp4", write_clip(folder / "s.mp4", size=(48, 32)), plain
        ),
        "-dash: colon": lambda: remux(plain, folder / "-dash: 1.mp4"),
        "non-ascii": lambda: remux(plain, folder / "vidéo 動画.mp4"),
        "rotated-90": lambda: write_clip(folder / "r90.mp4", rotation=90),
        "rotated-180": lambda: write_clip(folder / "r180.mp4", rotation=180),
        "rotated-270": lambda: write_clip(folder / "r270.mp4", rotation=270),
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The clip of a kind, made when it is first wanted; skips the test where there is no encoder for it."""
    folder = tmp_path_factory.mktemp("clips")
    plain = write_clip(folder / "plain.mp4")
    make = makers(folder, plain)

    @cache
    def made(kind: str) -> Path:
        return make[kind]()

    def get(kind: str) -> Path:
        if kind in ENCODERS and not has_encoder(ENCODERS[kind]):
            pytest.skip(f"PyAV was built without {ENCODERS[kind]}")
        return made(kind)

    return get


def numbers(frames: np.ndarray, rotation: int) -> list[int]:
    return [number_of(np.rot90(frame, -(rotation // 90))) for frame in frames]


def first_number(kind: str) -> int:
    return 17 if kind == "cut" else 0


def check(path: Path, kind: str, scan: Scan, indices: list[int], short_side: int | None = None) -> None:
    """The frames at these places are those, with these times, of this size."""
    found = decode(path, scan.times[indices], short_side)
    assert numbers(found.frames, scan.rotation) == [first_number(kind) + i for i in indices]
    assert found.indices.tolist() == indices
    np.testing.assert_array_equal(found.times, scan.times[indices])
    width, height = target_size(*upright_size(scan), short_side)
    assert found.frames.shape == (len(indices), height, width, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("short_side", [None, 40])
def test_frames_are_the_ones_asked_for(clip: Callable[[str], Path], kind: str, short_side: int | None) -> None:
    scan = scan_packets(clip(kind))
    n = len(scan.times)
    assert not scan.damage
    assert n == {"one-frame": 1, "cut": 23, "open-gop": 60}.get(kind, 40)
    rng = np.random.default_rng(0)
    for indices in (
        np.arange(n),
        np.linspace(0, n - 1, 5).round().astype(int),
        np.arange(n - 1, -1, -3),
        rng.integers(0, n, 12),
        np.array([n - 1, 0, n - 1, n // 2]),
    ):
        check(clip(kind), kind, scan, indices.tolist(), short_side)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_request_in_any_order(clip: Callable[[str], Path], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["plain", "cut", "open-gop", "transport-stream", "avi", "variable-rate"]))
    scan = scan_packets(clip(kind))
    indices = data.draw(st.lists(st.integers(0, len(scan.times) - 1), min_size=1, max_size=12))
    check(clip(kind), kind, scan, indices)


@pytest.mark.parametrize("kind", KINDS)
def test_decord_reads_only_files_that_it_reads_rightly(clip: Callable[[str], Path], kind: str) -> None:
    """What PyAV reads is in the rule, not left to chance; ordinary files stay with the fast backend."""
    backend = decode(clip(kind), [0.0]).backend
    assert backend == ("decord" if kind in ORDINARY else "pyav" if kind in ODD else backend)
    assert backend in ("decord", "pyav")


@pytest.mark.parametrize("side", [2, 8, 16])
def test_narrow_pictures(tmp_path: Path, side: int) -> None:
    """decord mistakes the channel axis of these. There is no room for a number: each frame has its own grey."""
    greys = [np.full((48, side, 3), 20 + 10 * i, np.uint8) for i in range(20)]
    path = encode(tmp_path / "narrow.mp4", "libx264", greys, options={"g": "5", "crf": "1"})
    scan = scan_packets(path)
    found = decode(path, scan.times[[7, 0, 19, 7]])
    assert found.frames.shape == (4, 48, side, 3)
    np.testing.assert_allclose(found.frames.mean((1, 2, 3)), [90, 20, 210, 90], atol=4)


def test_both_backends_agree(clip: Callable[[str], Path]) -> None:
    """One file in two containers, of which decord must not read one."""
    decord, pyav = (decode(clip(kind), [0.0, 1.3, 3.9]) for kind in ("plain", "transport-stream"))
    assert (decord.backend, pyav.backend) == ("decord", "pyav")
    assert np.abs(decord.frames.astype(int) - pyav.frames).mean() < 2


def test_times_are_true_times_from_the_first_frame(clip: Callable[[str], Path]) -> None:
    np.testing.assert_allclose(frame_times(clip("plain")), np.arange(40) / 10, atol=1e-9)
    np.testing.assert_allclose(frame_times(clip("cut")), np.arange(23) / 10, atol=1e-9)
    np.testing.assert_allclose(frame_times(clip("late-start")), np.arange(40) / 10, atol=1e-9)
    variable = np.array([i + i // 3 + 4 * (i > 20) for i in range(40)]) / 10
    np.testing.assert_allclose(frame_times(clip("variable-rate")), variable, atol=1e-9)


def test_probe_tells_what_a_file_holds(clip: Callable[[str], Path]) -> None:
    plain = probe(clip("plain"))
    assert (plain.codec, plain.width, plain.height, plain.rotation) == ("h264", 96, 64, 0)
    assert (plain.frame_count, plain.variable_rate, plain.status) == (40, False, "ok")
    assert plain.duration_s == pytest.approx(4.0)
    assert plain.fps == pytest.approx(10.0)
    turned = probe(clip("rotated-90"))
    assert (turned.width, turned.height, turned.rotation) == (64, 96, 90)
    assert probe(clip("variable-rate")).variable_rate
    assert "edit list" in probe(clip("cut")).status
    assert probe(clip("two-streams")).width == 96


def test_times_outside_the_video_are_errors(clip: Callable[[str], Path]) -> None:
    """A frame answers for the time for which it is shown, the last one until the video ends."""
    path = clip("plain")
    assert decode(path, [0.04, 0.06, 3.99, 4.0]).indices.tolist() == [0, 1, 39, 39]
    for time in (-0.05, 4.1, 1e9, float("nan"), float("inf")):
        with pytest.raises(DecodeError) as caught:
            decode(path, [0.0, time])
        assert caught.value.reason == "time outside the video"
        assert str(path) in str(caught.value)


def test_no_frames_are_made_larger(clip: Callable[[str], Path]) -> None:
    assert decode(clip("plain"), [0.0], 500).frames.shape == (1, 64, 96, 3)
    assert decode(clip("plain"), []).frames.shape == (0, 64, 96, 3)
    assert decode(clip("plain"), [0.0], max_pixels=600).frames.shape == (1, 20, 30, 3)


def test_long_videos_come_in_chunks(clip: Callable[[str], Path]) -> None:
    for kind in ("plain", "transport-stream"):
        scan = scan_packets(clip(kind))
        parts = list(decode_frames(clip(kind), scan, np.arange(40), (96, 64)))
        assert [len(part.frames) for part in parts] == [32, 8]
        assert [part.indices.dtype for part in parts] == [np.int64, np.int64]
        assert numbers(np.concatenate([part.frames for part in parts]), 0) == list(range(40))
        assert list(decode_frames(clip(kind), scan, np.arange(0), (96, 64))) == []


side = st.integers(1, 5000)


@given(side, side, st.none() | side, st.none() | st.integers(1, 10**7))
def test_sizes_stay_within_both_limits(width: int, height: int, short_side: int | None, pixels: int | None) -> None:
    wide, high = target_size(width, height, short_side, pixels)
    assert 1 <= wide <= width
    assert 1 <= high <= height
    assert short_side is None or min(wide, high) <= max(1, short_side)
    assert pixels is None or wide * high <= pixels
    if min(wide, high) > 1:  # a pixel more or less on each side explains what the aspect is off
        assert (wide - 1) / (high + 1) <= width / height <= (wide + 1) / (high - 1)
    if short_side is None and pixels is not None and min(wide, high) > 1 and (wide, high) != (width, height):
        assert (wide + 1) * (high + 1) > pixels


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
