"""Files that are no videos, that are encrypted, or that only look like videos: each is refused by its own reason."""

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.decode import DecodeError, content_id, decode, frame_times, probe
from pipeline.decode.containers import encrypted, ends_early
from tests.clips import encode, number_of, picture, remux, write_clip, write_sound


def refused(path: Path, read: Callable[[Path], object] = probe) -> str:
    """The reason for which a file is refused; the message names it."""
    with pytest.raises(DecodeError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return caught.value.reason


def write_song_with_cover(path: Path, moving: Path | None = None) -> Path:
    """Sound with an attached picture, as music files have it; `moving`: a real video stream as well."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        copy = None
        if moving is not None:
            source = av.open(str(moving))
            copy = container.add_stream_from_template(source.streams.video[0])
        drawn = av.VideoFrame.from_ndarray(picture(5, 320, 240), format="rgb24").reformat(format="yuvj420p")
        drawn.pts = 0
        container.mux(cover.encode(drawn))
        container.mux(cover.encode())
        for i in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        if copy is not None:
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = copy
                    container.mux(packet)
            source.close()
    return path


def vint(value: int, length: int = 8) -> bytes:
    """A Matroska size of a given length."""
    return (value | 1 << (7 * length)).to_bytes(length, "big")


def element(kind: bytes, body: bytes) -> bytes:
    return kind + vint(len(body)) + body


def matroska(encodings: bytes, track_type: int = 1, unknown_size: bool = False) -> bytes:
    """The head of a Matroska file with one track."""
    track = element(b"\xae", element(b"\x83", bytes([track_type])) + encodings)
    tracks = element(b"\x15\x49\xa9\x66", b"info") + element(b"\x16\x54\xae\x6b", track)
    body = tracks + element(b"\x1f\x43\xb6\x75", b"cluster")
    segment = b"\x18\x53\x80\x67" + (b"\x01" + b"\xff" * 7 if unknown_size else vint(len(body)))
    return element(b"\x1a\x45\xdf\xa3", b"") + segment + body


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"no video at all", "unreadable container"), (None, "missing file")]
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (probe, frame_times, lambda p: decode(p, [0.0])):
        assert refused(path, read) == reason


def test_sound_and_folders_are_no_videos(tmp_path: Path) -> None:
    assert refused(write_sound(tmp_path / "sound.mp4")) == "no video stream"
    assert refused(tmp_path) == "not a file"


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    assert refused(write_song_with_cover(tmp_path / "song.mp4")) == "no video stream"


def test_a_video_beside_cover_art_is_the_video(tmp_path: Path) -> None:
    """The cover is larger, and comes first."""
    clip = write_clip(tmp_path / "clip.mp4")
    both = write_song_with_cover(tmp_path / "both.mp4", clip)
    assert (probe(both).width, probe(both).frame_count) == (96, 40)
    assert number_of(decode(both, [1.3]).frames[0]) == 13


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("x.png", "png", "rgb24"), ("x.jpg", "mjpeg", "yuvj420p")])
def test_pictures_are_no_videos(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    """Also under the name of a video: the content decides."""
    path = encode(tmp_path / name, codec, [picture(3)], pix_fmt=pix_fmt, container={"update": "1"})
    assert refused(path) == "still image"
    assert refused(shutil.copy(path, tmp_path / "x.mp4")) == "still image"


def test_encrypted_pictures_are_refused(tmp_path: Path) -> None:
    """Encrypted AV1 decodes to noise without an error; the sample description names the encryption."""
    plain = write_clip(tmp_path / "plain.mp4")
    fragmented = remux(plain, tmp_path / "fragmented.mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    for path in (plain, fragmented):
        hidden = tmp_path / f"hidden-{path.name}"
        hidden.write_bytes(path.read_bytes().replace(b"avc1\0", b"encv\0"))
        assert refused(hidden) == "encrypted"


def test_a_word_in_the_metadata_is_no_encryption(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4")
    with av.open(str(plain)) as old, av.open(str(tmp_path / "said.mp4"), "w") as new:
        new.metadata["comment"] = "encv"
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    assert b"encv" in (tmp_path / "said.mp4").read_bytes()
    assert probe(tmp_path / "said.mp4").status == "ok"


def test_matroska_says_when_it_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    encryption = element(b"\x6d\x80", element(b"\x62\x40", element(b"\x50\x35", b"key")))
    compression = element(b"\x6d\x80", element(b"\x62\x40", element(b"\x50\x34", b"zlib")))
    for head, expected in (
        (matroska(encryption), True),
        (matroska(encryption, unknown_size=True), True),
        (matroska(compression), False),
        (matroska(b""), False),
        (matroska(encryption, track_type=2), False),  # the sound is
        (matroska(encryption)[:40], False),
        (b"\x1a\x45\xdf\xa3\x00", False),
        (b"", False),
    ):
        path.write_bytes(head)
        assert encrypted(path, "matroska,webm", 1) == expected


def test_scrambled_transport_streams_are_refused(tmp_path: Path) -> None:
    """The scrambling bits of the video's own packets count; one packet alone is a damaged byte."""
    plain = write_clip(tmp_path / "plain.ts")
    data = np.frombuffer(plain.read_bytes(), np.uint8).reshape(-1, 188).copy()
    with av.open(str(plain)) as container:
        pid = container.streams.video[0].id
    mine = np.flatnonzero(((data[:, 1].astype(int) & 0x1F) << 8 | data[:, 2]) == pid)
    for rows, expected in ((mine, True), (mine[3:4], False)):
        changed = data.copy()
        changed[rows, 3] |= 0x80
        hidden = tmp_path / "hidden.ts"
        hidden.write_bytes(changed.tobytes())
        assert encrypted(hidden, "mpegts", pid) == expected
        assert not encrypted(hidden, "mpegts", pid + 1)
        if expected:
            assert refused(hidden) == "encrypted"
    longer = np.concatenate([np.zeros((len(data), 4), np.uint8), data], axis=1)  # packets of 192 bytes, as on discs
    longer[mine, 7] |= 0xC0
    hidden.write_bytes(longer.tobytes())
    assert encrypted(hidden, "mpegts", pid)


def test_any_bytes_can_be_looked_at(tmp_path: Path) -> None:
    """What reads the containers' bytes must end on whatever it is given."""
    rng = np.random.default_rng(0)
    heads = (matroska(b""), (24).to_bytes(4, "big") + b"moov" + bytes(16), b"RIFF\xff\xff\0\0", b"\x47" * 188)
    path = tmp_path / "x"
    for _ in range(200):
        data = bytearray(heads[rng.integers(len(heads))] * int(rng.integers(1, 4)))
        for place in rng.integers(0, len(data), rng.integers(0, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        for container in ("matroska,webm", "mov,mp4,m4a", "mpegts", "avi"):
            assert encrypted(path, container, 256) in (True, False)
            assert ends_early(path, container) in (True, False)


def test_content_names_a_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    twin = tmp_path / "other name.mp4"
    twin.write_bytes(clip.read_bytes())
    assert content_id(twin) == content_id(clip)
    assert content_id(write_clip(tmp_path / "second.mp4", tint=9)) != content_id(clip)
    large = tmp_path / "large"
    large.write_bytes(bytes(5 << 20))
    longer = tmp_path / "longer"
    longer.write_bytes(bytes((5 << 20) + 1))
    assert content_id(large) != content_id(longer)
