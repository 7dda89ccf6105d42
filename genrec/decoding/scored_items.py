"""Keep the best items that a search has found for each user. Deals with rows and scores only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.decoding.frontier import rank_in_group
from genrec.types import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class Items:
    """N scored items of U users, as parallel arrays.

    Attributes:
        user: (N,) index of the prompt.
        row: (N,) catalog row.
        logprob: (N,) log-probability, including the prior if it is fused at each node.
        score: (N,) value by which the item is ranked.
        alone: (N,) log-probability under the model without a prior.
        prior: (N,) log of the item's share of the total prior weight; 0 if there is no prior.
    """

    user: IntArray
    row: IntArray
    logprob: FloatArray
    score: FloatArray
    alone: FloatArray
    prior: FloatArray

    @classmethod
    def empty(cls) -> Items:
        """Return an empty set of items."""
        integers, floats = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(integers, integers, floats, floats, floats, floats)

    def __getitem__(self, which: Any) -> Items:
        """Select items by an array of indices or a mask."""
        return Items(*(getattr(self, name)[which] for name in self.__slots__))

    def __add__(self, other: Items) -> Items:
        """Concatenate two sets of items."""
        return Items(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__)
        )


class TopItems:
    """Each user's k best items, plus one more to detect ties at the last rank.

    Attributes:
        k: (U,) number of items requested for each user.
        worst: (U,) score of each user's k-th item; -inf while the list is shorter than that.
    """

    def __init__(self, k: IntArray) -> None:
        """Start with no items.

        Args:
            k: (U,) number of items requested for each user.
        """
        self.k = k
        self.worst = np.full(len(k), -np.inf)
        self._items = Items.empty()

    def add(self, new: Items) -> None:
        """Add new items and keep each user's best k + 1. Items with equal scores rank by row."""
        merged = self._items + new
        order = np.lexsort((merged.row, -merged.score, merged.user))
        rank = rank_in_group(merged.user[order])
        kept = rank <= self.k[merged.user[order]]
        self._items = items = merged[order[kept]]
        last = rank[kept] == self.k[items.user] - 1
        self.worst[items.user[last]] = items.score[last]

    def incomplete(self) -> BoolArray:
        """Return a (U,) mask of the users who have fewer than k items."""
        return np.bincount(self._items.user, minlength=len(self.k)) < self.k

    def of_user(self, user: int) -> tuple[Items, Items]:
        """Return a user's best k items, and the additional item if there is one."""
        which = np.flatnonzero(self._items.user == user)
        return self._items[which[: self.k[user]]], self._items[which[self.k[user] :]]
