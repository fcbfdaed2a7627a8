"""Drawing: which rollouts a selection still needs, in rounds, and what those of the ledger come to by sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline import runner, verdicts
from pipeline.answerer import Answerer
from pipeline.framereader import FrameReader
from pipeline.groups import wilson_all
from pipeline.ledger import DrawRollouts
from pipeline.probes import Sampling, askable, scope
from pipeline.rewards import RewardRule, is_binary, reward_expr
from pipeline.runner import Progress, Report
from pipeline.store import Store
from pipeline.verdicts import Bools, Draws, Floats, Rule
from pipeline.workers import Engine

_PARTS = ["accuracy", "credit", "iou", "boundary_iou", "format"]


@dataclass(frozen=True)
class Asker:
    """A policy and how it is asked.

    load: device -> policy, picklable. fingerprint: of the policy that it loads. draw: False never asks it. batch:
    samples that are asked together. engine: see runner.run.
    """

    load: Callable[[str], Answerer]
    fingerprint: str
    sampling: Sampling = field(default_factory=Sampling)
    adaptive: bool = True
    draw: bool = True
    batch: int = 8
    workers: int = 0
    device: str = "cpu"
    engine: Engine | None = None
    progress: Progress | None = None
    retry_quarantined: bool = False


@dataclass(frozen=True)
class Stop:
    """When a sample needs no further draw; picklable, for workers.

    planned: K draws at most. limit: of the mean reward without frames, for blind draws; None: the rule decides.
    """

    planned: int
    rule: Rule
    limit: float | None = None

    def __call__(self, task: str, rewards: Sequence[float]) -> bool:
        """Whether the verdict of one sample stands after these rewards."""
        x = np.asarray(rewards, np.float64)
        one = (len(x), x.sum(), ((x - x.mean()) ** 2).sum(), x.min(), x.max())
        draws = Draws(*(np.asarray([value]) for value in one))
        if self.limit is not None:
            return bool(_blind(draws, self.planned, self.limit)[0])
        return bool(_standing(draws, task, self.planned, self.rule)[1][0])

    def settled(self, stats: pl.DataFrame) -> Bools:
        """Which rows of `tally` need no further draw."""
        if self.limit is not None:
            return blind_settled(stats, self.planned, self.limit)
        return chances(stats, self.planned, self.rule)[1]


def fill(
    store: Store,
    asker: Asker,
    probe: str,
    tasks: pl.DataFrame,
    planned: int,
    rule: Rule,
    stop: Stop | None,
    reader: FrameReader | None = None,
) -> tuple[pl.DataFrame, list[Report]]:
    """Draw until every sample has all its draws or its verdict stands.

    Args:
        probe: of probes.PROBES.
        tasks: (sample_id, task) of the samples to ask.
        planned: K draws at most.
        stop: when a sample needs no further draw; None: all draws are wanted.
        reader: of the store's frames. Default: a new one.

    Returns:
        the statistics of `tally`, and the report of the run, if somebody was asked.
    """
    asked = askable(store, reader or FrameReader(store), asker.fingerprint, probe, asker.sampling)
    asked = asked.join(tasks.select("sample_id"), on="sample_id", how="semi", maintain_order="left")
    stats = tally(store, asker.fingerprint, probe, asked, tasks, planned, rule.reward)
    enough = complete(stats, planned) if stop is None else stop.settled(stats)
    lacking = stats.filter(pl.Series(~enough, dtype=pl.Boolean))
    if lacking.is_empty() or not asker.draw:
        return stats, []
    found = valid(store, asker.fingerprint, probe, asked, tasks, planned, rule.reward)
    prior = found.select("reward", asked["sample_id"].gather(found["place"])).group_by("sample_id").agg("reward")
    want: dict[str, Sequence[float]] = dict.fromkeys(lacking["sample_id"].to_list(), ())
    want |= {key: rewards for key, rewards in prior.iter_rows() if key in want}
    stage = DrawRollouts(
        asker.load, asker.fingerprint, probe, asker.sampling, want, planned, stop, rule.reward, asker.batch
    )
    report = runner.run(
        stage,
        store,
        workers=asker.workers,
        device=asker.device,
        engine=asker.engine,
        progress=asker.progress,
        retry_quarantined=asker.retry_quarantined,
    )
    return tally(store, asker.fingerprint, probe, asked, tasks, planned, rule.reward), [report]


def valid(
    store: Store, policy: str, probe: str, asked: pl.DataFrame, tasks: pl.DataFrame, planned: int, reward: RewardRule
) -> pl.DataFrame:
    """The ledger's valid rows among the first `planned` draws: place (row of `asked`), reward and format, in the order
    of place and draw.

    Rows that the rule cannot reward (boundary distances where no duration is known) are not there.
    """
    owner = _owners(asked)
    views = np.bincount(owner)
    places = np.arange(asked.height)
    ranks = places - (np.cumsum(views) - views)[owner]
    ranked = asked.join(tasks, on="sample_id", how="left", maintain_order="left").with_columns(
        place=pl.Series(places), rank=pl.Series(ranks), views=pl.Series(views[owner])
    )
    known = store.scan("rollouts").filter(pl.sql_expr(scope(policy, probe)) & (pl.col("draw") < planned))
    rows = (
        known.select("draw", "fingerprint", *_PARTS)
        .join(ranked.lazy().select("place", "rank", "views", "task", "fingerprint"), on="fingerprint")
        .filter(pl.col("draw") % pl.col("views") == pl.col("rank"))
        .select(
            (pl.col("place") * planned + pl.col("draw")).alias("order"),
            "place",
            "format",
            reward_expr(reward).alias("reward"),
        )
        .filter(pl.col("reward").is_not_null())
        .collect()
    )
    return rows.sort("order").drop("order")


def tally(
    store: Store, policy: str, probe: str, asked: pl.DataFrame, tasks: pl.DataFrame, planned: int, reward: RewardRule
) -> pl.DataFrame:
    """What the ledger's valid draws come to, a row for each sample that can be asked.

    Args:
        asked: see probes.askable, of the samples of `tasks`. tasks: (sample_id, task).

    Returns:
        sample_id, task, prints (the ledger's fingerprints of its views, joined), and of the first `planned` draws: n,
        total, spread (squared distances from the mean, summed), low, high, format_rate, between (share of the variance
        that lies between views; null when one view was seen). Ordered by sample_id.
    """
    rows = valid(store, policy, probe, asked, tasks, planned, reward)
    owner = _owners(asked)
    whole = asked.group_by(pl.Series("owner", owner), maintain_order=True).agg(
        pl.col("sample_id").first(), pl.col("fingerprint").str.join(",").alias("prints")
    )
    whole = whole.join(tasks, on="sample_id", how="left", maintain_order="left").select("sample_id", "task", "prints")
    return whole.with_columns(_summed(rows, owner, whole.height))


def _owners(asked: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Number of the sample of each row of `asked`, int64, from 0."""
    return asked["sample_id"].rle_id().to_numpy().astype(np.int64)


def _summed(rows: pl.DataFrame, owner: npt.NDArray[np.int64], count: int) -> list[pl.Series]:
    """The numbers of `tally` for each of `count` samples.

    Segments are summed one by one, so that a sum is the same to the last bit whatever else the ledger holds.

    Args:
        rows: see `valid`. owner: see `_owners`.
    """
    reward, place = rows["reward"].to_numpy(), rows["place"].to_numpy()
    starts = np.flatnonzero(np.diff(place, prepend=-1))  # of views
    views = place[starts]
    n_view = np.diff(starts, append=len(place))
    total_view = _segments(np.add, reward, starts)
    mean_view = total_view / n_view
    distances = (reward - np.repeat(mean_view, n_view)) ** 2
    sample = owner[views]
    firsts = np.flatnonzero(np.diff(sample, prepend=-1))  # of samples, among views
    seen = np.diff(firsts, append=len(sample))
    n = _segments(np.add, n_view, firsts)
    total = _segments(np.add, total_view, firsts)
    between = _segments(np.add, n_view * (mean_view - np.repeat(total / n, seen)) ** 2, firsts)
    spread = _segments(np.add, _segments(np.add, distances, starts), firsts) + between
    low = _segments(np.minimum, reward, starts[firsts])
    high = _segments(np.maximum, reward, starts[firsts])
    kept_format = _segments(np.add, rows["format"].to_numpy(), starts[firsts])
    alive = (spread > 0) & (low < high)
    share = np.where(alive, np.clip(np.divide(between, spread, where=alive, out=np.zeros(len(n))), 0.0, 1.0), 0.0)
    drawn = sample[firsts]
    parts = {"n": n, "total": total, "spread": spread, "low": low, "high": high}
    out = []
    for name, values in parts.items():
        column = np.zeros(count, np.int64 if name == "n" else np.float64)
        column[drawn] = values
        out.append(pl.Series(name, column))
    for name, values, there in (("format_rate", kept_format / n, seen > 0), ("between", share, seen > 1)):
        column = np.full(count, np.nan)
        column[drawn[there]] = values[there]
        out.append(pl.Series(name, column).fill_nan(None))
    return out


def _segments(function: np.ufunc, values: npt.NDArray[Any], starts: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """A ufunc reduced over each of the segments that begin at `starts`; none is empty."""
    reduced: npt.NDArray[Any] = function.reduceat(values, starts) if len(starts) else values[:0]
    return reduced


def draws_of(stats: pl.DataFrame) -> Draws:
    """The columns of `tally` as the arrays that verdicts are judged by."""
    return Draws(*(stats[name].to_numpy() for name in ("n", "total", "spread", "low", "high")))


def chances(stats: pl.DataFrame, planned: int, rule: Rule) -> tuple[Floats, Bools]:
    """For each row of `tally`: the probability that it is kept by its draws, and whether its verdict stands."""
    kept, stands = np.zeros(stats.height), np.zeros(stats.height, dtype=bool)
    for task, rows, draws in by_task(stats):
        kept[rows], stands[rows] = _standing(draws, task, planned, rule)
    return kept, stands


def _standing(draws: Draws, task: str, planned: int, rule: Rule) -> tuple[Floats, Bools]:
    """`chances` of samples of one task."""
    binary = is_binary(task, rule.reward)
    threshold = rule.threshold(task)
    chance = verdicts.chance_kept(draws, planned, threshold, rule, binary)
    # With nothing to pass, all draws are wanted for their own sake.
    bounded = threshold or rule.min_acc is not None or rule.max_acc is not None
    early = verdicts.certain(chance, planned, binary, rule.stop_error) & (draws.n > 0) & bool(bounded)
    return chance, early | (draws.n >= planned)


def reasons(stats: pl.DataFrame, planned: int, rule: Rule) -> list[str]:
    """For each row of `tally` why it is left out by its draws; "" when it is kept, "undecided" when draws lack."""
    chance, stands = chances(stats, planned, rule)
    out = np.full(stats.height, verdicts.KEPT, dtype=object)
    for task, rows, draws in by_task(stats):
        out[rows] = verdicts.judge(draws, rule.threshold(task), rule)
    early = stats["n"].to_numpy() < planned
    out[early & stands & (chance >= 0.5)] = verdicts.KEPT
    out[early & stands & (chance < 0.5) & (out == verdicts.KEPT)] = verdicts.BELOW
    out[early & ~stands] = verdicts.UNDECIDED
    return [str(reason) for reason in out]


def complete(stats: pl.DataFrame, planned: int) -> Bools:
    """Which samples have all their draws."""
    whole: Bools = stats["n"].to_numpy() >= planned
    return whole


def statistics(stats: pl.DataFrame) -> pl.DataFrame:
    """What `tally` counted, in the columns of schemas.STATISTICS; mean and interval are null without draws."""
    draws = draws_of(stats)
    low, high = wilson_all(np.minimum(draws.total, draws.n), draws.n)
    there = pl.Series("there", draws.n > 0)
    columns = {"reward_mean": draws.mean, "reward_low": low, "reward_high": high, "reward_var": draws.variance}
    out = stats.with_columns(pl.col("n").cast(pl.Int32).alias("draws"), pl.col("between").alias("between_share"))
    out = out.with_columns(pl.Series(name, values) for name, values in columns.items())
    out = out.with_columns(pl.when(there).then(pl.col(name)).alias(name) for name in columns)
    return out.drop("task", "n", "total", "spread", "low", "high", "between")


def blind_settled(stats: pl.DataFrame, planned: int, limit: float) -> Bools:
    """Which samples' mean reward without frames is surely above the limit, or surely not."""
    return _blind(draws_of(stats), planned, limit)


def _blind(draws: Draws, planned: int, limit: float) -> Bools:
    whole = np.maximum(draws.n, planned)
    over = draws.total / whole > limit + verdicts.EPSILON
    under = (draws.total + np.maximum(planned - draws.n, 0)) / whole <= limit + verdicts.EPSILON
    settled: Bools = over | under
    return settled


def by_task(stats: pl.DataFrame) -> Sequence[tuple[str, Bools, Draws]]:
    """Each task with the rows of `tally` that have it, and their draws."""
    names = stats["task"].to_numpy()
    masks = [(task, names == task) for task in sorted(set(stats["task"].to_list()))]
    return [(task, rows, draws_of(stats.filter(pl.Series(rows, dtype=pl.Boolean)))) for task, rows in masks]
