"""The chain of backends: who reads what, by a stated rule, and the row says who did."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pipeline.decode as decoding
from pipeline.decode import DecodeError, by_decord, decode_frames, scan_packets
from pipeline.decode.by_pyav import Missing, read_pyav
from pipeline.decode.by_torchcodec import open_torchcodec
from tests.clips import cut_clip, number_of, overwrite, packet_spans, write_clip

SIZE = (96, 64)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture
def without_decord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "open_decord", lambda path, scan, size: None)


def gaps_in_pyav(lost: set[int], damaged: bool) -> Callable[..., Iterator[tuple[int, np.ndarray | Missing]]]:
    """PyAV, but for some frames."""

    def read(*arguments: object) -> Iterator[tuple[int, np.ndarray | Missing]]:
        for index, answer in read_pyav(*arguments):  # type: ignore[arg-type]
            yield index, Missing("not today", damaged) if index in lost else answer

    return read


def torchcodec_that(answer: np.ndarray | Missing) -> Callable[..., Callable[[int], np.ndarray | Missing]]:
    return lambda path, scan, size: lambda index: answer


@pytest.mark.usefixtures("without_decord")
def test_torchcodec_is_asked_for_what_pyav_cannot_give(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    white = np.full((64, 96, 3), 255, np.uint8)
    monkeypatch.setattr(decoding, "read_pyav", gaps_in_pyav({3, 4, 9}, damaged=False))
    monkeypatch.setattr(decoding, "has_torchcodec", lambda: True)
    monkeypatch.setattr(decoding, "open_torchcodec", torchcodec_that(white))
    parts = list(decode_frames(clip, scan_packets(clip), np.arange(12), SIZE))
    told = [(part.backend, part.indices.tolist()) for part in parts]
    assert told == [
        ("pyav", [0, 1, 2]),
        ("torchcodec", [3, 4]),
        ("pyav", [5, 6, 7, 8]),
        ("torchcodec", [9]),
        ("pyav", [10, 11]),
    ]
    assert (parts[1].frames == 255).all()


@pytest.mark.usefixtures("without_decord")
@pytest.mark.parametrize("installed", [True, False])
def test_nobody_is_asked_for_damaged_frames(clip: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """torchcodec would give them pieced together."""
    monkeypatch.setattr(decoding, "read_pyav", gaps_in_pyav({3}, damaged=installed))
    monkeypatch.setattr(decoding, "has_torchcodec", lambda: installed)
    monkeypatch.delattr(decoding, "open_torchcodec")
    parts = list(decode_frames(clip, scan_packets(clip), np.arange(5), SIZE))
    assert [(part.backend, part.indices.tolist()) for part in parts] == [("pyav", [0, 1, 2, 4])]


@pytest.mark.usefixtures("without_decord")
def test_an_error_names_all_who_failed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "read_pyav", gaps_in_pyav({7}, damaged=False))
    monkeypatch.setattr(decoding, "has_torchcodec", lambda: True)
    monkeypatch.setattr(decoding, "open_torchcodec", torchcodec_that(Missing("nor today", damaged=False)))
    with pytest.raises(DecodeError) as caught:
        list(decode_frames(clip, scan_packets(clip), np.array([7]), SIZE))
    assert str(caught.value) == (
        f"frame not decodable: {clip}: frame 7 (0.700 s), pyav and torchcodec: not today; nor today"
    )


def test_decord_is_not_believed_when_its_ffmpeg_complains(tmp_path: Path) -> None:
    """The frame itself opens, decodes and has the right time, but it shows the one before."""
    source = write_clip(tmp_path / "source.mp4", 20, gop=20, bframes=0)
    start, size, _ = packet_spans(source)[10]
    broken = overwrite(source, tmp_path / "broken.mp4", start + size // 2, bytes(range(7, 7 + size // 2)))
    scan = scan_packets(broken)
    assert not scan.doubts  # only decoding shows it
    read = by_decord.open_decord(broken, scan, SIZE)
    assert read is not None
    assert read(np.array([0, 10, 12])) is None
    (part,) = decode_frames(broken, scan, np.array([0, 8, 10, 12]), SIZE)
    assert (part.backend, part.indices.tolist()) == ("pyav", [0, 8])
    assert [number_of(frame) for frame in part.frames] == [0, 8]


def test_decord_that_cannot_be_heard_reads_nothing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not by_decord._EAR.deaf
    monkeypatch.setattr(by_decord._EAR, "deaf", True)
    (part,) = decode_frames(clip, scan_packets(clip), np.arange(5), SIZE)
    assert part.backend == "pyav"


def test_decoding_imports_neither_torch_nor_torchcodec() -> None:
    """They would cost each decoding worker 700 MB."""
    code = "import sys, pipeline.decode; print(sorted({'torch', 'torchcodec'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def real_torchcodec() -> None:
    """Skips the test where torchcodec, or the FFmpeg that it needs, is not installed."""
    decoders = pytest.importorskip("torchcodec.decoders")
    try:
        decoders.VideoDecoder(b"")
    except RuntimeError as error:
        if "libtorchcodec" in str(error):
            pytest.skip("torchcodec finds no FFmpeg")
    except ValueError:
        return


@pytest.mark.usefixtures("real_torchcodec")
@pytest.mark.parametrize("kind", ["plain", "cut", "rotated", "open-gop", "variable-rate"])
def test_torchcodec_gives_the_same_frames(clip: Path, tmp_path: Path, kind: str) -> None:
    path = {
        "plain": lambda: clip,
        "cut": lambda: cut_clip(clip, tmp_path / "cut.mp4", 17),
        "rotated": lambda: write_clip(tmp_path / "r.mp4", rotation=90),
        "open-gop": lambda: write_clip(tmp_path / "open.mp4", 60, x264="open-gop=1:keyint=12"),
        "variable-rate": lambda: write_clip(tmp_path / "vfr.mp4", ticks=lambda i: i + i // 3 + 4 * (i > 20)),
    }[kind]()
    scan = scan_packets(path)
    size = (48, 72) if kind == "rotated" else (72, 48)
    ask = open_torchcodec(path, scan, size)
    for index, expected in read_pyav(path, scan, np.arange(len(scan.times)), size):
        answer = ask(index)
        assert isinstance(answer, np.ndarray), answer
        assert isinstance(expected, np.ndarray)
        assert answer.shape == (size[1], size[0], 3)
        assert np.abs(answer.astype(int) - expected).mean() < 3


def test_pyav_binds_to_its_own_libraries(tmp_path: Path) -> None:
    """decord's are global in the process: loaded first, they took the place of PyAV's, and VP9 met another version."""
    code = "import sys, numpy as np, pipeline.decode\nfrom pathlib import Path\nfrom tests.clips import encode\n"
    code += "encode(Path(sys.argv[1]), 'libvpx-vp9', np.zeros((3, 32, 32, 3), np.uint8))"
    words = [sys.executable, "-c", code, str(tmp_path / "clip.webm")]
    subprocess.run(words, check=True, capture_output=True, cwd=Path(__file__).parent.parent)
