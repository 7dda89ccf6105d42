"""Represent the trie positions that a search may return.

Deals with sorted numbers only, not with tries or items. A filter stores either the allowed
positions or the denied ones, whichever were given. For example, "all but these seven" takes seven
numbers rather than one for every item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genrec.errors import RequestError
from genrec.types import BoolArray, IntArray


class Filter:
    """An immutable set of the allowed positions among 0 to n - 1.

    Attributes:
        n: total number of positions, including those that are not allowed.
        listed: the listed positions, distinct and sorted; the array is read-only.
        denies: whether the listed positions are denied rather than allowed.
    """

    __slots__ = ("denies", "listed", "n")

    def __init__(self, listed: IntArray, n: int, *, denies: bool) -> None:
        """Wrap a sorted array of distinct, valid positions and make it read-only."""
        listed.setflags(write=False)
        self.listed = listed
        self.n = n
        self.denies = denies

    @classmethod
    def all(cls, n: int) -> Filter:
        """Allow all n positions."""
        return cls.deny([], n)

    @classmethod
    def allow(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """Allow only these positions, given in any order and possibly repeated.

        Raises:
            RequestError: the positions are not a list of integers from 0 to n - 1.
        """
        return cls(_sorted(positions, n), n, denies=False)

    @classmethod
    def deny(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """Allow all positions except these, without building an array of size n.

        Raises:
            RequestError: the positions are not a list of integers from 0 to n - 1.
        """
        return cls(_sorted(positions, n), n, denies=True)

    def __len__(self) -> int:
        """Return the number of allowed positions."""
        return self.n - len(self.listed) if self.denies else len(self.listed)

    def count_items(self, n_items: int) -> int:
        """Count the allowed items, without the positions of removed items.

        Args:
            n_items: the number of items that have a position; the other positions are of removed
                items, which only a filter that denies can still contain.
        """
        return len(self) - (self.n - n_items) * self.denies

    def __and__(self, other: Filter) -> Filter:
        """Allow the positions that both filters allow.

        Raises:
            RequestError: the filters cover different numbers of positions.
        """
        _check_same_size(self.n, other.n)
        if self.denies and other.denies:
            return Filter(np.union1d(self.listed, other.listed), self.n, denies=True)
        one, two = sorted((self, other), key=lambda f: (f.denies, len(f.listed)))
        return Filter(one.listed[two.keeps(one.listed)], self.n, denies=False)

    def also(self, positions: IntArray) -> Filter:
        """Return a filter that also allows these positions."""
        change = np.setdiff1d if self.denies else np.union1d
        return Filter(change(self.listed, positions), self.n, denies=self.denies)

    def counts(self, low: IntArray, high: IntArray) -> IntArray:
        """Count the allowed positions from low to high - 1, for each of C ranges; (C,).

        Args:
            low: (C,) start of each range, from 0 to n.
            high: (C,) end of each range, which is excluded; from low to n.
        """
        listed = np.searchsorted(self.listed, high) - np.searchsorted(self.listed, low)
        return (high - low - listed if self.denies else listed).astype(np.int64, copy=False)

    def keeps(self, positions: IntArray) -> BoolArray:
        """Return a (P,) mask of the positions that are allowed."""
        return self.counts(positions, positions + 1) > 0


class Filters:
    """The filters of U users over the same n positions, queried together.

    Attributes:
        n: number of positions.
        common: filter that applies to all users.
        denies: (U,) whether each user's listed positions are denied.
        keys: the users' listed positions, sorted; those of user u are offset by u * (n + 1).
    """

    def __init__(self, filters: Sequence[Filter], common: Filter | None = None) -> None:
        """Merge the filters of a batch.

        Args:
            filters: one filter for each user.
            common: additional filter that applies to every user. It is stored only once.

        Raises:
            RequestError: there are no filters, or they cover different numbers of positions.
        """
        if not filters:
            msg = "The batch has no filters. Expected one filter for each user."
            raise RequestError(msg)
        self.n = filters[0].n
        self.common = common if common is not None else Filter.all(self.n)
        for one in (*filters, self.common):
            _check_same_size(self.n, one.n)
        listed = [f.listed[self.common.keeps(f.listed)] for f in filters]
        self.denies = np.array([f.denies for f in filters])
        self._size = np.array([len(positions) for positions in listed], dtype=np.int64)
        users = np.repeat(np.arange(len(filters)), self._size)
        self.keys: IntArray = users * (self.n + 1) + np.concatenate(listed)

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self._size)

    @property
    def totals(self) -> IntArray:
        """Return the (U,) number of positions that are allowed for each user."""
        return np.where(self.denies, len(self.common) - self._size, self._size)

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """For each of C ranges, count the positions that are allowed for the range's user; (C,).

        Args:
            user: (C,) user of each range, from 0 to U - 1.
            low: (C,) start of each range, from 0 to n.
            high: (C,) end of each range, which is excluded; from low to n.
        """
        start = np.asarray(user, dtype=np.int64) * (self.n + 1)
        listed = np.searchsorted(self.keys, start + high)
        listed -= np.searchsorted(self.keys, start + low)
        return np.where(self.denies[user], self.common.counts(low, high) - listed, listed)

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """Return a (P,) mask that tells whether each position is allowed for its user."""
        return self.counts(user, positions, positions + 1) > 0


def _sorted(positions: npt.ArrayLike, n: int) -> IntArray:
    """Validate positions and return the distinct ones in sorted order."""
    given = np.asarray(positions)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        msg = (
            f"The positions have shape {given.shape} and type {given.dtype}. Expected a list of "
            "integers; use np.flatnonzero(mask) to convert a mask."
        )
        raise RequestError(msg)
    outside = given[(given < 0) | (given >= n)] if given.size else given
    if outside.size:
        msg = (
            f"Position {outside[0]} is out of range. Expected positions from 0 to {n - 1}; "
            "use positions of the trie that is searched."
        )
        raise RequestError(msg)
    return np.unique(given.astype(np.int64, copy=False))


def _check_same_size(n: int, other: int) -> None:
    if n != other:
        msg = (
            f"The filters cover {n:,} and {other:,} positions. Expected the same number; build "
            "all filters for the same trie."
        )
        raise RequestError(msg)
