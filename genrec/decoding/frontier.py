"""Store the prefixes that a search has reached but not yet followed.

Deals with numbers only, not with models. The prefixes are stored as parallel arrays, so they are
selected, split and looked up by array operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.types import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class Frontier:
    """The F open prefixes of U users.

    A prefix ends just before a trie node's run. Only the first token of that run has been scored.

    Attributes:
        user: (F,) index of the prompt.
        node: (F,) trie node whose run follows the prefix.
        parent: (F,) handle of the node above the run in the token tree.
        logprob: (F,) log-probability of the scored tokens.
        alone: (F,) log-probability of the same tokens under the model without a prior.
        bound: (F,) upper bound on the score of every item below the prefix.
    """

    user: IntArray
    node: IntArray
    parent: IntArray
    logprob: FloatArray
    alone: FloatArray
    bound: FloatArray

    @classmethod
    def empty(cls) -> Frontier:
        """Return an empty frontier."""
        integers, floats = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(integers, integers, integers, floats, floats, floats)

    def __len__(self) -> int:
        """Return the number of prefixes."""
        return len(self.user)

    def __getitem__(self, which: Any) -> Frontier:
        """Select prefixes by an array of indices, a mask or a slice."""
        return Frontier(*(getattr(self, name)[which] for name in self.__slots__))

    def __add__(self, other: Frontier) -> Frontier:
        """Concatenate two frontiers."""
        return Frontier(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__)
        )

    def without(self, chosen: IntArray) -> Frontier:
        """Return all prefixes except the chosen ones, which are given by index."""
        others = np.ones(len(self), dtype=bool)
        others[chosen] = False
        return self[others]

    def best(self, size: int, eligible: BoolArray | None = None) -> IntArray:
        """Return the sorted indices of the ``size`` prefixes with the highest bounds for each user.

        Args:
            size: maximum number of prefixes per user.
            eligible: (F,) mask of the prefixes that may be chosen; all by default.
        """
        candidates = np.arange(len(self)) if eligible is None else np.flatnonzero(eligible)
        if size >= len(candidates):
            return candidates
        order = candidates[np.lexsort((-self.bound[candidates], self.user[candidates]))]
        return np.sort(order[rank_in_group(self.user[order]) < size])

    def find(self, user: IntArray, node: IntArray) -> IntArray:
        """Return the (R,) index of the prefix for each pair of user and node; -1 if there is none.

        Args:
            user: (R,) users to look up.
            node: (R,) trie nodes to look up.
        """
        index = np.full(len(user), -1)
        if len(self):
            span = int(max(self.node.max(), node.max())) + 1
            keys, wanted = self.user * span + self.node, user * span + node
            order = np.argsort(keys)
            nearest = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
            same = keys[nearest] == wanted
            index[same] = nearest[same]
        return index

    def highest_bounds(self, n_users: int) -> FloatArray:
        """Return the (U,) highest bound of each user's prefixes; -inf if there are no prefixes."""
        highest = np.full(n_users, -np.inf)
        np.maximum.at(highest, self.user, self.bound)
        return highest

    def masses(self, n_users: int) -> FloatArray:
        """Return the (U,) total probability of each user's prefixes."""
        return np.bincount(self.user, np.exp(self.logprob), n_users).astype(np.float64)


def rank_in_group(groups: IntArray) -> IntArray:
    """Return the rank of each entry within its group, starting from 0.

    Args:
        groups: (N,) group of each entry, in ascending order.
    """
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
