"""The same on real clips, where there are any: what becomes of each, and that no frame is another."""

import json
from pathlib import Path

import pytest

from benchmarks.clips_table import read_clip, table
from pipeline.decode import DecodeError, scan_packets
from tests.clips import overwrite, packet_spans, write_clip, write_sound
from tests.real_data import real_folder

# What the manifest of the clips says, in the words of this project: (backend, frames that decode).
READ = {
    "cosmos_test_clip_10s.mp4": ("decord", 240),
    "decord_corrupted.mp4": ("pyav", 29),  # of 50: one packet is broken, and all behind it lean on it
    "decord_unordered.mov": ("decord", 4),
    "decord_video_0.mov": ("decord", 3),
    "decord_video_90.mov": ("decord", 3),
    "decord_video_180.mov": ("decord", 3),
    "decord_video_270.mov": ("decord", 3),
    "llamafactory_1.mp4": ("decord", 243),
    "moviepy_-video-with-dash-.mp4": ("pyav", 5),
    "moviepy_bbb_432_433.webm": ("decord", 24),
    "moviepy_fire2.mp4": ("decord", 25),
    "moviepy_no_duration.webm": ("pyav", 74),
    "mp4parse_hdr10.mp4": ("pyav", 3),
    "mp4parse_rgb.mp4": ("pyav", 3),
    "mp4parse_rotation_90.mp4": ("decord", 1),
    "mp4parse_tiny_av1.mp4": ("pyav", 1),
    "torchcodec_av1_video.mkv": ("pyav", 125),
    "torchcodec_h264_10bits.mp4": ("decord", 30),
    "torchcodec_h265_10bits.mp4": ("decord", 30),
    "torchcodec_h265_video.mp4": ("pyav", 10),
    "torchcodec_nasa_13013.mp4": ("decord", 390),
}
REFUSED = {
    "moviepy_result_empty.webm": "empty file",
    "mp4parse_audio_only.mp4": "no video stream",
    "mp4parse_av1_cbcs_encrypted.mp4": "encrypted",
    "mp4parse_chunk_out_of_range.mp4": "unreadable container",
    "mp4parse_init_only.mp4": "encrypted",
    "mp4parse_invalid_userdata.mp4": "no frames",
    "mp4parse_no_timescale.mp4": "frame not decodable",  # green and grey from the first key frame on
    "mp4parse_short-cenc.mp4": "encrypted",
    "mp4parse_zero_empty_stsc.mp4": "frame not decodable",
    "torchcodec_nasa_audio_only.mp3": "no video stream",
}


@pytest.mark.parametrize("name", READ)
def test_real_clips_give_true_frames(name: str) -> None:
    row = read_clip(real_folder("videos") / name, check=True)
    assert (row["backend"], row["decoded"], row["wrong"]) == (*READ[name], 0)


@pytest.mark.parametrize("name", REFUSED)
def test_real_clips_are_refused_by_reason(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_clip(real_folder("videos") / name, check=False)
    assert caught.value.reason == REFUSED[name]


def test_real_times_are_the_stream_s_own() -> None:
    """One clip comes with the times of its frames, as another project found them."""
    folder = real_folder("videos")
    scan = scan_packets(folder / "torchcodec_nasa_13013.mp4")
    known = json.loads((folder / "torchcodec_nasa_13013.stream3.all_frames_info.json").read_text())
    starts = [float(frame["pts_time"]) for frame in known]
    assert scan.times.tolist() == pytest.approx([start - starts[0] for start in starts], abs=1e-5)


def test_the_table_has_a_row_for_every_clip(tmp_path: Path) -> None:
    """Also for those that cannot be read; lists and notes beside the clips are no clips."""
    sound = write_clip(tmp_path / "a clip.mp4")
    start, size, _ = packet_spans(sound)[25]
    overwrite(sound, tmp_path / "damaged.mp4", start, bytes(size))
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "manifest.csv").write_text("file\n")
    rows = table(tmp_path, check=True, workers=1, deadline_s=60)
    assert [row["clip"] for row in rows] == ["a clip.mp4", "damaged.mp4", "sound.mp4"]
    assert [(row["backend"], row["announced"], row["wrong"]) for row in rows] == [
        ("decord", 40, 0),
        ("pyav", 40, 0),
        (None, None, None),
    ]
    assert rows[0]["verdict"] == "ok"
    assert rows[1]["verdict"].startswith("damaged: ")
    assert rows[1]["decoded"] < 40
    assert rows[2]["verdict"] == "quarantined: no video stream"
