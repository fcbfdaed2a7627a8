"""What the tables say about each other: rows that stand twice, that refer to nothing, or that do not fit."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.compute as pc

from pipeline.fingerprint import fingerprint
from pipeline.ingest import SAMPLES_VERSION
from pipeline.schemas import KEYS, SAMPLES, TABLES, WAITING
from pipeline.verify.findings import OWNER, Finding, some
from pipeline.verify.tables import Tables, row_key
from pipeline.videos import PROBE_VERSION
from pipeline.views import ANCHOR

TWICE, FOREIGN, ORPHANS, PARTIAL, UNFIT = "rows twice", "changed rows", "orphans", "not whole", "do not fit"
LOST = "missing rows"

Addresses = npt.NDArray[np.uint64]


def twice(tables: Tables) -> list[Finding]:
    """Rows that stand more than once: equal ones but the first, and all of an item whose rows contradict each other."""
    found = []
    for name in TABLES:
        key = row_key(name)
        rows = tables.frame(name, key)
        copies = rows.filter(rows.select(key).is_duplicated())
        if not copies.height:
            continue
        drop, items = _surplus(tables, name, copies)
        about = "equal rows are kept once; of rows that contradict each other none is kept"
        found.append(Finding(name, TWICE, len(drop), some(items), about, OWNER.get(name, ""), drop=drop))
    return found


def _surplus(tables: Tables, name: str, copies: pl.DataFrame) -> tuple[Addresses, list[Any]]:
    """Addresses of the rows to drop, and the keys that they have."""
    columns = [column for column in TABLES[name].names if column != "pixels"]  # a frame's checksum stands for them
    whole = tables.frame(name, columns).filter(pl.col("_rowaddr").is_in(copies["_rowaddr"].implode()))
    text = [json.dumps(row, sort_keys=True, default=str) for row in whole.drop("_rowaddr").to_dicts()]
    key = row_key(name)
    told = whole.select(*key, "_rowaddr").with_columns(pl.Series("text", text))
    kinds = told.group_by(key).agg(pl.col("text").n_unique().alias("kinds"))
    told = told.join(kinds, on=key, how="left").sort("_rowaddr")
    again = told.filter(pl.col("kinds") == 1).filter(~pl.struct(key).is_first_distinct())
    split = told.filter(pl.col("kinds") > 1).select(KEYS[name]).unique()
    all_of = tables.frame(name, KEYS[name]).join(split, on=KEYS[name], how="semi")
    drop = np.union1d(again["_rowaddr"].to_numpy(), all_of["_rowaddr"].to_numpy())
    return drop, list(copies.select(KEYS[name]).unique(maintain_order=True).iter_rows())


def contents(tables: Tables) -> list[Finding]:
    """Samples and videos whose fingerprint is not that of their own columns."""
    found = []
    for name, columns, made in (
        ("samples", SAMPLES.names[:-1], lambda row: fingerprint("sample", SAMPLES_VERSION, row)),
        ("videos", ["video_id", "path"], lambda row: fingerprint("probe", PROBE_VERSION, *row.values())),
    ):
        wrong: list[int] = []
        keys: list[str] = []
        check: Callable[[dict[str, Any]], str] = made
        for batch in tables.frame(name, [*columns, "fingerprint"]).iter_slices(4096):
            for row in batch.to_dicts():
                print_, address = row.pop("fingerprint"), row.pop("_rowaddr")
                if check(row) != print_:
                    wrong.append(address)
                    keys.append(str(row[columns[0]]))
        if wrong:
            about = "their fingerprint is not that of what they hold"
            drop = np.array(wrong, np.uint64)
            found.append(Finding(name, FOREIGN, len(wrong), some(keys), about, "ingest", drop=drop))
    return found


def partial(tables: Tables) -> list[Finding]:
    """Videos and samples of which some frames or views are missing, or that were made in two ways."""
    found = []
    for name, number, alike, unit in (
        ("frames", "index", ["height", "width", "codec", "fingerprint"], "videos"),
        ("variants", "variant", ["video_id", "fingerprint"], "samples"),
    ):
        key = KEYS[name][0]
        rows = tables.frame(name, [key, number, *alike])
        runs = rows.with_columns(run=rows[key].rle_id()).group_by("run", maintain_order=True)
        about = runs.agg(
            pl.col(key).first(),
            (pl.col(number) == pl.int_range(pl.len())).all().alias("counted"),
            *(pl.col(column).n_unique().alias(column) for column in alike),
        )
        about = about.with_columns(pieces=pl.len().over(key))
        bad = about.filter(~pl.col("counted") | (pl.col("pieces") > 1) | pl.any_horizontal(pl.col(alike) > 1))
        keys = sorted(set(bad[key].to_list()))
        if keys:
            drop = rows.filter(pl.col(key).is_in(keys))["_rowaddr"].to_numpy()
            message = "rows of them are missing, or were made in several ways; what is left of them goes too"
            found.append(Finding(name, PARTIAL, len(keys), some(keys), message, OWNER[name], unit=unit, drop=drop))
    return found


def orphans(tables: Tables) -> list[Finding]:
    """Rows whose sample or video is in no table, where that table has lost nothing."""
    found = []
    for name, column, parent in (
        ("samples", "video_id", "videos"),
        ("frames", "video_id", "videos"),
        ("frame_embeddings", "video_id", "videos"),
        ("frame_scores", "sample_id", "samples"),
        ("variants", "sample_id", "samples"),
        ("rollouts", "sample_id", "samples"),
    ):
        if not tables.whole(parent):
            continue
        rows = tables.frame(name, [column])
        lone = rows.join(tables.frame(parent, [column]).drop("_rowaddr").unique(), on=column, how="anti")
        if name == "samples":
            lone = lone.filter(~pl.col(column).str.starts_with(WAITING))
        if not lone.height:
            continue
        keys = sorted(set(lone[column].to_list()))
        finding = Finding(name, ORPHANS, lone.height, some(keys), f"{column} is not in {parent}", OWNER[name])
        if name == "samples":
            finding.message += ": their videos are to be looked into again"
        elif name == "rollouts":
            finding.wrong, finding.redo = False, ""
            finding.message += ": nobody reads them, and they count again once the samples are back"
        else:
            finding.drop = lone["_rowaddr"].to_numpy()
        found.append(finding)
    return found


def unfit(tables: Tables, needed: set[str]) -> list[Finding]:
    """Embeddings, scores and views that are not those of the cached frames; and frames that are needed but not there.

    Args:
        needed: videos whose frames something else needs.
    """
    frames = _Frames(tables)
    known = tables.frame("videos", ["video_id"])["video_id"].to_list() if tables.whole("videos") else []
    of_sample = dict(tables.frame("samples", ["sample_id", "video_id"]).drop("_rowaddr").iter_rows())
    found = []
    needed = set(needed)
    for name, check in (("frame_embeddings", _embeddings), ("frame_scores", _scores), ("variants", _variants)):
        addresses, keys, lacking = check(tables, frames, of_sample)
        needed |= lacking
        rows = tables.frame(name, [KEYS[name][0]])  # an item is dropped as a whole
        rows = rows.filter(pl.col(KEYS[name][0]).is_in(list(set(keys)))) if addresses else rows.clear()
        if rows.height:
            about = "they were made from other frames than those that are cached"
            drop = rows["_rowaddr"].to_numpy()
            found.append(Finding(name, UNFIT, rows.height, some(sorted(set(keys))), about, OWNER[name], drop=drop))
    missing = sorted((needed & set(known)) - set(frames.span) - tables.dropped("frames", "video_id"))
    if missing and tables.examined["frames"].whole:
        about = "what was made from their frames is there, the frames are not"
        found.append(Finding("frames", LOST, len(missing), some(missing), about, "cache-frames", unit="videos"))
    return found + _no_embeddings(tables, of_sample) + _no_variants(tables, of_sample)


class _Frames:
    """How many frames each video has, and their times: those that are whole."""

    def __init__(self, tables: Tables) -> None:
        frames = tables.frame("frames", ["video_id", "time_s"])
        self.times = frames["time_s"].to_numpy()
        runs = frames.select(pl.col("video_id").rle()).unnest("video_id")
        ends = runs["len"].to_numpy().astype(np.int64).cumsum()
        starts = ends - runs["len"].to_numpy()
        rows = zip(runs["value"].to_list(), starts.tolist(), ends.tolist(), strict=True)
        self.span: dict[str, tuple[int, int]] = {video: (start, end) for video, start, end in rows}

    def spans(self, videos: Sequence[str | None]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First row and number of frames of each video; -1 and 0 where there are none."""
        both = [self.span.get(video or "", (-1, -1)) for video in videos]
        table = np.array(both, np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1] - table[:, 0]


