"""Finding the file of a row's video: by path, under another ending, by its name alone; never outside the folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import Rejected
from pipeline.videofolder import VideoFolder, resolve_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "-x.mp4", "deep/b.webm", "deep/er/c.mkv", "one/d.mp4", "two/d.avi", "e.txt", "f.v1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.mp4", "a.mp4"),
        ("./deep/../a.mp4", "a.mp4"),
        ("a", "a.mp4"),
        ("a.webm", "a.mp4"),
        ("-x", "-x.mp4"),
        ("deep/b", "deep/b.webm"),
        ("deep/b.mp4", "deep/b.webm"),
        ("b", "deep/b.webm"),
        ("c", "deep/er/c.mkv"),
        ("somewhere/else/c.mp4", "deep/er/c.mkv"),
        ("/disk/of/the/author/c.mp4", "deep/er/c.mkv"),
        ("one/d.mp4", "one/d.mp4"),
        ("f.v1", "f.v1.mp4"),
    ],
)
def test_names_are_found(folder: Path, name: str, found: str) -> None:
    assert VideoFolder(folder, search=True).find(name) == folder / found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing.mp4", "missing file"),
        ("e", "missing file"),
        ("d", "several files of that name"),
        ("../a.mp4", "path leaves the videos folder"),
        ("deep/../../a.mp4", "path leaves the videos folder"),
        ("/etc/passwd", "path leaves the videos folder"),
        (".", "path leaves the videos folder"),
        ("x" * 300, "missing file"),
        ("a\0b", "unreadable path"),
        ("\0/b", "unreadable path"),
    ],
)
def test_what_is_not_found_has_its_reason(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        VideoFolder(folder, search=True).find(name)
    assert caught.value.reason == reason


def test_without_a_search_only_the_path_counts(folder: Path) -> None:
    plain = VideoFolder(folder, search=False)
    assert plain.find("a") == folder / "a.mp4"
    with pytest.raises(Rejected, match="does not exist"):
        plain.find("b")


@given(st.text(max_size=30))
def test_any_name_stays_below_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        found = VideoFolder(folder, search=True).find(name)
    except Rejected:
        return
    assert folder in found.parents


def test_links_and_dashes_stay_below_the_folder(tmp_path: Path) -> None:
    assert resolve_path(tmp_path, "-x.mp4") == tmp_path / "-x.mp4"
    assert resolve_path(tmp_path, str(tmp_path / "c.mp4")) == tmp_path / "c.mp4"
    for wrong in ("../x.mp4", "a/../../x.mp4", "/etc/passwd", "."):
        with pytest.raises(Rejected):
            resolve_path(tmp_path, wrong)
