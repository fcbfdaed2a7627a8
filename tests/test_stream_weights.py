"""The stream draws by weight: each sample as often as its weight says, and with equal weights as without any."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import Store
from tests.curation_world import write_tag
from tests.toy_store import a_store
from trainer.feed import Feed
from trainer.stream import Stream, order, weighted_order

seeds, epochs = st.integers(0, 2**40), st.integers(0, 50)
weights = st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=60).filter(any)


@given(seeds, epochs, st.integers(1, 60), st.floats(1e-300, 1e300))
def test_equal_weights_give_the_order_without_weights(seed: int, epoch: int, n: int, weight: float) -> None:
    assert np.array_equal(weighted_order(seed, epoch, [weight] * n), order(seed, epoch, n))


@given(seeds, epochs, weights)
def test_a_sample_appears_as_often_as_its_weight_says_rounded(seed: int, epoch: int, given_: list[float]) -> None:
    drawn = Counter(weighted_order(seed, epoch, given_).tolist())
    n = len(given_)
    assert drawn.total() == n
    assert set(drawn) <= set(range(n))
    for i, weight in enumerate(given_):
        expected = n * (weight / max(given_)) / sum(w / max(given_) for w in given_)
        assert np.floor(expected - 1e-9) <= drawn[i] <= np.ceil(expected + 1e-9)
        assert weight > 0 or not drawn[i]


@given(seeds, epochs, weights)
def test_the_order_follows_from_seed_epoch_and_weights_alone(seed: int, epoch: int, given_: list[float]) -> None:
    first = weighted_order(seed, epoch, given_)
    assert np.array_equal(first, weighted_order(seed, epoch, np.array(given_)))
    assert np.array_equal(first, weighted_order(seed, epoch, np.array(given_) * 2.0)), "only proportions count"


def test_over_many_epochs_samples_are_drawn_in_proportion() -> None:
    """Where one epoch must round, the mean of many does not."""
    given_ = np.array([0.5, 0.7, 1.0, 1.3, 1.5])
    drawn = np.concatenate([weighted_order(3, epoch, given_) for epoch in range(4000)])
    shares = np.bincount(drawn, minlength=5) / 4000
    assert np.allclose(shares, given_, atol=0.04)  # five standard errors of a rounded count


def test_neighbours_of_the_sum_are_torn_apart() -> None:
    """Steps along the sum put equal samples side by side; the epoch's permutation must not."""
    drawn = weighted_order(0, 0, [10.0] * 10 + [1.0] * 90)
    together = np.mean(drawn[1:] == drawn[:-1])
    assert together < 0.2


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_impossible_weights_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        weighted_order(0, 0, bad)


def one_heavy(folder: Path) -> Store:
    """A store with the dataset toy, and as weighted the same with weights of 0.5, only the last 3.5."""
    store = a_store(folder, clips=2)
    rows = store.curated("toy")
    given_ = [0.5] * (rows.num_rows - 1) + [0.5 * rows.num_rows + 0.5]
    place = rows.column_names.index("weight")
    write_tag(store, "weighted", rows.set_column(place, "weight", pa.array(given_)))
    return store


def test_a_feed_takes_the_weighted_samples_in_the_streams_order(tmp_path: Path) -> None:
    """However many it takes at a time, from whatever place: what a run trains on is the dataset by its weights."""
    store = one_heavy(tmp_path / "store")

    def stream(groups: int) -> Stream:
        return Stream(store, "weighted", None, count=1, view="anchor", groups=groups, seed=1)

    rows, by_three = stream(3).rows, stream(3)
    weights_ = [row["weight"] for row in rows]
    meant = [rows[i]["sample_id"] for epoch in range(3) for i in weighted_order(1, epoch, weights_)]
    assert len(set(meant[:6])) < 6, "no sample came twice in an epoch: the weights show nothing"
    assert [g.sample["sample_id"] for step in range(6) for g in by_three.batch(step)] == meant
    with Feed(stream(1), 4, ahead=2) as feed:
        taken = [group.sample["sample_id"] for count in (1, 5, 0, 3) for group in feed.take(count)]
    assert taken == meant[4:13]
    assert feed.position == 13


def test_the_stream_uses_the_weights_of_its_dataset(tmp_path: Path) -> None:
    store = one_heavy(tmp_path / "store")
    rows = store.curated("toy")

    def ids(name: str) -> list[str]:
        stream = Stream(store, name, None, count=1, view="anchor", groups=3, seed=1)
        assert len(stream) == rows.num_rows == 6
        return [group.sample["sample_id"] for step in range(8) for group in stream.batch(step)]

    plain, weighted = Counter(ids("toy")), Counter(ids("weighted"))
    assert set(plain.values()) == {4}
    heavy = rows["sample_id"].to_pylist()[-1]
    assert 4 * 3 <= weighted[heavy] <= 4 * 4, "6 * 3.5 / 6 times in each of four epochs"