_Checked = tuple[list[int], list[str], set[str]]
"""Addresses and keys of the rows that do not fit, and the videos that have no frames."""


def _embeddings(tables: Tables, frames: _Frames, of_sample: dict[str, str]) -> _Checked:
    out: _Checked = ([], [], set())
    for batch in tables.examined["frame_embeddings"].batches(["video_id", "dim", "embeddings"]):
        videos = batch["video_id"].to_pylist()
        _, count = frames.spans(videos)
        length = pc.list_value_length(batch["embeddings"]).to_numpy(zero_copy_only=False)
        _note(out, batch, videos, videos, count, length == count * batch["dim"].to_numpy())
    return out


def _scores(tables: Tables, frames: _Frames, of_sample: dict[str, str]) -> _Checked:
    out: _Checked = ([], [], set())
    for batch in tables.examined["frame_scores"].batches(["sample_id", "scores"]):
        keys = batch["sample_id"].to_pylist()
        videos = [of_sample.get(key) for key in keys]
        _, count = frames.spans(videos)
        length = pc.list_value_length(batch["scores"]).to_numpy(zero_copy_only=False)
        _note(out, batch, keys, videos, count, length == count)
    return out


def _variants(tables: Tables, frames: _Frames, of_sample: dict[str, str]) -> _Checked:
    out: _Checked = ([], [], set())
    for batch in tables.examined["variants"].batches(["sample_id", "video_id", "indices", "times"]):
        keys, videos = batch["sample_id"].to_pylist(), batch["video_id"].to_pylist()
        start, count = frames.spans(videos)
        lengths = pc.list_value_length(batch["indices"]).to_numpy(zero_copy_only=False).astype(np.int64)
        index, time = batch["indices"].flatten().to_numpy(), batch["times"].flatten().to_numpy()
        row = np.repeat(np.arange(len(keys)), lengths)
        fits = np.array([of_sample.get(k, v) == v for k, v in zip(keys, videos, strict=True)], bool) & (lengths > 0)
        fits &= lengths == pc.list_value_length(batch["times"]).to_numpy(zero_copy_only=False)
        if len(index) == len(time):
            inside = (index >= 0) & (index < count[row])
            place = np.where(inside, start[row] + index, 0)
            same = inside & (len(frames.times) > 0) & (frames.times[place] == time if len(frames.times) else False)
            fits &= np.bincount(row[~same], minlength=len(keys)) == 0
        _note(out, batch, keys, videos, count, fits)
    return out


