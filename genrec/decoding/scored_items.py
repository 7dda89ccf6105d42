"""Keep track of the best items that a search has found so far for each user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.decoding.frontier import rank_in_group
from genrec.types import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class Items:
    """N scored items as parallel arrays. Each item was found for one of several users.

    Attributes:
        user: (N,) index of the user for whom the item was found; each user has one prompt.
        row: (N,) catalog row of the item.
        logprob: (N,) log-probability of the item, including the prior if it is applied at each
            node of the trie.
        score: (N,) value by which the item is ranked.
        alone: (N,) log-probability of the item under the model without a prior.
        prior: (N,) logarithm of the item's share of the total prior weight; 0 if there is no prior.
    """

    user: IntArray
    row: IntArray
    logprob: FloatArray
    score: FloatArray
    alone: FloatArray
    prior: FloatArray

    @classmethod
    def empty(cls) -> Items:
        """Return an object without any items."""
        integers, floats = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(integers, integers, floats, floats, floats, floats)

    def __getitem__(self, which: Any) -> Items:
        """Return only the items selected by an array of indices or a mask."""
        return Items(*(getattr(self, name)[which] for name in self.__slots__))

    def __add__(self, other: Items) -> Items:
        """Return the items of both objects."""
        return Items(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__)
        )


class TopItems:
    """The best items found so far for each of U users.

    For each user, one more item than requested is kept, so that ties at the last rank can be
    detected.

    Attributes:
        k: (U,) number of items requested for each user.
        worst: (U,) score of the last requested item in each user's list; -inf while the list has
            fewer items than requested.
    """

    def __init__(self, k: IntArray) -> None:
        """Start with empty lists.

        Args:
            k: (U,) number of items requested for each user.
        """
        self.k = k
        self.worst = np.full(len(k), -np.inf)
        self._items = Items.empty()

    def add(self, new: Items) -> None:
        """Add new items and drop those that are no longer among a user's best ones.

        Items with equal scores are ranked by their catalog rows.
        """
        merged = self._items + new
        order = np.lexsort((merged.row, -merged.score, merged.user))
        rank = rank_in_group(merged.user[order])
        kept = rank <= self.k[merged.user[order]]
        self._items = items = merged[order[kept]]
        last = rank[kept] == self.k[items.user] - 1
        self.worst[items.user[last]] = items.score[last]

    def incomplete(self) -> BoolArray:
        """Return a (U,) mask of the users whose lists have fewer items than requested."""
        return np.bincount(self._items.user, minlength=len(self.k)) < self.k

    def of_user(self, user: int) -> tuple[Items, Items]:
        """Return a user's list of items, best first, and the next best item if there is one."""
        which = np.flatnonzero(self._items.user == user)
        return self._items[which[: self.k[user]]], self._items[which[self.k[user] :]]
