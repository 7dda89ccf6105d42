"""Read vectors of items, such as those of pictures or sounds, from a Parquet file.

This module deals with numbers, not with how they were made.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec import files
from genrec.data.catalog import Catalog
from genrec.data.readers import arrow
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError
from genrec.text import quantity
from genrec.types import Float32Array

NEEDED = ("item_id", "vector")


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of some items, all of D dimensions.

    Attributes:
        ids: the V ids of the items.
        vectors: (V, D) float32 vectors. None is zero.
    """

    ids: tuple[str, ...]
    vectors: Float32Array

    @cached_property
    def _place(self) -> dict[str, int]:
        return {item: place for place, item in enumerate(self.ids)}

    def unit_rows(self, catalog: Catalog) -> Float32Array:
        """Return (N, D) unit vectors by catalog row; zero for an item without a vector."""
        found = np.zeros((len(catalog), self.vectors.shape[1]), dtype=np.float32)
        pairs = [
            (r, self._place[i.item_id]) for r, i in enumerate(catalog) if i.item_id in self._place
        ]
        if pairs:
            rows, places = np.array(pairs, dtype=np.int64).T
            some = self.vectors[places].astype(np.float64)
            some /= np.abs(some).max(axis=1, keepdims=True)  # squares of tiny numbers would be 0
            found[rows] = some / np.linalg.norm(some, axis=1, keepdims=True)
        return found

    def hash(self) -> str:
        """Return a SHA-256 hash (hex) of the ids and the vectors."""
        digest = hashlib.sha256("\0".join(self.ids).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(self.vectors).tobytes())
        return digest.hexdigest()

    def to_table(self) -> pa.Table:
        """Return a table with the columns item_id and vector."""
        column = pa.array(list(self.vectors), pa.list_(pa.float32()))
        return pa.table({"item_id": pa.array(self.ids, pa.string()), "vector": column})


def read_item_vectors(
    path: str | Path, catalog: Catalog, rejects: Rejects, notes: list[str] | None = None
) -> ItemVectors:
    """Read a Parquet file with the columns item_id and vector.

    Args:
        path: the file.
        catalog: the items.
        rejects: the object that records unusable rows: those of unknown items, repeated ids, vectors of
            another number of dimensions than most, and vectors that are zero, empty or not finite.
        notes: the list to which a remark on items without a vector is added.

    Raises:
        DataError: the file cannot be read, has other columns, or has no usable row.
    """
    path = Path(path)
    if problem := files.describe_unreadable(path):
        raise DataError(problem)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = (
            f"{str(path)!r} cannot be read: {str(error).splitlines()[0]}. Expected a Parquet file with the "
            "columns item_id and vector, as `genrec embed` writes it."
        )
        raise DataError(msg) from error
    lacking = [name for name in NEEDED if name not in table.column_names]
    if lacking:
        msg = (
            f"{path.name} has no column {' or '.join(lacking)}. Expected the columns item_id and vector; "
            f"found {', '.join(table.column_names)}."
        )
        raise DataError(msg)
    column = table["vector"].combine_chunks()
    if not arrow.is_list(column.type) or not (
        pa.types.is_floating(column.type.value_type) or pa.types.is_integer(column.type.value_type)
    ):
        msg = (
            f"The column vector of {path.name} has the type {column.type}. Expected a list of numbers in "
            "each row, such as list<float>."
        )
        raise DataError(msg)
    ids = arrow.to_strings(table["item_id"])
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
    usual = Counter(n for n in lengths if n).most_common(1)
    width = usual[0][0] if usual else 0
    right = [place for place, n in enumerate(lengths) if n == width and width]
    flat = pc.list_flatten(column.take(pa.array(right, pa.int64())))
    values = np.full((len(ids), width), np.nan, dtype=np.float64)
    if right:
        values[right] = flat.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, width)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    finite = np.asarray(np.isfinite(narrow).all(axis=1))
    zero = ~np.asarray(narrow.any(axis=1))
    numbers = arrow.row_numbers(table)
    kept: list[int] = []
    first: dict[str, int] = {}
    for place, item in enumerate(ids):
        if item not in catalog:
            reason = f"the item is not in the catalog: {item!r}"
        elif item in first:
            reason = f"duplicate item_id {item!r} (first in data row {first[item]})"
        elif lengths[place] != width or not width:
            reason = (
                f"the vector has other dimensions than most: {lengths[place]!r} instead of {width}"
            )
        elif not finite[place]:
            reason = "the vector has a value that is not a finite number"
        elif zero[place]:
            reason = "the vector is zero"
        else:
            first[item] = numbers[place]
            kept.append(place)
            continue
        rejects.add(numbers[place], reason, [item])
    if not kept:
        msg = (
            f"{path.name} has no usable vectors{rejects.first_reason()}. Expected rows with an item_id of "
            "the catalog and a vector of finite numbers that is not zero."
        )
        raise DataError(msg)
    missing = len(catalog) - len(kept)
    if missing and notes is not None:
        notes.append(
            f"{path.name} has no vector for {quantity(missing, 'item')} of {len(catalog):,}"
        )
    return ItemVectors(tuple(ids[p] for p in kept), narrow[kept])


def load_item_vectors(path: Path) -> ItemVectors:
    """Read the file that a dataset folder holds; its rows have been checked.

    Raises:
        ValueError: the file is not as it was written.
    """
    table = pq.read_table(path)
    column = table["vector"].combine_chunks()
    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    vectors = flat.astype(np.float32).reshape(table.num_rows, -1)
    return ItemVectors(tuple(table["item_id"].to_pylist()), vectors)