def _note(
    out: _Checked, batch: Any, keys: Sequence[str], videos: Sequence[str | None], count: npt.NDArray[Any], fits: Any
) -> None:
    """Sort the rows of a batch: those whose video has frames and that do not fit, and the videos without frames."""
    there = count > 0
    for place in np.flatnonzero(there & ~np.asarray(fits)).tolist():
        out[0].append(int(batch["_rowaddr"][place].as_py()))
        out[1].append(keys[place])
    out[2].update(videos[place] or "" for place in np.flatnonzero(~there).tolist())


def _no_embeddings(tables: Tables, of_sample: dict[str, str]) -> list[Finding]:
    """Videos whose frames were scored and have no embeddings any more."""
    if not tables.whole("frame_embeddings", "frames", "samples"):
        return []
    asked = tables.frame("frame_scores", ["sample_id"])["sample_id"].to_list()
    scored = {of_sample[key] for key in asked if key in of_sample}
    have = set(tables.frame("frame_embeddings", ["video_id"])["video_id"].to_list())
    cached = set(tables.frame("frames", ["video_id"])["video_id"].unique().to_list())
    lost = sorted(video for video in scored - have if video in cached)
    about = "their frames have scores, and embeddings no more"
    unit = "videos"
    return [Finding("frame_embeddings", LOST, len(lost), some(lost), about, "score-frames", unit)] if lost else []


def _no_variants(tables: Tables, of_sample: dict[str, str]) -> list[Finding]:
    """Samples that were asked about their views and have none any more."""
    if not tables.whole("variants", "samples"):
        return []
    rows = tables.frame("rollouts", ["sample_id", "variant"]).filter(pl.col("variant") >= ANCHOR)
    have = tables.frame("variants", ["sample_id"]).select("sample_id").unique()
    lone = rows.join(have, on="sample_id", how="anti")["sample_id"].unique().sort().to_list()
    lost = [key for key in lone if key in of_sample]
    about = "they were answered on their views, which are not there any more"
    unit = "samples"
    return [Finding("variants", LOST, len(lost), some(lost), about, "build-variants", unit)] if lost else []
