"""Weights of histories laid over trie positions, as search consumes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from genrec.errors import RequestError
from genrec.priors.weights import LEAST_WEIGHT, POOR_WEIGHT, Weights
from genrec.types import FloatArray, IntArray


class Places(Protocol):
    """What is needed of a trie to go from rows to positions."""

    @property
    def n_positions(self) -> int:
        """How many positions there are."""
        ...

    def rows_at(self, positions: IntArray) -> IntArray:
        """The catalog row at each position."""
        ...

    def find_positions(self, rows: IntArray) -> IntArray:
        """(R,) the position of each row, -1 for a row that is not there."""
        ...


class Fused:
    """The weights of U users by position, as search asks for them (``decoding.Prior``).

    Attributes:
        spoke: of each user, what the weights were counted from.
    """

    def __init__(self, weights: Sequence[Weights], trie: Places, kept: Bases | None = None) -> None:
        """Brings weights by row into the order of positions; equal objects are brought once.

        Args:
            weights: of U users.
            trie: whose positions these are.
            kept: bases that are there already, for further requests.
        """
        self.spoke = [each.spoke if isinstance(each, Weights) else () for each in weights]
        made: dict[int, _Dense | _Sparse | _Added] = {}
        kept = Bases() if kept is None else kept
        for each in weights:
            kind: object = each  # checked for callers without a type checker
            if not isinstance(kind, Weights):
                msg = f"A prior gave {each!r:.80}. Expected genrec.priors.Weights."
                raise RequestError(msg)
            if id(each) in made:
                continue
            if each.rows is None:
                made[id(each)] = kept.of(each, trie)
            elif each.base is None:
                made[id(each)] = _Sparse(each, trie)
            else:
                made[id(each)] = _Added(kept.of(each.base, trie), each, trie)
        self._users = [made[id(each)] for each in weights]

    def mass(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """See ``decoding.Prior``."""
        return self._each("mass", user, low, high)

    def best(self, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        """See ``decoding.Prior``."""
        return self._each("best", user, low, high)

    def at(self, user: IntArray, positions: IntArray) -> FloatArray:
        """See ``decoding.Prior``."""
        return self._each("best", user, positions, positions + 1)

    def _each(self, name: str, user: IntArray, low: IntArray, high: IntArray) -> FloatArray:
        if len(self._users) == 1:
            found: FloatArray = getattr(self._users[0], name)(low, high)
            return found
        values = np.empty(len(user))
        for number in np.unique(user).tolist():
            which = user == number
            values[which] = getattr(self._users[number], name)(low[which], high[which])
        return values


class _Dense:
    """A weight for every position."""

    def __init__(self, weights: Weights, trie: Places) -> None:
        rows = trie.rows_at(np.arange(trie.n_positions))
        known = rows < len(weights.values)
        values = np.full(len(rows), weights.rest)
        values[known] = weights.values[rows[known]]
        self.top = float(values.max())
        self.values = np.maximum(values / self.top, LEAST_WEIGHT)
        self._log = np.log(self.values)
        self._sums = _Sums(self.values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        return self._sums.between(low, high)

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        return _maxima(self._log, low, high)


class Bases:
    """The dense weights that were last brought into the order of a trie."""

    def __init__(self, size: int = 4) -> None:
        """Keeps so many."""
        self._size = size
        self._found: list[tuple[Weights, Places, _Dense]] = []

    def of(self, weights: Weights, trie: Places) -> _Dense:
        """Weights in the order of a trie, which neither of them changes."""
        for known, where, made in self._found:
            if known is weights and where is trie:
                return made
        made = _Dense(weights, trie)
        self._found = [(weights, trie, made), *self._found[: self._size - 1]]
        return made


class _Added:
    """Weights that are added to dense ones at some positions."""

    def __init__(self, base: _Dense, weights: Weights, trie: Places) -> None:
        assert weights.rows is not None
        place = trie.find_positions(weights.rows)
        order = np.argsort(place)
        order = order[place[order] >= 0]
        values = weights.values[order] / base.top
        self._base, self._place = base, place[order]
        self._log = np.log(base.values[self._place] + values)
        self._sums = _Sums(values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        return self._base.mass(low, high) + self._sums.between(first, last)

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        base = self._base.best(low, high)  # not above what it is with something added
        return np.asarray(np.maximum(base, _maxima(self._log, first, last)))


class _Sparse:
    """Weights at some positions, the same everywhere else."""

    def __init__(self, weights: Weights, trie: Places) -> None:
        assert weights.rows is not None
        place = trie.find_positions(weights.rows)
        order = np.argsort(place)
        order = order[place[order] >= 0]
        top = max(weights.rest, float(weights.values.max(initial=0.0)))
        values = np.maximum(weights.values[order] / top, LEAST_WEIGHT)
        self._rest = max(weights.rest / top, LEAST_WEIGHT)
        self._place = place[order]
        self._log = np.log(values)
        self._sums = _Sums(values)

    def mass(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        others = self._rest * ((high - low) - (last - first))
        return self._sums.between(first, last) + others

    def best(self, low: IntArray, high: IntArray) -> FloatArray:
        first, last = np.searchsorted(self._place, low), np.searchsorted(self._place, high)
        others = np.where(high - low > last - first, np.log(self._rest), -np.inf)
        return np.asarray(np.maximum(_maxima(self._log, first, last), others))


class _Sums:
    """Sums of neighbours among positive values."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values
        self._before = np.concatenate([[0.0], np.cumsum(values)])

    def between(self, low: IntArray, high: IntArray) -> FloatArray:
        """(C,) the sum of values[low] to values[high - 1]; 0 where there is none."""
        found: FloatArray = self._before[high] - self._before[low]
        # The difference of two sums loses what is small beside them: that is added up anew.
        poor = np.flatnonzero((high > low) & (found < POOR_WEIGHT * self._before[high]))
        if len(poor):
            bounds = np.stack([low[poor], high[poor]], axis=1).ravel()
            found[poor] = np.add.reduceat(np.append(self._values, 0.0), bounds)[::2]
        return found


def _maxima(values: FloatArray, low: IntArray, high: IntArray) -> FloatArray:
    """(C,) the greatest of values[low] to values[high - 1]; -inf where there is none."""
    found = np.full(len(low), -np.inf)
    some = np.flatnonzero(high > low)
    if len(some):
        bounds = np.stack([low[some], high[some]], axis=1).ravel()
        found[some] = np.maximum.reduceat(np.append(values, -np.inf), bounds)[::2]
    return found
