"""Build sparse matrices of users and items, and convert them to arrays and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.types import IntArray

Arrays = Mapping[str, npt.NDArray[Any]]


def build_sparse(
    columns: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], n: int
) -> Any:
    """Build a sparse (U, n) matrix from the columns and weights of each row.

    If a row lists a column more than once, the column's weights are summed.
    """
    from scipy import sparse

    row = np.repeat(np.arange(len(columns)), [len(c) for c in columns])
    column = np.array([c for each in columns for c in each], dtype=np.int64)
    values = np.array([w for each in weights for w in each], dtype=np.float64)
    return sparse.csr_array((values, (row, column)), shape=(len(columns), n))


def sparse_to_arrays(name: str, matrix: Any) -> dict[str, npt.NDArray[Any]]:
    """Split a sparse matrix into named arrays that can be saved to a file."""
    matrix = matrix.tocsr()
    return {
        f"{name}.data": matrix.data,
        f"{name}.columns": matrix.indices.astype(np.int64),
        f"{name}.starts": matrix.indptr.astype(np.int64),
        f"{name}.width": np.array([matrix.shape[1]], dtype=np.int64),
    }


def sparse_from_arrays(name: str, arrays: Arrays, width: int) -> Any:
    """Rebuild a sparse matrix with ``width`` columns from the arrays of ``sparse_to_arrays``."""
    from scipy import sparse

    data, columns, starts = (arrays[f"{name}.{part}"] for part in ("data", "columns", "starts"))
    return sparse.csr_array((data, columns, starts), shape=(len(starts) - 1, width))


def count_transitions(before: IntArray, after: IntArray, n: int) -> Any:
    """Count how often each item came right after each other item, as a sparse (n, n) matrix.

    Args:
        before: (T,) catalog rows of the earlier items, which become the matrix's rows.
        after: (T,) catalog rows of the later items, which become its columns.
        n: number of items.
    """
    from scipy import sparse

    return sparse.csr_array((np.ones(len(before)), (before, after)), shape=(n, n))


def weigh_latest(
    catalog: Catalog,
    histories: Sequence[History],
    *,
    decay: float,
    last: int,
    keep_repeats: bool = False,
) -> Any:
    """Return a sparse (U, N) matrix that weights the latest items of each history by decay^age.

    The latest item has age 0. Weights of the same item are summed.

    Args:
        catalog: the items.
        histories: U histories.
        decay: the weight factor for each step back, from 0 to 1.
        last: number of latest items to use.
        keep_repeats: whether to count every event of an item rather than only the first.
    """
    rows, weights = [], []
    for history in histories:
        items = catalog.rows(history.item_ids)
        newest = (items if keep_repeats else list(dict.fromkeys(items)))[::-1][:last]
        rows.append(newest)
        weights.append([decay**age for age in range(len(newest))])
    return build_sparse(rows, weights, len(catalog))


def normalize_rows(matrix: Any) -> Any:
    """Scale the rows of a sparse matrix to unit length, leaving empty rows unchanged."""
    unit = matrix.tocsr(copy=True).astype(matrix.dtype)
    length = np.sqrt(np.asarray((unit * unit).sum(axis=1)).ravel())
    unit.data = unit.data / np.repeat(np.where(length > 0, length, 1.0), np.diff(unit.indptr))
    return unit


def keep_strongest(matrix: Any, n: int) -> Any:
    """Keep the n highest values of each row of a sparse matrix; ties are broken by column."""
    kept = np.zeros(len(matrix.data), dtype=bool)
    for first, last in pairwise(matrix.indptr.tolist()):
        if last - first <= n:
            kept[first:last] = True
            continue
        order = np.lexsort((matrix.indices[first:last], -matrix.data[first:last]))
        kept[first + order[:n]] = True
    strongest = matrix.copy()
    strongest.data = np.where(kept, matrix.data, 0.0)
    strongest.eliminate_zeros()
    return strongest
