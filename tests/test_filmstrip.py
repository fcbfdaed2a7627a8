"""The picture of a sample's views."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.data import app
from pipeline import runner
from pipeline.errors import UserError
from pipeline.film import Film, Strip, film_of, find_sample
from pipeline.filmstrip import draw
from pipeline.store import Store
from pipeline.variants import BuildVariants
from tests.curation_world import FRAMES, a_sample, add_samples, add_scores, add_videos

PEAK = np.exp(-((np.arange(FRAMES) / 2 - 3.75) ** 2))
GREEN = (0x2E, 0x9E, 0x5B)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "s", create=True)
    add_videos(store, ["v1"])
    add_samples(store, [a_sample(key, "v1", "grounded_choice") for key in ("aa1", "aa2", "b")])
    add_scores(store, dict.fromkeys(("aa1", "aa2", "b"), PEAK))
    runner.run(BuildVariants(), store)
    return store


def green(path: Path) -> int:
    """Pixels in the colour of the truth."""
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) == GREEN).all(axis=2).sum())


def a_film(count: int = 40, budget: int = 8, scores: Any = None, shape: tuple[int, int] = (48, 64), **row: Any) -> Film:
    times = np.arange(count) / 2
    views = BuildVariants(m=3, frames=budget).views("s", "choice", np.zeros(count) if scores is None else scores, times)
    frames = np.full((min(count, budget), *shape, 3), 90, np.uint8)
    return Film(a_sample("s", "v", **row), times, scores, "scorer", [Strip(view, frames) for view in views])


def test_a_sample_is_found_by_its_beginning(store: Store, tmp_path: Path) -> None:
    assert find_sample(store, None) == "aa1"
    assert find_sample(store, "b") == "b"
    assert find_sample(store, "aa2") == "aa2"
    with pytest.raises(UserError, match="2 begin so: aa1, aa2"):
        find_sample(store, "aa")
    with pytest.raises(UserError, match="none of 3"):
        find_sample(store, "c")
    with pytest.raises(UserError, match="build-variants"):
        find_sample(Store(tmp_path / "empty", create=True), None)


def test_a_film_holds_what_the_policy_sees(store: Store) -> None:
    film = film_of(store, "b")
    assert film.scores is not None
    assert film.scores == pytest.approx(PEAK, abs=1e-6)
    assert [strip.row["variant"] for strip in film.strips] == [0, 1, 2, 3]
    assert all(strip.frames.shape == (8, 64, 64, 3) for strip in film.strips)


def test_views_of_other_frames_are_refused(store: Store) -> None:
    """A picture with the wrong frames would be believed."""
    store.delete("frames", "video_id = 'v1'")
    add_videos(store, ["v1"], frames=4)
    with pytest.raises(UserError, match="other frames"):
        film_of(store, "b")


def test_the_command_writes_a_picture(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.png"
    app(["show", "b", "--store", str(store.path), "--out", str(out), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"sample_id": "b", "views": 4, "picture": str(out)}
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1560
        assert picture.height > 1200
    assert green(out) > 1000
    for wrong in ("b.jpg", "missing/b.png"):
        with pytest.raises(UserError, match="--out"):
            app(["show", "--store", str(store.path), "--out", str(tmp_path / wrong)], standalone_mode=False)


def test_green_is_for_what_lies_in_the_span(tmp_path: Path) -> None:
    film = a_film(scores=np.linspace(0, 1, 40), task="grounding", spans=[[3.0, 9.0]])
    draw(film, tmp_path / "in.png")
    film = a_film(scores=np.linspace(0, 1, 40), task="grounding", spans=[[50.0, 60.0]])
    draw(film, tmp_path / "out.png")
    assert green(tmp_path / "in.png") > 3 * green(tmp_path / "out.png") > 0


@pytest.mark.parametrize(
    "film",
    [
        a_film(budget=32, count=3000, scores=np.random.default_rng(0).normal(size=3000)),
        a_film(count=1, scores=np.array([np.nan])),
        a_film(count=3, task="number", question="", answer="3"),
        a_film(scores=np.full(40, 0.2), shape=(90, 30), question="$x_{1$ why? " * 200, options=["w" * 300] * 14),
        a_film(scores=np.r_[np.inf, np.zeros(39)], options=["yes", "no"], answer="B"),
    ],
    ids=["many", "one", "unscored", "long", "infinite"],
)
@pytest.mark.filterwarnings("error")
def test_odd_samples_are_drawn(film: Film, tmp_path: Path) -> None:
    draw(film, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:, -40:] == 255).all()  # nothing runs over the edge
    assert (pixels[-8:] == 255).all()
    assert (pixels < 128).sum() > 500
