"""A curated dataset put together: one row a kept sample with all its views, its card beside it, under one tag."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.card import render
from pipeline.fingerprint import LENGTH
from pipeline.framereader import FrameReader
from pipeline.store import Store
from pipeline.summary import overlap_facts, view_counts

_VIEW = [f.name for f in schemas.VARIANT_FIELDS]
_STATISTICS = [f.name for f in schemas.STATISTICS]


def curated(store: Store, samples: pa.Table, kept: pl.DataFrame, reader: FrameReader, version: int) -> pa.Table:
    """The rows of CURATED.

    Args:
        samples: rows of the pool, ordered by sample_id. kept: the statistics of those that stay, in the same order.
        version: of the rule by which rows are made; part of their fingerprints.
    """
    ids = pa.array(kept["sample_id"].to_list(), pa.string())
    rows = samples.filter(pc.is_in(samples["sample_id"], value_set=ids))
    views, prints = _views(store, ids)
    videos = rows["video_id"].to_pylist()
    frames = [reader.fingerprint(video) for video in videos]
    determined = kept.select(pl.concat_str(["prints", *_STATISTICS], separator="|", ignore_nulls=True)).to_series()
    parts = zip(rows["fingerprint"].to_pylist(), prints, frames, determined.to_list(), strict=True)
    fingerprints = [_print(version, *part) for part in parts]
    columns = {name: rows[name] for name in rows.column_names if name != "fingerprint"}
    columns |= {"variants": views, "frames_fingerprint": pa.array(frames, pa.string())}
    columns |= {name: kept[name].to_arrow() for name in _STATISTICS}
    columns["fingerprint"] = pa.array(fingerprints, pa.string())
    return pa.table(columns)


def publish(
    store: Store,
    name: str,
    rows: pa.Table,
    pool: pl.DataFrame,
    tag: str,
    facts: Mapping[str, str],
    commands: Sequence[str],
) -> tuple[int, str]:
    """Write rows and verdicts under a tag, then the tag's card, which is also the newest one.

    Returns:
        the version, and where the newest card lies.
    """
    verdicts = pool.select(schemas.VERDICTS.names)
    version = store.write_curated(name, rows, verdicts.to_arrow(), tag, dict(facts))
    small = pl.DataFrame(pl.from_arrow(rows.drop_columns(["variants"])))
    text = render(
        store.facts(name, tag),
        small,
        verdicts,
        overlaps=overlap_facts(store, small.select("sample_id", "video_id")),
        commands=[command for command in commands if command],
        views=view_counts(rows),
    )
    return version, store.write_card(name, tag, text)


def _views(store: Store, ids: pa.Array) -> tuple[pa.Array, list[str]]:
    """The views of each sample, nested, and the fingerprint that they share; in the order of `ids`, which ascend."""
    table = store.table("variants", ["sample_id", *_VIEW, "fingerprint"])
    owner = pc.fill_null(pc.index_in(table["sample_id"], value_set=ids), -1).to_numpy()
    order = np.lexsort((table["variant"].to_numpy(), owner))
    order = order[np.searchsorted(owner[order], 0) :]
    codes = owner[order]
    # Copied once, in order: filtering and sorting by names would copy the nested columns twice.
    table = table.drop_columns(["sample_id"]).take(pa.array(order)).combine_chunks()
    starts = np.searchsorted(codes, np.arange(len(ids) + 1))
    columns = [table[name].combine_chunks() for name in _VIEW]
    nested = pa.StructArray.from_arrays(columns, fields=schemas.VARIANT_FIELDS)
    prints = table["fingerprint"].combine_chunks().take(pa.array(starts[:-1]))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), nested), prints.to_pylist()


def _print(*parts: object) -> str:
    """Like pipeline.fingerprint, for texts alone: ten times as fast."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]
