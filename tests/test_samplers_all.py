"""What holds for every sampler, and what each published method is."""

import inspect
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.variants import build_variants
from pipeline.errors import UserError
from pipeline.samplers import (
    DEFAULT,
    PARAMETERS,
    SAMPLERS,
    inverse_transform,
    is_flat,
    pad,
    parameters_of,
    recursive_split,
    top_k,
    uniform,
)
from pipeline.samplers.bolt import distinct

NAMES = sorted(SAMPLERS)
BY_SCORE = [name for name in NAMES if SAMPLERS[name].by_score]
finite = st.floats(-1, 1, width=32)
odd = st.sampled_from([float("nan"), float("inf"), -float("inf")])


def one_peak(count: int, at: int) -> np.ndarray:
    scores = np.zeros(count)
    scores[at] = 1.0
    return scores


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores and times of 1 to 60 frames: any scores, constant ones, some not finite, all mass on one frame."""
    count = draw(st.integers(1, 60))
    kind = draw(st.sampled_from(["any", "constant", "odd", "peak"]))
    if kind == "constant":
        scores = np.full(count, draw(finite))
    elif kind == "peak":
        scores = one_peak(count, draw(st.integers(0, count - 1)))
    else:
        element = finite if kind == "any" else st.one_of(finite, odd)
        scores = np.asarray(draw(st.lists(element, min_size=count, max_size=count)))
    gaps = draw(st.lists(st.floats(0, 5), min_size=count, max_size=count))
    return scores.astype(np.float32), np.cumsum(gaps)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), scored(), st.integers(1, 20), st.integers(0, 2**63 - 1), st.booleans())
def test_every_draw_keeps_the_rules(
    name: str, case: tuple[np.ndarray, np.ndarray], budget: int, seed: int, itself: bool
) -> None:
    scores, times = case
    sampler, parameters = SAMPLERS[name], parameters_of(name, budget)
    draw = sampler.draw(scores, times, budget, seed, parameters, itself)
    assert draw.indices == sorted(set(draw.indices))
    assert len(draw.indices) == min(len(times), budget)
    assert draw.indices[0] >= 0 and draw.indices[-1] < len(times)
    assert all(type(index) is int for index in draw.indices)
    assert draw.flat == is_flat(scores)
    assert draw == sampler.draw(scores.copy(), times.copy(), budget, seed, parameters, itself)
    if itself and not sampler.by_chance:
        assert draw == sampler.draw(scores, times, budget, seed + 1, parameters, itself)


@given(st.sampled_from(BY_SCORE), st.integers(2, 60), st.integers(1, 20), st.integers(0, 99), st.data())
def test_scores_that_tell_nothing_leave_one_frame_a_part(
    name: str, count: int, budget: int, seed: int, data: st.DataObject
) -> None:
    """A published program divides zero by zero here."""
    scores = np.full(count, data.draw(finite))
    if data.draw(st.booleans()):
        scores[data.draw(st.integers(0, count - 1))] = data.draw(odd)
    draw = SAMPLERS[name].draw(scores, np.arange(count), budget, seed, parameters_of(name, budget), itself=False)
    assert draw.flat
    if count > budget and name != "importance":  # its parts are of time, see test_samplers
        assert [np.searchsorted(np.arange(1, budget + 1) * count // budget, i, "right") for i in draw.indices] == list(
            range(budget)
        )


@given(st.sampled_from(BY_SCORE), st.integers(2, 60), st.integers(1, 20), st.data())
def test_all_mass_on_one_frame_is_found(name: str, count: int, budget: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, count - 1))
    parameters = parameters_of(name, budget) | ({"mix": 1.0} if name == "importance" else {})
    draw = SAMPLERS[name].draw(one_peak(count, at), np.arange(count), budget, 1, parameters, itself=True)
    assert at in draw.indices or (name == "importance" and len(draw.indices) == parameters["bins"])


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_frames(name: str) -> None:
    rng = np.random.default_rng(0)
    scores, times = rng.normal(size=100_000).astype(np.float32), np.arange(100_000) / 2
    begun = time.perf_counter()
    for budget in (1, 32, 1000):
        draw = SAMPLERS[name].draw(scores, times, budget, 0, parameters_of(name, budget), itself=False)
        assert len(set(draw.indices)) == budget
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("name", NAMES)
def test_seeds_give_neighbours(name: str) -> None:
    rng = np.random.default_rng(1)
    scores, times = np.convolve(rng.normal(size=210), np.ones(11), "valid"), np.arange(200.0)
    drawn = [
        SAMPLERS[name].draw(scores, times, 8, seed, parameters_of(name, 8), itself=False).indices for seed in range(20)
    ]
    assert len({tuple(indices) for indices in drawn}) > 15


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("scores", "budget"), [([], 1), ([0.0, 1.0], 0)])
def test_nothing_to_choose_raises(name: str, scores: list[float], budget: int) -> None:
    with pytest.raises(ValueError, match="cannot choose"):
        SAMPLERS[name].function(scores, scores, budget, 0, **parameters_of(name, 8))


@pytest.mark.parametrize("name", BY_SCORE)
def test_each_frame_has_one_score(name: str) -> None:
    with pytest.raises(ValueError, match="2 scores for 3 frames"):
        SAMPLERS[name].function([0.0, 1.0], [0.0, 1.0, 2.0], 2, 0, **parameters_of(name, 2))


def test_parameters_are_those_of_the_sampler() -> None:
    assert parameters_of("importance", 9) == {"mix": 0.8, "temperature": 0.1, "bins": 4}
    assert parameters_of("bolt", 8, power=2.0, mix=0.5) == {"power": 2.0}
    assert parameters_of("uniform", 8) == {}


def test_the_command_has_the_same_defaults() -> None:
    shown = inspect.signature(build_variants).parameters
    assert {name: shown[name].default for name in PARAMETERS} == PARAMETERS
    assert shown["sampler"].default == DEFAULT


@pytest.mark.parametrize(
    "bad", [{"name": "best"}, {"power": 0.0}, {"threshold": -0.1}, {"depth": -1}, {"bins": 9}, {"power": float("nan")}]
)
def test_bad_parameters_are_user_errors(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match="--"):
        parameters_of(**{"name": "aks", "budget": 8, **bad})  # type: ignore[arg-type]


# BOLT


def test_inverse_transform_is_the_formula_where_nothing_repeats() -> None:
    scores = np.random.default_rng(2).uniform(0.1, 0.4, 400)
    z = ((scores - scores.min()) / (scores.max() - scores.min())) ** 3
    cumulated = np.cumsum(z / z.sum())
    plain = [int(np.argmax(cumulated >= u)) for u in np.linspace(1 / 8, 1 - 1 / 8, 8)]
    assert len(set(plain)) == 8
    assert inverse_transform(scores, np.arange(400), 8, None, 3.0).indices == plain


def test_inverse_transform_never_repeats_a_frame() -> None:
    """The published program returns one frame many times when it holds most of the relevance."""
    assert inverse_transform(one_peak(20, 10), np.arange(20.0), 5, None, 3.0).indices == [8, 9, 10, 11, 12]
    assert inverse_transform(one_peak(20, 0), np.arange(20.0), 4, None, 3.0).indices == [0, 1, 2, 3]
    assert inverse_transform(one_peak(20, 19), np.arange(20.0), 1, None, 3.0).indices == [19]


@given(st.lists(st.integers(0, 29), max_size=30), st.lists(st.floats(0, 9), min_size=30, max_size=30))
def test_repeats_move_to_the_nearest_free_frame(wanted: list[int], gaps: list[float]) -> None:
    times = np.cumsum(gaps)
    taken: list[int] = []
    for index in wanted:  # the plain way: look at all frames each time
        free = [i for i in range(30) if i not in taken]
        nearest = [
            max((i for i in free if i <= index), default=None),
            min((i for i in free if i >= index), default=None),
        ]
        best = min((i for i in nearest if i is not None), key=lambda i: (abs(times[i] - times[index]), i))
        taken.append(index if index in free else best)
    assert distinct(wanted, times) == sorted(taken)


# AKS


def test_a_high_threshold_splits_all_the_way() -> None:
    scores = np.random.default_rng(3).normal(size=64)
    best_of_each = [8 * k + int(scores[8 * k : 8 * k + 8].argmax()) for k in range(8)]
    assert recursive_split(scores, np.arange(64), 8, None, 1.0, 5).indices == best_of_each


def test_no_depth_and_no_threshold_are_top_k() -> None:
    scores = np.random.default_rng(4).normal(size=50)
    best = top_k(scores, np.arange(50), 7, None)
    assert best.indices == sorted(np.argsort(-scores)[:7].tolist())
    assert recursive_split(scores, np.arange(50), 7, None, 0.8, 0) == best
    assert recursive_split(scores, np.arange(50), 7, None, 0.0, 5) == best


def test_a_segment_whose_best_stand_out_stays_whole() -> None:
    scores = np.r_[np.zeros(60), np.ones(4)] + np.arange(64) * 1e-6
    assert recursive_split(scores, np.arange(64), 4, None, 0.8, 5).indices == [60, 61, 62, 63]
    assert recursive_split(scores, np.arange(64), 4, None, 0.99, 5).indices == [15, 31, 47, 63]


@given(st.integers(1, 12), st.integers(13, 80), st.integers(0, 7))
def test_no_frame_is_lost_to_rounding(budget: int, count: int, depth: int) -> None:
    """The published program takes int(n / 2^depth) frames of each leaf: none of 8 at depth 5."""
    scores = np.random.default_rng(count).normal(size=count)
    assert len(recursive_split(scores, np.arange(count), budget, None, 0.8, depth).indices) == budget


# Fixed length


@given(st.integers(1, 20), st.integers(0, 20))
def test_padding_repeats_the_last_frame_and_says_so(count: int, more: int) -> None:
    indices, real = pad(uniform(count, count), count + more)
    assert indices == [*range(count), *[count - 1] * more]
    assert real == [True] * count + [False] * more


@pytest.mark.parametrize(("indices", "budget"), [([], 3), ([0, 1], 1)])
def test_what_cannot_be_padded_raises(indices: list[int], budget: int) -> None:
    with pytest.raises(ValueError, match="pad"):
        pad(indices, budget)
