"""The curated datasets of the evidence that no command makes: a random choice, one task, views that differ in space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint, seed_of
from pipeline.store import Store
from pipeline.transforms import draw_box, draw_scale
from toyworld.reproduce.plan import GROUNDED, POOL, RANDOM, SELECTED, SHIFTED, SHIFTED_POOL, SPATIAL

LEAST_SCALE = 0.75  # of the resolution that a spatial view keeps


def derive(store: Store, seeds: int) -> None:
    """Write the datasets that follow from SELECTED, POOL and SHIFTED_POOL; what is there already stays as it is.

    Raises:
        UserError: SHIFTED_POOL lacks samples of SELECTED, or nothing is left of a dataset.
    """
    draw(store, seeds)
    selected, shifted = store.curated(SELECTED), store.curated(SHIFTED_POOL)
    shifted = shifted.filter(pc.is_in(shifted["sample_id"], selected["sample_id"].combine_chunks()))
    if shifted.num_rows != selected.num_rows:
        raise UserError(SHIFTED_POOL, f"lacks samples of {SELECTED}", "start anew in another --out")
    _write(store, SHIFTED, shifted, "v1", SHIFTED_POOL, f"the samples of {SELECTED}, with phase shifts as views")
    rows = [spatial_only(row) for row in selected.to_pylist()]
    rule = f"{SELECTED}, each view with the frames of the anchor, cropped or resized"
    _write(store, SPATIAL, pa.Table.from_pylist(rows, schema=selected.schema), "v1", SELECTED, rule)
    grounded = selected.filter(pc.equal(selected["task"], "grounded_choice"))
    _write(store, GROUNDED, grounded, "v1", SELECTED, f"the grounded choices of {SELECTED}")


def draw(store: Store, seeds: int) -> None:
    """Write RANDOM, for each seed as many samples of POOL as SELECTED has."""
    whole, size = store.curated(POOL), store.curated(SELECTED).num_rows
    for seed in range(seeds):
        rule = f"{size} samples of {POOL}, drawn at random with seed {seed}"
        rows = whole.take(pa.array(random_places(whole.num_rows, size, seed)))
        _write(store, RANDOM, rows, f"seed{seed}", POOL, rule)


def random_places(count: int, size: int, seed: int) -> list[int]:
    """`size` of `count` places, drawn evenly without replacement, ascending."""
    rng = np.random.default_rng(seed_of("toyworld.reproduce", seed))
    return sorted(rng.permutation(count)[:size].tolist())


def spatial_only(row: Mapping[str, Any]) -> dict[str, Any]:
    """A curated row whose views all show the frames of its anchor, and differ in crop and resolution.

    Where the task allows neither, the views are equal.
    """
    anchor = next(view for view in row["variants"] if view["variant"] == 0)
    views = [anchor]
    for number in range(1, len(row["variants"])):
        seed = seed_of("toyworld.reproduce spatial", row["sample_id"], number)
        space = {"crop": list(draw_box(row["task"], seed)), "scale": draw_scale(row["task"], seed, LEAST_SCALE)}
        views.append({**anchor, "variant": number, "kind": "coverage", "seed": seed, "overlap": 1.0, **space})
    return {**row, "variants": views, "fingerprint": fingerprint(SPATIAL, row["fingerprint"], LEAST_SCALE)}


def _write(store: Store, name: str, rows: pa.Table, tag: str, source: str, rule: str) -> None:
    if not rows.num_rows:
        raise UserError(f"dataset {name}", f"nothing of {source} is left for it", "raise the number of clips")
    if tag in (store.curated_tags(name) if name in store.curated_names() else {}):
        there = store.curated(name, tag)["fingerprint"].to_pylist()
        if sorted(there) != sorted(rows["fingerprint"].to_pylist()):
            raise UserError(f"dataset {name} with the tag {tag}", "it was made of another selection", "a new --out")
        return
    kept = set(rows["sample_id"].to_pylist())
    table = store.verdicts(source)
    verdicts = [_verdict(row, kept) for row in table.to_pylist()]
    print_ = fingerprint(name, sorted(rows["fingerprint"].to_pylist()))
    facts = store.facts(source) | {"name": name, "tag": tag, "fingerprint": print_, "rule": rule}
    store.write_curated(name, rows, pa.Table.from_pylist(verdicts, schema=table.schema), tag, facts)


def _verdict(row: Mapping[str, Any], kept: set[str]) -> dict[str, Any]:
    return {**row, "reason": "" if row["sample_id"] in kept else row["reason"] or "not drawn"}
