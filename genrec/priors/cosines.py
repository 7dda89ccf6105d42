"""Compute the cosine similarities between items' user sets when they are needed.

A single list needs the cosines of only a few items, which are kept for later requests while they are
few. Once as much work has been done for requests as the complete matrix of cosines takes, that matrix
is computed and cached, if there is enough memory. Both methods give exactly the same values.

In large catalogs with long histories, almost any two items share a user, so the complete matrix would
have billions of entries. There, each item keeps only its highest cosines, and the others count as 0.
Whether this happens depends only on the events, not on the machine or on earlier requests.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from genrec.baselines.sparse import keep_strongest, row_entries
from genrec.memory import free_memory
from genrec.types import FloatArray, IntArray

MOST = 40_000_000  # maximum number of cosines that are kept
LEAST, NEAR = 50, 500  # minimum and maximum number of cosines of an item in a large catalog
_BLOCK = 4_000_000  # number of pairs of events that are counted at a time
_BYTES = 40  # memory for each entry of the complete matrix, and of its powers, while it is computed
_KEPT = 4_000_000  # maximum number of cosines of single items that are kept
_FREE = 0.5  # the fraction of the free memory that the complete matrix may take


class Cosines:
    """The cosine similarities between the user sets of N items.

    The cosine of two items is the number of users who have both items, divided by the geometric
    mean of the items' user counts. The cosine of an item with itself is set to 0.

    Attributes:
        near: maximum number of cosines that each item keeps; N if all are kept.
    """

    def __init__(self, items: Any) -> None:
        """Store the data from which cosines are computed on request.

        Args:
            items: (U, N) sparse matrix in CSR format with a 1 for each item that a user has.
        """
        n = items.shape[1]
        self._items = items
        users = np.bincount(items.indices, minlength=n).astype(np.float64)
        self._root = np.divide(1.0, np.sqrt(users), out=np.zeros(len(users)), where=users > 0)
        length = np.diff(items.indptr).astype(np.float64)
        self._work = items.T @ length  # (N,) number of pairs of events that are counted for an item
        self._total = float(self._work.sum())
        entries = min(self._total, float(n) ** 2)  # an upper bound
        self.near = n if entries <= MOST else int(np.clip(MOST // (4 * n), LEAST, NEAR))
        self._bytes = min(entries, float(n) * self.near) * _BYTES
        self._done = 0.0  # the work that has been done for requests
        # The columns and the cosines of each item that was asked for, by catalog row.
        self._kept: dict[int, tuple[IntArray, FloatArray]] = {}
        self._entries = 0  # their number
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
        few = self._few(rows)
        if few is not None:
            return known[:, rows] @ _raise(few, power)
        if power not in self._whole:
            self._whole[power] = _raise(self._every, power)
        return known @ self._whole[power]

    def entries(
        self, rows: IntArray, weights: FloatArray, power: int
    ) -> tuple[IntArray, FloatArray]:
        """Compute ``weigh`` for one history without building sparse matrices.

        Args:
            rows: (R,) catalog rows of the history's items, which may be repeated.
            weights: (R,) weight of each of them.
            power: the exponent of the cosines.

        Returns:
            (S,) columns, which may be repeated, and their (S,) values; see ``row_entries``.
        """
        some, place = np.unique(rows, return_inverse=True)
        few = self._few(some)
        matrix, place = (self._every, rows) if few is None else (few, place)
        columns, cosines = row_entries(matrix, place, np.ones(len(place)))
        length = matrix.indptr[place + 1] - matrix.indptr[place]
        return columns, cosines**power * np.repeat(weights, length)

    def between(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Return the (R, C) cosines between R items and C other items.

        Args:
            rows: (R,) catalog rows, which may be repeated.
            columns: (C,) catalog rows.
        """
        some, place = np.unique(rows, return_inverse=True)
        few = self._few(some)
        found = self._every[some] if few is None else few
        return np.asarray(found[:, columns].toarray())[place]

    def _few(self, rows: IntArray) -> Any:
        """Return the (R, N) cosines between R given items and all items.

        Those of an item are kept for later requests.

        Args:
            rows: (R,) the catalog rows of the given items, in ascending order.

        Returns:
            A sparse matrix; None if the complete matrix should be used instead.
        """
        from scipy import sparse

        if "_every" in self.__dict__:
            return None
        kept = self._kept  # another thread may start a new one
        missing = np.array([row for row in rows.tolist() if row not in kept], dtype=np.int64)
        if len(missing):
            self._done += float(self._work[missing].sum())
            if self._done >= self._total and self._bytes <= _FREE * free_memory():
                return None
            found = self._rows(missing)
            if self._entries + found.nnz > _KEPT:
                kept = {row: kept[row] for row in rows.tolist() if row in kept}
                self._kept, self._entries = kept, sum(len(values) for _, values in kept.values())
            self._entries += found.nnz
            bounds = found.indptr.tolist()
            for number, row in enumerate(missing.tolist()):
                part = slice(bounds[number], bounds[number + 1])
                kept[row] = found.indices[part], found.data[part]
            if len(missing) == len(rows):
                return found
        parts = [kept[row] for row in rows.tolist()]
        return sparse.csr_array(
            (
                np.concatenate([np.empty(0), *(values for _, values in parts)]),
                np.concatenate([np.empty(0, dtype=np.int64), *(columns for columns, _ in parts)]),
                np.cumsum([0, *(len(values) for _, values in parts)]),
            ),
            shape=(len(rows), self._items.shape[1]),
        )

    @cached_property
    def _every(self) -> Any:
        self._kept, self._entries = {}, 0
        return self._rows(np.arange(self._items.shape[1]))

    @cached_property
    def _by_item(self) -> Any:
        """The (N, U) transpose of the matrix of items, in CSR format."""
        return self._items.T.tocsr()

    def _rows(self, rows: IntArray) -> Any:
        """Compute the sparse (R, N) matrix of cosines between R given items and all N items.

        Args:
            rows: (R,) the catalog rows of the given items, in ascending order.
        """
        from scipy import sparse

        block = np.cumsum(self._work[rows]) // _BLOCK
        parts = [self._block(part) for part in np.split(rows, np.flatnonzero(np.diff(block)) + 1)]
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    def _block(self, rows: IntArray) -> Any:
        """Compute ``_rows`` for rows that take little memory together."""
        shared = self._by_item[rows] @ self._items
        of_row = np.repeat(rows, np.diff(shared.indptr))
        shared.data = self._root[of_row] * shared.data * self._root[shared.indices]
        shared.data[of_row == shared.indices] = 0.0
        shared.eliminate_zeros()
        if self.near < self._items.shape[1]:
            shared = keep_strongest(shared, self.near)
        shared.sort_indices()
        return shared


def _raise(matrix: Any, power: int) -> Any:
    """Raise the entries of a sparse matrix to a power; the result shares its index arrays."""
    from scipy import sparse

    if power == 1:
        return matrix
    return sparse.csr_array((matrix.data**power, matrix.indices, matrix.indptr), shape=matrix.shape)
