"""Damaged files: what comes back is true, the rest is missing and said to be. No frame stands in for another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.decode import DecodeError, decode, decode_frames, probe, scan_packets, target_size, upright_size
from tests.clips import damage, encode, number_of, overwrite, packet_spans, picture, remux, write_clip


def kept(path: Path, wanted: np.ndarray | None = None) -> dict[int, int]:
    """{number that belongs to its time: number read from its picture} of the frames of a file that decode."""
    scan = scan_packets(path)
    indices = np.arange(len(scan.times)) if wanted is None else wanted
    found: dict[int, int] = {}
    for part in decode_frames(path, scan, indices, target_size(*upright_size(scan))):
        np.testing.assert_array_equal(part.times, scan.times[part.indices])
        found.update(zip(np.round(part.times * 10).astype(int).tolist(), map(number_of, part.frames), strict=True))
    assert list(found) == sorted(found)
    return found


def strictly(path: Path) -> DecodeError:
    """The error with which a file is refused when nothing may be left out."""
    scan = scan_packets(path)
    with pytest.raises(DecodeError) as caught:
        list(decode_frames(path, scan, np.arange(len(scan.times)), upright_size(scan), strict=True))
    assert str(path) in str(caught.value)
    return caught.value


def test_a_cut_mp4_keeps_what_is_there(tmp_path: Path) -> None:
    """With its index in front it opens, and announces frames that are not there."""
    whole = write_clip(tmp_path / "whole.mp4", 60, container={"movflags": "faststart"})
    start, size, _ = packet_spans(whole)[36]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: start + size // 2])
    scan = scan_packets(cut)
    assert scan.announced == 60
    assert scan.damage == f"{len(scan.times)} of 60 indexed frames are in the file"
    assert scan.damage in probe(cut).status
    found = kept(cut)
    assert 34 <= len(found) <= 36
    assert all(index == number for index, number in found.items())
    assert strictly(cut).reason == "damaged"
    assert number_of(decode(cut, [2.5]).frames[0]) == 25


@pytest.mark.parametrize("share", [0.4, 0.55, 0.7])
def test_a_cut_fragmented_mp4_keeps_what_is_there(tmp_path: Path, share: float) -> None:
    """Its index comes in pieces, so that none tells of the frames that are gone."""
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    data = write_clip(tmp_path / "whole.mp4", 60, container=fragments).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * share)])
    found = kept(cut)
    assert len(found) > 60 * share - 25
    assert all(index == number for index, number in found.items())
    assert scan_packets(cut).damage
    assert strictly(cut).reason == "damaged"


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_cut_mkv_keeps_what_is_there(tmp_path: Path, share: float) -> None:
    """Matroska opens without its end: the frames that are there are right, and no others are made up."""
    data = remux(write_clip(tmp_path / "x.mp4", 60), tmp_path / "whole.mkv").read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: int(len(data) * share)])
    found = kept(cut)
    assert len(found) > 60 * share - 20
    assert all(index == number for index, number in found.items())
    assert scan_packets(cut).damage == "the file ends before its container does"
    assert strictly(cut).reason == "damaged"


@pytest.mark.parametrize("key", [False, True])
def test_a_lost_packet_takes_its_group_along(tmp_path: Path, key: bool) -> None:
    """Pictures lean on the one before, back to the key frame; the next key frame leans on none."""
    source = write_clip(tmp_path / "source.mp4", 60, gop=12, bframes=0)
    place = next(i for i, (_, _, is_key) in enumerate(packet_spans(source)) if i > 24 and is_key == key)
    start, size, _ = packet_spans(source)[place]
    broken = overwrite(source, tmp_path / "broken.mp4", start, bytes(size))
    lost = set(range(place, 48 if key else 36))
    found = kept(broken)
    assert set(range(60)) - set(found) == lost
    assert all(index == number for index, number in found.items())
    for wanted in (np.array([2, place, 59]), np.array([40, 50]), np.array([place + 1, 59])):
        some = kept(broken, wanted)
        assert set(some) == set(wanted.tolist()) - lost
    error = strictly(broken)
    assert error.reason == "frame not decodable"
    for word in (f"frame {place} ", f"{place / 10:.3f} s", "pyav"):
        assert word in str(error)
    with pytest.raises(DecodeError, match=f"frame {place} "):
        decode(broken, [place / 10])
    with pytest.raises(DecodeError, match="frame not decodable"):
        kept(broken, np.array(sorted(lost)))


@pytest.mark.parametrize("seed", range(12))
def test_no_frame_is_repeated_for_a_damaged_one(tmp_path: Path, seed: int) -> None:
    """decord gives the frame before for one that is damaged, without an error: FFmpeg conceals it so."""
    rng = np.random.default_rng(seed)
    source = write_clip(tmp_path / "source.mp4", 60, gop=30, bframes=0)
    place = int(rng.integers(1, 59))
    start, size, _ = packet_spans(source)[place]
    noise = rng.integers(0, 256, size // 2, np.uint8).tobytes()
    broken = overwrite(source, tmp_path / "broken.mp4", start + size - len(noise), noise)
    found = kept(broken)
    assert all(found[index] == index for index in range(place))
    assert all(number in (index, -1) for index, number in found.items() if index != place), found
    assert set(range(30 * (place // 30 + 1), 60)) <= set(found)


def test_many_damaged_places_cost_only_what_they_hit(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mp4", 80, gop=10, bframes=2)
    broken = source
    for place in (14, 17, 38, 55):
        start, size, _ = packet_spans(source)[place]
        broken = overwrite(broken, tmp_path / "broken.mp4", start, bytes(size))
    found = kept(broken)
    assert all(index == number for index, number in found.items())
    hit = {10, 30, 50}
    assert all(set(range(group, group + 10)) <= set(found) for group in range(0, 80, 10) if group not in hit)
    assert len(found) < 80 - 2 - 5


def test_damage_in_an_avi_ends_the_count(tmp_path: Path) -> None:
    """Its frames are found by counting, which says nothing any more behind a packet that may have given none."""
    pictures = [picture(i) for i in range(40)]
    source = encode(tmp_path / "x.avi", "mpeg4", pictures, options={"bf": "2", "qscale": "2", "g": "12"})
    start, size, _ = packet_spans(source)[20]
    found = kept(overwrite(source, tmp_path / "broken.avi", start, bytes(size)))
    assert 14 <= len(found) <= 20
    assert list(found) == list(range(len(found)))
    assert all(index == number for index, number in found.items())


def test_an_avi_with_lost_chunks_is_refused(tmp_path: Path) -> None:
    """Its times are counted chunks: where some are gone, nobody knows which time the others have."""
    source = write_clip(tmp_path / "x.avi", 60)
    broken = damage(source, tmp_path / "broken.avi", [(0.6, 0.7), (0.9, 1.0)])  # pictures, and the index
    with pytest.raises(DecodeError) as caught:
        kept(broken)
    assert caught.value.reason == "damaged"


def copy_packets(source: Path, path: Path, change: Callable[[int, Any], bool]) -> Path:
    """The packets that `change` returns True for, as it leaves them."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.dts is not None]
        for place, packet in enumerate(packets):
            if change(place, packet):
                packet.stream = copy
                new.mux(packet)
    return path


