"""Represent the set of items that a search may return.

An item is identified by its position in the trie of titles. A filter stores either the allowed
positions or the denied ones, whichever were given, so a filter for "all but these seven" stores
only seven numbers. This module deals with sorted numbers only, not with tries or items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genrec.errors import RequestError
from genrec.types import BoolArray, IntArray


class Filter:
    """An immutable set of allowed positions, out of all positions from 0 to n - 1.

    Attributes:
        n: total number of positions, including those that are not allowed.
        listed: the positions that the filter lists, distinct and sorted; the array is read-only.
        denies: whether the listed positions are denied rather than allowed.
    """

    __slots__ = ("denies", "listed", "n")

    def __init__(self, listed: IntArray, n: int, *, denies: bool) -> None:
        """Create a filter from a sorted array of distinct positions, which becomes read-only.

        ``allow`` and ``deny`` create filters from unsorted positions.
        """
        listed.setflags(write=False)
        self.listed = listed
        self.n = n
        self.denies = denies

    @classmethod
    def all(cls, n: int) -> Filter:
        """Create a filter that allows all n positions."""
        return cls.deny([], n)

    @classmethod
    def allow(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """Create a filter that allows only the given positions.

        Args:
            positions: the allowed positions in any order; positions may be repeated.
            n: total number of positions.

        Raises:
            RequestError: the positions are not a list of integers from 0 to n - 1.
        """
        return cls(_sorted(positions, n), n, denies=False)

    @classmethod
    def deny(cls, positions: npt.ArrayLike, n: int) -> Filter:
        """Create a filter that allows all positions except the given ones.

        The filter needs memory for the given positions only, not for all n positions.

        Args:
            positions: the denied positions in any order; positions may be repeated.
            n: total number of positions.

        Raises:
            RequestError: the positions are not a list of integers from 0 to n - 1.
        """
        return cls(_sorted(positions, n), n, denies=True)

    def __len__(self) -> int:
        """Return the number of allowed positions."""
        return self.n - len(self.listed) if self.denies else len(self.listed)

    def count_items(self, n_items: int) -> int:
        """Count the allowed items, excluding items that have been removed from the trie.

        A filter that lists denied positions does not list the positions of removed items. These
        positions therefore count as allowed, and are subtracted here.

        Args:
            n_items: number of items that have not been removed.
        """
        return len(self) - (self.n - n_items) * self.denies

    def __and__(self, other: Filter) -> Filter:
        """Create a filter that allows the positions that both filters allow.

        Raises:
            RequestError: the filters cover different numbers of positions.
        """
        _check_same_size(self.n, other.n)
        if self.denies and other.denies:
            return Filter(np.union1d(self.listed, other.listed), self.n, denies=True)
        one, two = sorted((self, other), key=lambda f: (f.denies, len(f.listed)))
        return Filter(one.listed[two.keeps(one.listed)], self.n, denies=False)

    def also(self, positions: IntArray) -> Filter:
        """Create a filter that also allows the given positions."""
        change = np.setdiff1d if self.denies else np.union1d
        return Filter(change(self.listed, positions), self.n, denies=self.denies)

    def counts(self, low: IntArray, high: IntArray) -> IntArray:
        """Count the allowed positions in each of C ranges.

        Args:
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) int64 counts.
        """
        listed = np.searchsorted(self.listed, high) - np.searchsorted(self.listed, low)
        return (high - low - listed if self.denies else listed).astype(np.int64, copy=False)

    def keeps(self, positions: IntArray) -> BoolArray:
        """Return a mask of the given positions that is True for allowed ones."""
        return self.counts(positions, positions + 1) > 0


class Filters:
    """The filters of U users, stored together so that they can be queried in one call.

    Attributes:
        n: number of positions, which is the same for all filters.
        common: filter that applies to all users in addition to their own.
        denies: (U,) whether each user's listed positions are denied rather than allowed.
        keys: the listed positions of all users in one sorted array. The positions of user u are
            shifted by ``u * (n + 1)`` to keep users apart.
    """

    def __init__(self, filters: Sequence[Filter], common: Filter | None = None) -> None:
        """Combine the filters of several users.

        Args:
            filters: one filter for each user.
            common: an additional filter that applies to every user and is stored only once; None if
                there is no such filter.

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
        """Return the number of allowed positions for each of the U users, as a (U,) array."""
        return np.where(self.denies, len(self.common) - self._size, self._size)

    def counts(self, user: IntArray, low: IntArray, high: IntArray) -> IntArray:
        """For each of C ranges, count the positions that are allowed for the range's user.

        Args:
            user: (C,) index of each range's user.
            low: (C,) first position of each range.
            high: (C,) position after the end of each range.

        Returns:
            (C,) counts.
        """
        start = np.asarray(user, dtype=np.int64) * (self.n + 1)
        listed = np.searchsorted(self.keys, start + high)
        listed -= np.searchsorted(self.keys, start + low)
        return np.where(self.denies[user], self.common.counts(low, high) - listed, listed)

    def keeps(self, user: IntArray, positions: IntArray) -> BoolArray:
        """Check whether each of P positions is allowed for its user.

        Args:
            user: (P,) index of the user for whom each position is checked.
            positions: (P,) positions.

        Returns:
            (P,) mask.
        """
        return self.counts(user, positions, positions + 1) > 0


def _sorted(positions: npt.ArrayLike, n: int) -> IntArray:
    """Check that positions are integers from 0 to n - 1, and return them sorted and distinct.

    Raises:
        RequestError: the positions are not a list of integers from 0 to n - 1.
    """
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
