"""Which positions of a trie may be returned. Knows sorted numbers, nothing of tries or items.

A filter holds the allowed positions or the denied ones, whichever list was given, so that "all but
these seven" costs seven numbers and not one for every item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genrec.errors import RequestError
from genrec.types import BoolArray, IntArray


class Filter:
    """The allowed ones of the positions 0 to n - 1; it does not change.

    Attributes:
        n: how many positions there are.
        listed: sorted positions, each once, read-only.
        denies: whether the listed positions are those denied; else those allowed.
    """

    __slots__ = ("denies", "listed", "n")

    def __init__(self, listed: IntArray, n: int, *, denies: bool) -> None:
        """Wraps a list that is sorted, in range and without repeats; it becomes read-only."""
        listed.setflags(write=False)
        self.listed = listed
        self.n = n
        self.denies = denies

    @classmethod
    def all(cls, n: int) -> Filter:
        """All n positions."""
        return cls.deny([], n)

    @classmethod
    def allow(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """Only these positions, in any order and with repeats.

        Raises:
            RequestError: they are no list of integers, or one is not in 0 to n - 1.
        """
        return cls(_sorted(positions, n), n, denies=False)

    @classmethod
    def deny(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """All but these positions; as ``allow``. Nothing of size n is made."""
        return cls(_sorted(positions, n), n, denies=True)

    def __len__(self) -> int:
        """How many positions are allowed."""
        return self.n - len(self.listed) if self.denies else len(self.listed)

    def __and__(self, other: Filter) -> Filter:
        """What both allow.

        Raises:
            RequestError: they are over unlike numbers of positions.
        """
        _same(self.n, other.n)
        if self.denies and other.denies:
            return Filter(np.union1d(self.listed, other.listed), self.n, denies=True)
        one, two = sorted((self, other), key=lambda f: (f.denies, len(f.listed)))
        return Filter(one.listed[two.keeps(one.listed)], self.n, denies=False)

    def also(self, positions: IntArray) -> Filter:
        """What this allows, and these positions."""
        change = np.setdiff1d if self.denies else np.union1d
        return Filter(change(self.listed, positions), self.n, denies=self.denies)

    def counts(self, low: IntArray, high: IntArray) -> IntArray:
        """(C,) how many positions of each interval low to high - 1 are allowed.

        Args:
            low: (C,) from 0 to n.
            high: (C,) from low to n.
        """
        found = np.searchsorted(self.listed, high) - np.searchsorted(self.listed, low)
        return (high - low - found if self.denies else found).astype(np.int64, copy=False)

    def keeps(self, positions: IntArray) -> BoolArray:
        """(P,) whether each of P positions is allowed."""
        return self.counts(positions, positions + 1) > 0


class Filters:
    """The filters of U users over the same n positions, asked together.

    Attributes:
        n: how many positions there are.
        common: what applies to all of them.
        denies: (U,) whether each one's listed positions are denied.
        keys: all listed positions, sorted; those of user u are u * (n + 1) more.
    """

    def __init__(self, filters: Sequence[Filter], common: Filter | None = None) -> None:
        """Joins the filters' lists.

        Args:
            filters: one for each user.
            common: one that applies to all of them as well; held once, not once a user.

        Raises:
            RequestError: there are none, or they are over unlike numbers of positions.
        """
        if not filters:
            msg = "A batch of no filters. Expected one for each user; give at least one."
            raise RequestError(msg)
        self.n = filters[0].n
        self.common = common if common is not None else Filter.all(self.n)
        for one in (*filters, self.common):
            _same(self.n, one.n)
        listed = [f.listed[self.common.keeps(f.listed)] for f in filters]
        self.denies = np.array([f.denies for f in filters])
        self._size = np.array([len(positions) for positions in listed], dtype=np.int64)
        users = np.repeat(np.arange(len(filters)), self._size)
        self.keys: IntArray = users * (self.n + 1) + np.concatenate(listed)

    def __len__(self) -> int:
        """How many users there are."""
        return len(self._size)

    @property
    def totals(self) -> IntArray:
        """(U,) how many positions each user may be given."""
        return np.where(self.denies, len(self.common) - self._size, self._size)

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """(C,) how many positions of each interval low to high - 1 its user may be given.

        Args:
            user: (C,) from 0 to U - 1.
            low: (C,) from 0 to n.
            high: (C,) from low to n.
        """
        start = np.asarray(user, dtype=np.int64) * (self.n + 1)
        found = np.searchsorted(self.keys, start + high)
        found -= np.searchsorted(self.keys, start + low)
        return np.where(self.denies[user], self.common.counts(low, high) - found, found)

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """(P,) whether each of P positions may be given to its user, each (P,)."""
        return self.counts(user, positions, positions + 1) > 0


def _sorted(positions: npt.ArrayLike, n: int) -> IntArray:
    given = np.asarray(positions)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        msg = (
            f"Positions of shape {given.shape} and type {given.dtype}. Expected a list of "
            "integers; give np.flatnonzero(mask) where there is a mask."
        )
        raise RequestError(msg)
    outside = given[(given < 0) | (given >= n)] if given.size else given
    if outside.size:
        msg = (
            f"Position {outside[0]} of {n:,}. Expected positions from 0 to {n - 1}; "
            "make them from the same catalog as the trie."
        )
        raise RequestError(msg)
    return np.unique(given.astype(np.int64, copy=False))


def _same(n: int, other: int) -> None:
    if n != other:
        msg = (
            f"Filters over {n:,} and {other:,} positions. Expected the same number; make them "
            "for one trie."
        )
        raise RequestError(msg)
