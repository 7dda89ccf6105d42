"""TopItems: the best items that a search has found for each user. Knows rows and scores only."""

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
        logprob: (N,) log-probability, with the prior if it is fused at each node.
        score: (N,) value that ranks the item.
        alone: (N,) log-probability by the model without a prior.
        prior: (N,) log of the item's share of all prior weight; 0 without a prior.
    """

    user: IntArray
    row: IntArray
    logprob: FloatArray
    score: FloatArray
    alone: FloatArray
    prior: FloatArray

    @classmethod
    def empty(cls) -> Items:
        """Return no items."""
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
    """Each user's k best items, and one more that shows whether the last rank is tied.

    Attributes:
        k: (U,) number of items that each user asked for.
        worst: (U,) score of each user's k-th item, -inf while the list is shorter.
    """

    def __init__(self, k: IntArray) -> None:
        """Start with no items.

        Args:
            k: (U,) number of items that each user asked for.
        """
        self.k = k
        self.worst = np.full(len(k), -np.inf)
        self._items = Items.empty()

    def add(self, new: Items) -> None:
        """Merge new items and keep each user's best k + 1; equal scores rank by row."""
        merged = self._items + new
        order = np.lexsort((merged.row, -merged.score, merged.user))
        rank = rank_in_group(merged.user[order])
        kept = rank <= self.k[merged.user[order]]
        self._items = items = merged[order[kept]]
        last = rank[kept] == self.k[items.user] - 1
        self.worst[items.user[last]] = items.score[last]

    def incomplete(self) -> BoolArray:
        """Return which of the U users have fewer than k items."""
        return np.bincount(self._items.user, minlength=len(self.k)) < self.k

    def of_user(self, user: int) -> tuple[Items, Items]:
        """Return a user's best k items, and the one kept beyond them if there is one."""
        which = np.flatnonzero(self._items.user == user)
        return self._items[which[: self.k[user]]], self._items[which[self.k[user] :]]
