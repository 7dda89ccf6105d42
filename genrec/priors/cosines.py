"""Compute the cosine similarities between items' user sets when they are needed.

A single list needs the cosines of only a few items. Once the total number of requested rows reaches
the number of items, the complete matrix of cosines is computed and cached. Both methods give exactly
the same values.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from genrec.types import FloatArray, IntArray


class Cosines:
    """The cosine similarities between the user sets of N items.

    The cosine of two items is the number of users who have both items, divided by the geometric
    mean of the items' user counts. The cosine of an item with itself is set to 0.
    """

    def __init__(self, items: Any) -> None:
        """Store the data from which cosines are computed on request.

        Args:
            items: (U, N) sparse matrix in CSR format with a 1 for each item that a user has.
        """
        self._items = items
        users = np.bincount(items.indices, minlength=items.shape[1]).astype(np.float64)
        self._root = np.divide(1.0, np.sqrt(users), out=np.zeros(len(users)), where=users > 0)
        self._asked = 0  # number of rows that have been requested
        self._whole: dict[int, Any] = {}  # all cosines, by the power to which they are raised

    def weigh(self, known: Any, power: int) -> Any:
        """Score all items by their cosines with the items in each of H histories.

        The score of an item is the weighted sum of these cosines, each raised to a power.

        Args:
            known: (H, N) sparse matrix with the weight of each item in each history.
            power: the exponent of the cosines.

        Returns:
            (H, N) sparse matrix of scores.
        """
        rows = np.unique(known.indices)
        if self._are_few(rows):
            return known[:, rows] @ _raise(self._rows(rows), power)
        if power not in self._whole:
            self._whole[power] = _raise(self._every, power)
        return known @ self._whole[power]

    def between(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Return the (R, C) cosines between R items and C other items.

        Args:
            rows: (R,) catalog rows, which may be repeated.
            columns: (C,) catalog rows.
        """
        some, place = np.unique(rows, return_inverse=True)
        found = self._rows(some) if self._are_few(some) else self._every[some]
        return np.asarray(found[:, columns].toarray())[place]

    def _are_few(self, rows: IntArray) -> bool:
        """Return True as long as fewer rows have been requested than there are items."""
        self._asked += len(rows)
        return bool(self._asked < self._items.shape[1])

    @cached_property
    def _every(self) -> Any:
        return self._rows(np.arange(self._items.shape[1]))

    def _rows(self, rows: IntArray) -> Any:
        """Return the sparse (R, N) matrix of cosines between R given items and all N items.

        Args:
            rows: (R,) the catalog rows of the given items, in ascending order.
        """
        shared = (self._items[:, rows].T @ self._items).tocsr()
        shared.sum_duplicates()
        of_row = np.repeat(rows, np.diff(shared.indptr))
        shared.data = self._root[of_row] * shared.data * self._root[shared.indices]
        shared.data[of_row == shared.indices] = 0.0
        shared.eliminate_zeros()
        return shared


def _raise(matrix: Any, power: int) -> Any:
    """Raise the entries of a sparse matrix to a power; the result shares its index arrays."""
    from scipy import sparse

    if power == 1:
        return matrix
    return sparse.csr_array((matrix.data**power, matrix.indices, matrix.indptr), shape=matrix.shape)