def test_what_comes_before_the_first_key_frame_is_left_out(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mp4", 40, gop=12)
    path = copy_packets(source, tmp_path / "no key.mkv", lambda place, packet: place > 0)
    assert probe(path).status == "does not begin at a keyframe"
    found = kept(path)  # its times begin at frame 1
    assert {time + 1: number for time, number in found.items()} == {number: number for number in range(12, 40)}


@pytest.mark.parametrize("gone", [24, 27])
def test_a_packet_that_is_not_there_takes_its_group_along(tmp_path: Path, gone: int) -> None:
    """As in recordings with losses. It is no error to FFmpeg, and decord gives the pictures of other times instead."""
    source = write_clip(tmp_path / "source.mp4", 48, gop=12, bframes=0)
    path = copy_packets(source, tmp_path / "gap.mkv", lambda place, packet: place != gone)
    found = kept(path)
    assert set(found) == set(range(gone)) | set(range(36, 48))
    assert all(number == time for time, number in found.items())


def test_frames_that_share_a_timestamp_come_one_after_the_other(tmp_path: Path) -> None:
    def pair(place: int, packet: Any) -> bool:
        packet.pts = packet.dts = place // 2 * 200  # Matroska counts milliseconds
        return True

    source = encode(tmp_path / "source.mkv", "ffv1", [picture(i) for i in range(20)])
    path = copy_packets(source, tmp_path / "pairs.mkv", pair)
    scan = scan_packets(path)
    assert scan.doubts == ("repeated timestamps",)
    for wanted in (np.arange(20), np.array([3]), np.array([4, 5, 19])):
        parts = list(decode_frames(path, scan, wanted, (96, 64)))
        assert [number_of(frame) for part in parts for frame in part.frames] == wanted.tolist()


def test_frames_lost_in_long_groups_cost_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is known to be lost is not looked for from the file's start again and again."""
    from pipeline.decode import by_pyav

    source = write_clip(tmp_path / "source.mp4", 120, gop=20, bframes=0)
    start, size, _ = packet_spans(source)[61]
    broken = overwrite(source, tmp_path / "broken.mp4", start, bytes(size))
    packets = 0
    judge = by_pyav._Reader._judge

    def counting(self: by_pyav._Reader, packet: object, complaint: str) -> None:
        nonlocal packets
        packets += 1
        judge(self, packet, complaint)

    monkeypatch.setattr(by_pyav._Reader, "_judge", counting)
    assert set(range(120)) - set(kept(broken)) == set(range(61, 80))
    assert packets < 250
