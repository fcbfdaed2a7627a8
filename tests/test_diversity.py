"""Budgets are spent on what differs, and soft weights favour what teaches."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.diversity import (
    BEYOND_ALL,
    BEYOND_SOURCE,
    FEWEST,
    MOST,
    binds,
    choose,
    clusters_of,
    video_vectors,
    weights,
)
from pipeline.errors import UserError
from pipeline.search import cluster
from pipeline.store import Store

DIM = 8

steady = settings(deadline=None, max_examples=60)  # the time of one example says nothing on a busy machine


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def directions(names: list[str], dim: int = DIM) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(names))
    return {name: unit(rng.standard_normal(dim)) for name in sorted(set(names))}


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    """A few samples with few sources, videos and values, so that there are ties."""
    size = draw(st.integers(1, 60))

    def column(*values: Any) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))

    videos = column(*[f"v{i}" for i in range(draw(st.integers(1, 40)))])
    return {
        "ids": [f"s{i:02d}" for i in range(size)],
        "sources": column("a", "b", "c"),
        "videos": videos,
        "value": column(0.0, 0.109375, 0.25),
        "vectors": directions(videos),
    }


budgets = st.none() | st.integers(1, 70)


@steady
@given(pools(), budgets, budgets, st.integers(0, 3))
def test_a_choice_has_the_exact_size_and_a_reason_for_each_other(
    pool: dict[str, Any], per_source: int | None, max_samples: int | None, seed: int
) -> None:
    kept, reasons = choose(**pool, per_source=per_source, max_samples=max_samples, seed=seed)
    ids, sources = pool["ids"], dict(zip(pool["ids"], pool["sources"], strict=True))
    assert kept == sorted(kept) and not set(kept) & set(reasons) and set(kept) | set(reasons) == set(ids)
    within = Counter({s: n if per_source is None else min(n, per_source) for s, n in Counter(sources.values()).items()})
    total = within.total()
    assert len(kept) == (total if max_samples is None else min(total, max_samples))
    assert Counter(sources[key] for key in kept) <= within
    why = Counter(reasons.values())
    assert why == Counter({BEYOND_SOURCE: len(ids) - total, BEYOND_ALL: total - len(kept)}) - Counter()
    assert binds(pool["sources"], per_source, max_samples) == bool(reasons)


@steady
@given(pools(), budgets, budgets, st.randoms())
def test_the_order_of_the_samples_changes_nothing(
    pool: dict[str, Any], per_source: int | None, max_samples: int | None, random: Any
) -> None:
    order = list(range(len(pool["ids"])))
    random.shuffle(order)
    shuffled = {name: [pool[name][i] for i in order] for name in ("ids", "sources", "videos", "value")}
    budget = {"per_source": per_source, "max_samples": max_samples, "seed": 1}
    assert choose(**pool, **budget) == choose(**shuffled, vectors=pool["vectors"], **budget)


@steady
@given(pools(), budgets, st.integers(1, 60), st.integers(0, 20))
def test_a_larger_budget_keeps_all_that_a_smaller_one_keeps(
    pool: dict[str, Any], per_source: int | None, less: int, more: int
) -> None:
    small, _ = choose(**pool, per_source=per_source, max_samples=less, seed=0)
    large, _ = choose(**pool, per_source=per_source, max_samples=less + more, seed=0)
    assert set(small) <= set(large)


@steady
@given(pools(), st.integers(1, 60))
def test_no_cluster_and_no_video_has_a_second_turn_before_the_others_had_theirs(
    pool: dict[str, Any], budget: int
) -> None:
    kept, _ = choose(**pool, per_source=None, max_samples=budget, seed=0)
    names = sorted(set(pool["videos"]))
    if len(kept) == len(pool["ids"]):
        return
    labels = cluster(np.stack([pool["vectors"][name] for name in names]), clusters_of(len(names)), 0)
    of_video = dict(zip(names, labels.tolist(), strict=True))
    video = dict(zip(pool["ids"], pool["videos"], strict=True))
    value = dict(zip(pool["ids"], pool["value"], strict=True))

    def fair(keys: dict[str, Any]) -> None:
        here, given_ = Counter(keys.values()), Counter(keys[key] for key in kept if key in keys)
        for group, size in here.items():
            if given_[group] < size:  # it had more to give
                assert given_[group] >= max(given_.values(), default=0) - 1

    fair({key: of_video[name] for key, name in video.items()})
    for label in set(of_video.values()):
        fair({key: name for key, name in video.items() if of_video[name] == label})
    for key in kept:
        mates = [other for other in video if video[other] == video[key] and other not in kept]
        assert all((value[key], other) >= (value[other], key) for other in mates)


@pytest.mark.parametrize(("budget", "least"), [(20, 16), (60, 38), (200, 40)])
def test_planted_groups_are_covered_better_than_by_chance(budget: int, least: int) -> None:
    """Forty kinds of video, of which a few make up most of the pool, as in real mixtures.

    A budget below the number of clusters once went to the largest kinds alone, because they hold the highest values.
    """
    rng = np.random.default_rng(0)
    sizes = np.array([600, 300, 100] + [6] * 37)
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    centres = unit(rng.standard_normal((len(sizes), 64)))
    vectors = unit(centres[kinds] + 0.3 * unit(rng.standard_normal((len(kinds), 64))))
    names = [f"v{i:04d}" for i in range(len(kinds))]
    value = rng.choice([0.109375, 0.1875, 0.25], len(kinds))
    of = dict(zip(names, kinds.tolist(), strict=True))
    by_name = dict(zip(names, vectors, strict=True))
    kept, _ = choose(names, ["a"] * len(names), names, value, by_name, per_source=None, max_samples=budget, seed=0)
    by_chance = [len(set(kinds[rng.choice(len(kinds), budget, replace=False)].tolist())) for _ in range(200)]
    assert len({of[name] for name in kept}) >= least > max(by_chance)


def test_clusters_are_about_twice_the_square_root_of_the_videos() -> None:
    assert [clusters_of(n) for n in (1, 3, 16, 60, 100, 10_000, 1_000_000)] == [1, 3, 16, 16, 20, 200, 256]
    assert (FEWEST, MOST) == (16, 256)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tight_far_groups_become_clusters_of_their_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(8), [400, 200, 100, 10, 5, 5, 3, 2])
    x = unit(np.eye(8, 32)[kinds] + 0.02 * rng.standard_normal((len(kinds), 32)))
    labels = cluster(x, 8, seed)
    assert np.array_equal(labels, cluster(x, 8, seed))
    assert len(set(zip(kinds.tolist(), labels.tolist(), strict=True))) == 8 == len(set(labels.tolist()))


def test_equal_vectors_make_one_cluster() -> None:
    assert len(set(cluster(np.tile(unit(np.arange(1, 9)), (20, 1)), 16).tolist())) == 1


@pytest.mark.parametrize(("vectors", "k"), [(np.eye(3), 0), (np.eye(3), 4), (np.full((3, 3), np.nan), 1)])
def test_clusters_of_nothing_are_refused(vectors: np.ndarray, k: int) -> None:
    with pytest.raises(ValueError, match="expected finite vectors"):
        cluster(vectors, k)


def test_two_hundred_thousand_samples_take_seconds() -> None:
    rng = np.random.default_rng(0)
    count, videos = 200_000, 20_000
    vectors = dict(zip((f"v{i:05d}" for i in range(videos)), unit(rng.standard_normal((videos, 512))), strict=True))
    ids, value = [f"{i:016x}" for i in range(count)], rng.random(count) / 4
    shown = [f"v{i:05d}" for i in rng.integers(0, videos, count)]
    sources = [f"source{i}" for i in rng.integers(0, 5, count)]
    begun = time.process_time()
    kept, _ = choose(ids, sources, shown, value, vectors, per_source=20_000, max_samples=50_000, seed=0)
    assert len(kept) == 50_000
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("per_source", "max_samples", "named"), [(0, None, "--per-source 0"), (3, -1, "--max-samples")]
)
def test_a_budget_below_one_is_refused(per_source: int, max_samples: int | None, named: str) -> None:
    with pytest.raises(UserError, match=named):
        choose(["a"], ["s"], ["v"], [0.1], {}, per_source=per_source, max_samples=max_samples, seed=0)


def test_what_cannot_be_chosen_among_is_refused() -> None:
    vectors = directions(["v", "w"])
    budget: dict[str, Any] = {"per_source": None, "max_samples": 1, "seed": 0}
    for ids, videos, value in (
        (["a", "a"], ["v", "w"], [0.1, 0.1]),
        (["a", "b"], ["v", "w"], [0.1, float("nan")]),
        (["a", "b"], ["v", "x"], [0.1, 0.1]),
    ):
        with pytest.raises(ValueError):
            choose(ids, ["s", "s"], videos, value, vectors, **budget)


def embed(store: Store, videos: dict[str, np.ndarray], scorer: str = "one") -> None:
    rows = [
        {"video_id": name, "scorer": scorer, "dim": x.shape[1], "embeddings": x.astype(np.float16).ravel()}
        | {"fingerprint": name}
        for name, x in videos.items()
    ]
    store.append("frame_embeddings", pa.Table.from_pylist(rows, schema=schemas.FRAME_EMBEDDINGS))


def test_a_video_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    videos = {f"v{i:03d}": unit(np.random.default_rng(i).standard_normal((3 + i % 5, DIM))) for i in range(150)}
    embed(store, videos | {"still": np.array([[1.0] + [0.0] * 7, [-1.0] + [0.0] * 7])})
    found = video_vectors(store, [*videos, *videos, "still"])
    assert set(found) == {*videos, "still"}
    for name, frames in videos.items():
        assert found[name] == pytest.approx(unit(frames.mean(axis=0)), abs=2e-3)
        assert np.linalg.norm(found[name]) == pytest.approx(1.0, abs=1e-5)
    assert not found["still"].any()
    assert video_vectors(store, []) == {}


def test_missing_embeddings_and_several_scorers_are_the_users_to_mend(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    with pytest.raises(UserError, match=r"1 of 1 videos, e.g. v1.*score-frames"):
        video_vectors(store, ["v1"])
    embed(store, {"v1": np.eye(2)})
    with pytest.raises(UserError, match=r"1 of 2 videos, e.g. v2.*score-frames"):
        video_vectors(store, ["v1", "v2"])
    embed(store, {"v1": np.eye(2)[:1]}, "two")
    with pytest.raises(UserError, match=r"--scorer.*one, two"):
        video_vectors(store, ["v1"])
    assert video_vectors(store, ["v1"], "two")["v1"] == pytest.approx([1.0, 0.0])


variances = st.lists(st.floats(0, 0.25), min_size=1, max_size=40)
shares = st.floats(0.01, 1.0)


@steady
@given(variances, shares, st.data())
def test_weights_have_mean_one_in_every_task_and_are_positive(
    v: list[float], share: float, data: st.DataObject
) -> None:
    tasks = data.draw(st.lists(st.sampled_from(["choice", "grounding"]), min_size=len(v), max_size=len(v)))
    w = weights(v, tasks, uniform_share=share)
    assert w.min() > 0 and np.isfinite(w).all()
    for task in set(tasks):
        mine = [i for i, name in enumerate(tasks) if name == task]
        assert w[mine].mean() == pytest.approx(1.0, abs=1e-9)
        assert w[mine].min() >= share or not any(v[i] for i in mine)
        assert w[mine] == pytest.approx(weights([v[i] for i in mine], [task] * len(mine), uniform_share=share))


@steady
@given(variances, shares)
def test_weights_grow_with_the_variance(v: list[float], share: float) -> None:
    w = weights(v, ["choice"] * len(v), uniform_share=share)
    order = np.argsort(v, kind="stable")
    assert (np.diff(w[order]) >= 0).all()
    assert all(a == b for i, a in enumerate(w) for j, b in enumerate(w) if v[i] == v[j])


def test_weights_follow_the_formula() -> None:
    assert weights([0.0, 0.25, 0.125, 0.125], ["choice"] * 4).tolist() == [0.5, 1.5, 1.0, 1.0]
    assert weights([0.25, 0.05, 0.15], ["choice", "grounding", "grounding"]) == pytest.approx([1.0, 0.75, 1.25])
    assert weights([0.0, 0.0], ["choice"] * 2).tolist() == [1.0, 1.0]
    assert weights([5e-324, 0.0], ["choice"] * 2).tolist() == [1.5, 0.5]
    assert weights([], []).tolist() == []


@pytest.mark.parametrize(("v", "share"), [([-0.1], 0.5), ([float("nan")], 0.5), ([0.1], 0.0), ([0.1], 1.1)])
def test_weights_out_of_range_are_refused(v: list[float], share: float) -> None:
    with pytest.raises(ValueError):
        weights(v, ["choice"], uniform_share=share)
