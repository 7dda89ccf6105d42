"""Reorder the weights of items by position in the trie of titles instead of by catalog row.

The search needs sums and maxima of weights over ranges of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from genrec.errors import RequestError
from genrec.priors.weights import CANCELLATION, LEAST_WEIGHT, Weights
from genrec.types import FloatArray, IntArray


class TriePositions(Protocol):
    """The interface through which a trie converts catalog rows to positions and back."""

    @property
    def n_positions(self) -> int:
        """Return the number of positions in the trie, including unused ones of removed titles."""
        ...

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each of the given positions."""
        ...

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the position of each of the given catalog rows; -1 if a row is not in the trie."""
        ...


class PositionWeights:
    """The weights of items for each of U users, ordered by the items' positions in a trie.

    This class implements the interface ``genrec.decoding.types.Prior``.

    Attributes:
        sources: for each user, the names of the sources that contributed to the weights.
    """

    def __init__(
        self, weights: Sequence[Weights], trie: TriePositions, cache: DenseCache | None = None
    ) -> None:
        """Order the weights of each user by position.

        If several users have the same ``Weights`` object, it is ordered only once.

        Args:
            weights: the weights of each of the U users.
            trie: the trie that defines the positions.
            cache: a cache with weights that were ordered for earlier requests; None for a new one.

        Raises:
            RequestError: an element of ``weights`` is not a ``Weights`` object.
        """
        self.sources = [each.sources if isinstance(each, Weights) else () for each in weights]
        ordered: dict[int, _Dense | _Sparse | _Added] = {}
        cache = DenseCache() if cache is None else cache
        for each in weights:
            kind: object = each  # checked for callers without a type checker
            if not isinstance(kind, Weights):
                msg = (
                    f"The prior's method weights(history) returned {each!r:.80}. Expected an object "
                    "of type genrec.priors.weights.Weights."
                )
                raise RequestError(msg)
            if id(each) in ordered:
                continue
            if each.rows is None:
                ordered[id(each)] = cache.order(each, trie)
            elif each.base is None:
                ordered[id(each)] = _Sparse(each, trie)
            else:
                ordered[id(each)] = _Added(cache.order(each.base, trie), each, trie)
        self._users = [ordered[id(each)] for each in weights]

    def mass(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Sum the weights of the positions in each of C ranges.

        Args:
            user: (C,) index of the user whose weights are summed.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) sums.
        """
        return self._by_user("mass", user, low, high)

    def best(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """Find the highest weight in each of C ranges of positions.

        Args:
            user: (C,) index of the user whose weights are compared.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) natural logarithms of the highest weights.
        """
        return self._by_user("best", user, low, high)

    def at(self, user: IntArray, positions: IntArray) -> FloatArray:
        """Look up the weights at P positions.

        Args:
            user: (P,) index of the user whose weight is looked up.
            positions: (P,) positions.

        Returns:
            (P,) natural logarithms of the weights.
        """
        return self._by_user("best", user, positions, positions + 1)

    def _by_user(self, method: str, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        if len(self._users) == 1:
            only: FloatArray = getattr(self._users[0], method)(low, high)
            return only
        values = np.empty(len(user))
        for number in np.unique(user).tolist():
            which = user == number
            values[which] = getattr(self._users[number], method)(low[which], high[which])
        return values


class _Dense:
    """Weights by position, with a separate value for every position."""

    def __init__(self, weights: Weights, trie: TriePositions) -> None:
        rows = trie.rows_at(np.arange(trie.n_positions))
        known = rows < len(weights.values)
        values = np.full(len(rows), weights.rest)
        values[known] = weights.values[rows[known]]
        self.top = float(values.max())
        self.values = np.maximum(values / self.top, LEAST_WEIGHT)
        self._log = np.log(self.values)
        self._sums = _RangeSums(self.values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        return self._sums.between(low, high)

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        return _range_maxima(self._log, low, high)


class DenseCache:
    """A cache of the ``_Dense`` weights that were most recently ordered by position."""

    def __init__(self, size: int = 4) -> None:
        """Create an empty cache.

        Args:
            size: maximum number of ``Weights`` objects whose ordered values are kept.
        """
        self._size = size
        self._kept: list[tuple[Weights, TriePositions, _Dense]] = []

    def order(self, weights: Weights, trie: TriePositions) -> _Dense:
        """Order weights by position, or return the result of an earlier call from the cache.

        The arguments are compared with earlier ones by identity. This is safe because both are
        immutable.
        """
        for known, where, ordered in self._kept:
            if known is weights and where is trie:
                return ordered
        ordered = _Dense(weights, trie)
        self._kept = [(weights, trie, ordered), *self._kept[: self._size - 1]]
        return ordered


class _Added:
    """Weights by position, with a base value at every position and extra values at some of them."""

    def __init__(self, base: _Dense, weights: Weights, trie: TriePositions) -> None:
        assert weights.rows is not None
        place = trie.find_positions(weights.rows)
        order = np.argsort(place)
        order = order[place[order] >= 0]
        values = weights.values[order] / base.top
        self._base, self._place = base, place[order]
        self._log = np.log(base.values[self._place] + values)
        self._sums = _RangeSums(values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        return self._base.mass(low, high) + self._sums.between(first, last)

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        base = self._base.best(low, high)  # never exceeds the total weight at a position
        return np.asarray(np.maximum(base, _range_maxima(self._log, first, last)))


class _Sparse:
    """Weights by position, with individual values at some positions and one value at all others."""

    def __init__(self, weights: Weights, trie: TriePositions) -> None:
        assert weights.rows is not None
        place = trie.find_positions(weights.rows)
        order = np.argsort(place)
        order = order[place[order] >= 0]
        top = max(weights.rest, float(weights.values.max(initial=0.0)))
        values = np.maximum(weights.values[order] / top, LEAST_WEIGHT)
        self._rest = max(weights.rest / top, LEAST_WEIGHT)
        self._place = place[order]
        self._log = np.log(values)
        self._sums = _RangeSums(values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        others = self._rest * ((high - low) - (last - first))
        return self._sums.between(first, last) + others

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        others = np.where(high - low > last - first, np.log(self._rest), -np.inf)
        return np.asarray(np.maximum(_range_maxima(self._log, first, last), others))


class _RangeSums:
    """Computes sums over ranges of an array of positive values from cumulative sums."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values
        self._before = np.concatenate([[0.0], np.cumsum(values)])

    def between(self, low: IntArray, high: IntArray) -> FloatArray:
        """Return the sum of ``values[low:high]`` for each range.

        Args:
            low: (C,) index at which each of C ranges starts.
            high: (C,) index after the end of each range.

        Returns:
            (C,) sums; 0 for an empty range.
        """
        sums: FloatArray = self._before[high] - self._before[low]
        # The difference of two large sums is inexact if it is small, so such ranges are added up.
        lossy = np.flatnonzero((high > low) & (sums < CANCELLATION * self._before[high]))
        if len(lossy):
            bounds = np.stack([low[lossy], high[lossy]], axis=1).ravel()
            sums[lossy] = np.add.reduceat(np.append(self._values, 0.0), bounds)[::2]
        return sums


def _range_maxima(values: FloatArray, low: IntArray, high: IntArray) -> FloatArray:
    """Return the maximum of ``values[low:high]`` for each range.

    Args:
        values: the values.
        low: (C,) index at which each of C ranges starts.
        high: (C,) index after the end of each range.

    Returns:
        (C,) maxima; -inf for an empty range.
    """
    maxima = np.full(len(low), -np.inf)
    some = np.flatnonzero(high > low)
    if len(some):
        bounds = np.stack([low[some], high[some]], axis=1).ravel()
        maxima[some] = np.maximum.reduceat(np.append(values, -np.inf), bounds)[::2]
    return maxima
