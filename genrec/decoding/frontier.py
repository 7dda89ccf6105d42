"""Store the beginnings of titles (prefixes) from which a search has yet to continue.

The prefixes are stored as parallel arrays, so that array operations can select, split and find
them. This module deals with numbers only, not with models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.types import BoolArray, FloatArray, IntArray


@dataclass(slots=True)
class Frontier:
    """The F open prefixes of U users, from which a search may continue.

    An open prefix is a sequence of title tokens that leads to a trie node. The tokens between the
    node and its parent are the node's run. Of this run, the model has scored only the first token.

    Attributes:
        user: (F,) index of the prefix's user; each user has one prompt.
        node: (F,) trie node to which the prefix leads.
        parent: (F,) handle of the token before the node's run, in the tree of tokens that the model
            has processed.
        logprob: (F,) log-probability of the tokens scored so far.
        alone: (F,) log-probability of the same tokens under the model without a prior.
        bound: (F,) upper bound on the score of every item whose title begins with the prefix.
    """

    user: IntArray
    node: IntArray
    parent: IntArray
    logprob: FloatArray
    alone: FloatArray
    bound: FloatArray

    @classmethod
    def empty(cls) -> Frontier:
        """Return a frontier without any prefixes."""
        integers, floats = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(integers, integers, integers, floats, floats, floats)

    def __len__(self) -> int:
        """Return the number of prefixes of all users."""
        return len(self.user)

    def __getitem__(self, which: Any) -> Frontier:
        """Return only the prefixes selected by an array of indices, a mask or a slice."""
        return Frontier(*(getattr(self, name)[which] for name in self.__slots__))

    def __add__(self, other: Frontier) -> Frontier:
        """Return a frontier with the prefixes of both frontiers."""
        return Frontier(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__)
        )

    def without(self, chosen: IntArray) -> Frontier:
        """Return all prefixes except those with the given indices."""
        others = np.ones(len(self), dtype=bool)
        others[chosen] = False
        return self[others]

    def best(self, size: int, eligible: BoolArray | None = None) -> IntArray:
        """Find each user's prefixes with the highest bounds.

        Args:
            size: maximum number of prefixes per user.
            eligible: (F,) mask of the prefixes that may be chosen; None allows all of them.

        Returns:
            The indices of the prefixes in ascending order.
        """
        candidates = np.arange(len(self)) if eligible is None else np.flatnonzero(eligible)
        if size >= len(candidates):
            return candidates
        order = candidates[np.lexsort((-self.bound[candidates], self.user[candidates]))]
        return np.sort(order[rank_in_group(self.user[order]) < size])

    def first(self, lengths: IntArray, tokens: int) -> IntArray:
        """Select the prefixes with the highest bounds whose runs fit into a given number of tokens.

        The tokens are divided equally among the users. Each user gets at least one prefix.

        Args:
            lengths: (F,) number of tokens in each prefix's run.
            tokens: maximum number of tokens in all selected runs together.

        Returns:
            The indices of the selected prefixes, in ascending order.
        """
        order = np.lexsort((-self.bound, self.user))
        user = self.user[order]
        total = np.cumsum(lengths[order])
        start = np.searchsorted(user, user)  # the first prefix of each prefix's user
        within = total - (total - lengths[order])[start]
        share = tokens // len(np.unique(user))
        return np.sort(order[(within <= share) | (np.arange(len(order)) == start)])

    def find(self, user: IntArray, node: IntArray) -> IntArray:
        """Find the prefix that belongs to each of R pairs of a user and a trie node.

        Args:
            user: (R,) user of each pair.
            node: (R,) trie node of each pair.

        Returns:
            (R,) indices of the prefixes; -1 for a pair without a prefix.
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
        """Return the highest bound among each user's prefixes.

        Args:
            n_users: number of users, U.

        Returns:
            (U,) bounds; -inf for a user without prefixes.
        """
        highest = np.full(n_users, -np.inf)
        np.maximum.at(highest, self.user, self.bound)
        return highest

    def masses(self, n_users: int) -> FloatArray:
        """Return the total probability of each user's prefixes.

        Args:
            n_users: number of users, U.

        Returns:
            (U,) sums; 0 for a user without prefixes.
        """
        return np.bincount(self.user, np.exp(self.logprob), n_users).astype(np.float64)


def rank_in_group(groups: IntArray) -> IntArray:
    """Number the entries of each group from 0, in the order in which they appear.

    Args:
        groups: (N,) group of each of N entries, in ascending order.

    Returns:
        (N,) number of each entry within its group.
    """
    return np.arange(len(groups)) - np.searchsorted(groups, groups)
