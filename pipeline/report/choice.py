"""Which samples of a pool a page shows: the most useful, the hardest, the easiest, and a random share."""

import numpy as np
import polars as pl

SHARES = {"most useful": 0.3, "hardest": 0.2, "easiest": 0.2, "random": 0.3}
"""Share of the samples shown by why they are shown. "random" takes the rest, and what the others could not fill."""

HOW = (
    "most useful: kept, highest variance; hardest and easiest: lowest and highest mean reward among the samples that "
    "were measured; each of these takes the tasks in turn; random: any of the rest of the pool"
)


def choose(verdicts: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Samples to show, each once.

    Args:
        verdicts: sample_id, task, reason, reward_mean and reward_var; one row a sample.
        count: samples at most.
        seed: of the random share, and of the order of equals.

    Returns:
        sample_id and chosen (a key of SHARES), min(count, pool) rows, the kinds in turn: any beginning holds all kinds.
    """
    pool = verdicts.select("sample_id", "task", "reason", "reward_mean", "reward_var").sort("sample_id")
    order = np.random.default_rng(seed).permutation(pool.height)
    pool = pool.with_columns(pl.Series("order", order))
    measured = pool.filter(pl.col("reward_mean").is_not_null())
    ranked = {
        "most useful": in_turn(measured.filter(pl.col("reason") == ""), "reward_var", descending=True),
        "hardest": in_turn(measured, "reward_mean", descending=False),
        "easiest": in_turn(measured, "reward_mean", descending=True),
        "random": pool.sort("order")["sample_id"].to_list(),
    }
    count = min(count, pool.height)
    taken: dict[str, str] = {}
    for kind, ids in ranked.items():
        left = count - len(taken)
        wanted = left if kind == "random" else min(left, round(count * SHARES[kind]))
        fresh = [key for key in ids if key not in taken][:wanted]
        taken.update(dict.fromkeys(fresh, kind))
    chosen = pl.DataFrame(
        {"sample_id": list(taken), "chosen": list(taken.values())}, schema={"sample_id": pl.String, "chosen": pl.String}
    )
    place = pl.int_range(pl.len()).over("chosen")
    rank = pl.col("chosen").replace_strict(list(SHARES), list(range(len(SHARES))), return_dtype=pl.Int64)
    return chosen.with_columns(place.alias("place"), rank.alias("rank")).sort("place", "rank").select(chosen.columns)


def in_turn(frame: pl.DataFrame, by: str, *, descending: bool) -> list[str]:
    """Ids, best first by a column, the tasks in turn: the variance of one task is no measure for that of another."""
    ranked = frame.sort(by, "order", descending=[descending, False])
    ranked = ranked.with_columns(pl.int_range(pl.len()).over("task").alias("place"))
    ids: list[str] = ranked.sort("place", "task")["sample_id"].to_list()
    return ids
