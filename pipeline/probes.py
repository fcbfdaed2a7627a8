"""What a policy is shown when it is asked for the ledger: the anchor view, all views in turn, one frame, or nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.fingerprint import LENGTH, fingerprint
from pipeline.framereader import FrameReader
from pipeline.store import Store, literal
from pipeline.views import ANCHOR, BLIND, ONE_FRAME

VERSION = 2
PROBES = {
    "anchor": "select",
    "variants": "select-variants",
    "blind": "select-blind",
    "one-frame": "select-one-frame",
}
"""What a policy may be shown -> name of the stage: the anchor view, all views in turn, nothing, one frame."""

NUMBERS = {"blind": BLIND, "one-frame": ONE_FRAME}
SEEN = ["indices", "crop", "scale"]
_BOX = 20  # bytes of a crop and a scale
_ROWS = 1 << 16
ASKED = ["task", "question", "options", "answer", "spans", "clip"]
_NEXT = "strive-data select --help"


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn: temperature above 0, longest response in tokens, seed of all draws.

    Raises:
        UserError: equal draws would have no variance, or no token may be drawn.
    """

    temperature: float = 1.0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"--max-tokens {self.max_tokens}", "at least one token", _NEXT)
        if not self.temperature > 0:
            raise UserError(f"--temperature {self.temperature}", "above 0: equal draws have no variance", _NEXT)


def shown(indices: Sequence[int], variant: int) -> list[int]:
    """The cached frames that a policy is shown: a view's own, none when blind, the anchor's middle one as one frame."""
    return list(indices[_part(len(indices), variant)])


def _part(count: int, variant: int) -> slice:
    if variant == BLIND:
        return slice(0, 0)
    return slice(count // 2, count // 2 + 1) if variant == ONE_FRAME else slice(0, count)


def scope(policy: str, probe: str) -> str:
    """SQL filter of the rollouts of one policy that a probe is about."""
    if probe == "variants":
        return f"policy = {literal(policy)} AND variant >= {ANCHOR}"
    return f"policy = {literal(policy)} AND variant = {NUMBERS.get(probe, ANCHOR)}"


def askable(store: Store, reader: FrameReader, policy: str, probe: str, sampling: Sampling) -> pl.DataFrame:
    """What the policy can be asked, and the fingerprint of each rollout of it: (sample_id, variant, fingerprint).

    With a probe of "anchor" only variant 0 is there, with "variants" every view of every sample. Samples without views
    or without cached frames are missing. Ordered by sample and variant; no two fingerprints are equal, because sample
    and variant enter the seeds of the draws and so belong to what determines them.
    """
    samples = store.table("samples", ["sample_id", *ASKED])
    asked = dict(zip(samples["sample_id"].to_pylist(), row_texts(samples.select(ASKED)), strict=True))
    views = store.table("variants", ["sample_id", "video_id", "variant", *SEEN])
    if probe != "variants":  # as a filter of the scan this was measured to take twice as long
        views = views.filter(pc.equal(views["variant"], ANCHOR))
    number = NUMBERS.get(probe)
    how = fingerprint("rollouts", VERSION, policy, [sampling.temperature, sampling.max_tokens, sampling.seed])
    frames = {video: "" if number == BLIND else reader.fingerprint(video) for video in reader.videos}
    names = [views[column].to_pylist() for column in ("sample_id", "video_id", "variant")]
    ids, variants, prints = [], [], []
    for sample_id, video, variant, seen in zip(*names, _seen(views, number), strict=True):
        if video in frames and sample_id in asked:
            shown_as = variant if number is None else number
            ids.append(sample_id)
            variants.append(shown_as)
            text = f"{how}|{frames[video]}|{shown_as}|{sample_id}|{asked[sample_id]}\n"
            prints.append(hashlib.sha256(text.encode() + seen).hexdigest()[:LENGTH])
    columns = {
        "sample_id": pl.Series(ids, dtype=pl.String),
        "variant": pl.Series(variants, dtype=pl.Int32),
        "fingerprint": pl.Series(prints, dtype=pl.String),
    }
    return pl.DataFrame(columns).sort("sample_id", "variant")


def row_texts(table: pa.Table) -> list[str]:
    """A text for each row, equal for equal rows and for no others: what a row's hash is taken of.

    Columns are strings, floats, or lists of such; floats stand with all their bits.
    """
    texts: list[str] = []
    for batch in table.to_batches(max_chunksize=_ROWS):  # Arrow joins at most 2 GiB of text at once
        texts += _joined([_cells(column) for column in batch.columns], "\n").to_pylist()
    return texts


def _cells(column: pa.Array) -> pa.Array:
    """Each value as a text that tells where it ends: a string and a list begin with their length."""
    if pa.types.is_list(column.type):
        lengths = pc.list_value_length(column)
        ends = np.concatenate([[0], np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False))])
        parts = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _cells(column.flatten()))
        return _joined([lengths.cast(pa.string()), pc.binary_join(parts, ",")], ":")
    if pa.types.is_string(column.type):
        return _joined([pc.utf8_length(column).cast(pa.string()), column], ":")
    return column.view(pa.int64()).cast(pa.string())


def _joined(parts: Sequence[pa.Array], separator: str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, separator, null_handling="replace", null_replacement="~")


def _seen(views: pa.Table, number: int | None) -> list[bytes]:
    """What determines the pixels of each view: crop, scale and frames; nothing of it for the blind."""
    if number == BLIND or not views.num_rows:
        return [b""] * views.num_rows
    indices, crop, scale = (views[column].combine_chunks() for column in SEEN)
    lengths = pc.list_value_length(indices).to_numpy()
    starts = np.cumsum(lengths) - lengths
    chosen = [_part(count, ANCHOR if number is None else number) for count in range(int(lengths.max()) + 1)]
    frames, size = indices.flatten().to_numpy().astype("<i4").tobytes(), 4
    box = np.hstack([crop.flatten().to_numpy().reshape(-1, 4), scale.to_numpy()[:, None]]).astype("<f4").tobytes()
    return [
        box[i : i + _BOX] + frames[size * (start + chosen[n].start) : size * (start + chosen[n].stop)]
        for i, start, n in zip(range(0, len(box), _BOX), starts.tolist(), lengths.tolist(), strict=True)
    ]
