"""Build sparse matrices of users and items, and convert them to named arrays and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.types import FloatArray, IntArray

Arrays = Mapping[str, npt.NDArray[Any]]


def build_sparse(
    columns: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], n: int
) -> Any:
    """Build a sparse matrix from the columns and weights of the entries in each row.

    If a row lists a column more than once, the column's weights are summed.

    Args:
        columns: for each row, the columns of its entries.
        weights: for each row, the weights of its entries.
        n: number of columns of the matrix.
    """
    from scipy import sparse

    row = np.repeat(np.arange(len(columns)), [len(c) for c in columns])
    column = np.array([c for each in columns for c in each], dtype=np.int64)
    values = np.array([w for each in weights for w in each], dtype=np.float64)
    return sparse.csr_array((values, (row, column)), shape=(len(columns), n))


def sparse_to_arrays(name: str, matrix: Any) -> dict[str, npt.NDArray[Any]]:
    """Represent a sparse matrix as several arrays, so that it can be saved to a file.

    Args:
        name: a name for the matrix, used as a prefix for the names of the arrays.
        matrix: the sparse matrix.
    """
    matrix = matrix.tocsr()
    return {
        f"{name}.data": matrix.data,
        f"{name}.columns": matrix.indices.astype(np.int64),
        f"{name}.starts": matrix.indptr.astype(np.int64),
        f"{name}.width": np.array([matrix.shape[1]], dtype=np.int64),
    }


def sparse_from_arrays(name: str, arrays: Arrays, width: int) -> Any:
    """Build a sparse matrix from the arrays that ``sparse_to_arrays`` returned.

    Args:
        name: the name of the matrix, which is the prefix of its arrays' names.
        arrays: the arrays, keyed by name, which may include arrays of other matrices.
        width: number of columns of the matrix.
    """
    from scipy import sparse

    data, columns, starts = (arrays[f"{name}.{part}"] for part in ("data", "columns", "starts"))
    return sparse.csr_array((data, columns, starts), shape=(len(starts) - 1, width))


def count_transitions(before: IntArray, after: IntArray, n: int) -> Any:
    """Count how often each item came right after every other item.

    Args:
        before: (T,) catalog row of the earlier item in each of T pairs.
        after: (T,) catalog row of the later item in each pair.
        n: number of items.

    Returns:
        A sparse (n, n) matrix of counts, with a row for each earlier item and a column for each
        later item.
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
    """Weight the most recent items in each history, so that newer items count more.

    The latest item has weight 1, the one before it ``decay``, the next one ``decay``^2, and so on.
    If an item occurs more than once, its weights are summed.

    Args:
        catalog: the N items.
        histories: the U histories.
        decay: weight of each item relative to the next newer one, from 0 to 1.
        last: maximum number of the most recent items to use.
        keep_repeats: whether to use every event with an item rather than only the first one.

    Returns:
        A sparse (U, N) matrix of weights.
    """
    rows, weights = [], []
    for history in histories:
        items = catalog.rows(history.item_ids)
        newest = (items if keep_repeats else list(dict.fromkeys(items)))[::-1][:last]
        rows.append(newest)
        weights.append([decay**age for age in range(len(newest))])
    return build_sparse(rows, weights, len(catalog))


def row_entries(matrix: Any, rows: IntArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Gather the entries of some rows of a sparse matrix, multiplied by the rows' weights.

    Args:
        matrix: a sparse matrix in CSR format.
        rows: (R,) numbers of the rows, which may be repeated.
        weights: (R,) weight of each row.

    Returns:
        (S,) columns, which may be repeated, and (S,) values. Their sum by column is the weighted sum
        of the rows.
    """
    first = matrix.indptr[rows].astype(np.int64)
    length = matrix.indptr[rows + 1] - first
    skipped = np.cumsum(length) - length
    place = np.arange(int(length.sum())) + np.repeat(first - skipped, length)
    return matrix.indices[place], matrix.data[place] * np.repeat(weights, length)


def normalize_rows(matrix: Any) -> Any:
    """Scale the rows of a sparse matrix to unit length, leaving empty rows unchanged."""
    unit = matrix.tocsr(copy=True).astype(matrix.dtype)
    length = np.sqrt(np.asarray((unit * unit).sum(axis=1)).ravel())
    unit.data = unit.data / np.repeat(np.where(length > 0, length, 1.0), np.diff(unit.indptr))
    return unit


def keep_strongest(matrix: Any, n: int) -> Any:
    """Return a copy of a sparse matrix that keeps only the n highest values of each row.

    Among equal values, those in lower-numbered columns are kept.
    """
    kept = np.zeros(len(matrix.data), dtype=bool)
    for first, last in pairwise(matrix.indptr.tolist()):
        if last - first <= n:
            kept[first:last] = True
            continue
        if n < 1:
            continue
        values = matrix.data[first:last]
        least = np.partition(values, -n)[-n]
        kept[first:last] = values > least
        ties = first + np.flatnonzero(values == least)
        rest = n - np.count_nonzero(kept[first:last])
        kept[ties[np.argsort(matrix.indices[ties])[:rest]]] = True
    strongest = matrix.copy()
    strongest.data = np.where(kept, matrix.data, 0.0)
    strongest.eliminate_zeros()
    return strongest
