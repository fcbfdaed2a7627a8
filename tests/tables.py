"""Tables of a store, in an order and with a tolerance that do not depend on how their rows were batched."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import KEYS, TABLES
from pipeline.store import Store

# What a model computed: a row's last digits move with the rows that shared its batch. Everything else is exact.
TOLERANCE = {"embeddings": 2e-3, "scores": 2e-3, "logprob": 1e-4}


def keys(name: str) -> list[str]:
    """The columns that tell a table's rows apart."""
    return [*KEYS[name], *(c for c in ("index", "variant") if c in TABLES[name].names and c not in KEYS[name])]


def content(store: Store, name: str) -> pa.Table:
    """A table in the order of its keys."""
    return store.table(name).sort_by([(key, "ascending") for key in keys(name)])


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal rows: exactly, but for the columns of TOLERANCE."""
    assert found.schema == expected.schema and found.num_rows == expected.num_rows
    for name in found.column_names:
        if name in TOLERANCE:
            assert np.allclose(_floats(found[name]), _floats(expected[name]), rtol=0.0, atol=TOLERANCE[name]), name
        else:
            assert found[name].equals(expected[name]), name


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """The numbers of a column of floats or of lists of floats, one after the other."""
    values = column.combine_chunks()
    return np.asarray(values.flatten() if pa.types.is_list(values.type) else values, dtype=np.float64)
