"""Compute cosines between items' sets of users, but only for the items that are needed.

A single list needs the cosines of only a few items. Once the number of requested rows reaches the
number of items, all cosines are computed and kept. Either way, every cosine is exactly the same, to
the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genrec.types import IntArray


class Cosines:
    """The cosines between the sets of users of N items.

    The cosine of two items is the number of users who have both, divided by the square root of the
    product of their numbers of users. The cosine of an item with itself is set to 0.
    """

    def __init__(self, items: Any) -> None:
        """Store the data from which cosines are computed on request.

        Args:
            items: (U, N) sparse matrix in CSR format with a 1 for each item that a user has.
        """
        self._items = items
        users = np.bincount(items.indices, minlength=items.shape[1]).astype(np.float64)
        self._root = np.divide(1.0, np.sqrt(users), out=np.zeros(len(users)), where=users > 0)
        self._asked = 0  # number of rows that have been computed one request at a time
        self._whole: dict[int, Any] = {}  # all cosines, by the power to which they are raised

    def weigh(self, known: Any, power: int) -> Any:
        """Sum the powers of the cosines with the items of several histories.

        Args:
            known: (H, N) sparse matrix with the weight of each item in each history.
            power: the exponent of the cosines.

        Returns:
            (H, N) sparse matrix with the weighted sums for all items.
        """
        rows = np.unique(known.indices)
        if not self._whole and self._asked + len(rows) < self._items.shape[1]:
            self._asked += len(rows)
            return known[:, rows] @ _raise(self._rows(rows), power)
        if 1 not in self._whole:
            self._whole[1] = self._rows(np.arange(self._items.shape[1]))
        if power not in self._whole:
            self._whole[power] = _raise(self._whole[1], power)
        return known @ self._whole[power]

    def _rows(self, rows: IntArray) -> Any:
        """Return the (R, N) sparse matrix of the cosines of some items with all items.

        Args:
            rows: (R,) the rows of the items in ascending order.
        """
        shared = (self._items[:, rows].T @ self._items).tocsr()
        shared.sum_duplicates()
        of_row = np.repeat(rows, np.diff(shared.indptr))
        shared.data = self._root[of_row] * shared.data * self._root[shared.indices]
        shared.data[of_row == shared.indices] = 0.0
        shared.eliminate_zeros()
        return shared


def _raise(matrix: Any, power: int) -> Any:
    """Raise the entries of a sparse matrix to a power. The result shares its index arrays."""
    from scipy import sparse

    if power == 1:
        return matrix
    return sparse.csr_array((matrix.data**power, matrix.indices, matrix.indptr), shape=matrix.shape)
