"""Count the allowed items and sum the prior weights below the nodes of a trie.

This module deals with nodes, positions and users, not with a model's probabilities.
"""

from __future__ import annotations

import heapq

import numpy as np

from genrec.decoding.boosts import Boosts
from genrec.decoding.frontier import Frontier
from genrec.decoding.types import Allowed, Prior, Trie
from genrec.types import FloatArray, IntArray

# A prefix may be processed in advance if its guessed score is at most this many nats below the
# score of the last item in the list.
_MARGIN = 1.0


class Subtrees:
    """Computes totals over the items whose titles lie below trie nodes, for each of U users."""

    def __init__(
        self,
        trie: Trie,
        allowed: Allowed | None,
        prior: Prior | None,
        boosts: Boosts | None = None,
    ) -> None:
        """Store the trie, the filters, the prior and the boosts.

        Args:
            trie: the catalog's trie.
            allowed: the items that may be returned to each user; None to allow all items.
            prior: the weights of the items for each user, or None.
            boosts: factors that change the order of items, which are the same for all users; None
                if there are none.
        """
        self._trie, self._allowed, self._prior, self._boosts = trie, allowed, prior, boosts

    def counts(self, user: IntArray, nodes: IntArray) -> IntArray:
        """For each of C nodes, count the items below it that may be returned to the node's user.

        Args:
            user: (C,) index of each node's user.
            nodes: (C,) trie nodes.

        Returns:
            (C,) counts.
        """
        owner, low, high = self._trie.intervals(nodes)
        if self._allowed is None:
            count = high - low
        else:
            count = self._allowed.counts(user[owner], low, high)
        if len(owner) == len(nodes):
            return count
        return np.bincount(owner, count, len(nodes)).astype(np.int64)

    def prior_mass(self, user: IntArray, nodes: IntArray) -> FloatArray:
        """Sum the prior weights of the items below each of C nodes.

        Args:
            user: (C,) index of each node's user.
            nodes: (C,) trie nodes.

        Returns:
            (C,) sums.
        """
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        mass = self._prior.mass(user[owner], low, high)
        if len(owner) > len(nodes):
            mass = np.bincount(owner, mass, len(nodes)).astype(np.float64)
        return mass

    def best_prior(self, user: IntArray, nodes: IntArray) -> FloatArray:
        """Find the highest prior weight among the items below each of C nodes.

        Args:
            user: (C,) index of each node's user.
            nodes: (C,) trie nodes.

        Returns:
            (C,) natural logarithms of the weights.
        """
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        return _maxima(self._prior.best(user[owner], low, high), owner, len(nodes))

    def best_boost(self, nodes: IntArray) -> FloatArray:
        """Find the highest boost factor among the items below each of C nodes.

        Args:
            nodes: (C,) trie nodes.

        Returns:
            (C,) natural logarithms of the factors.
        """
        assert self._boosts is not None
        owner, low, high = self._trie.intervals(nodes)
        return _maxima(self._boosts.best(low, high), owner, len(nodes))

    def likely_descendants(
        self, part: Frontier, worst: FloatArray, fill: int
    ) -> tuple[list[int], list[int]]:
        """Guess which nodes below the given prefixes the search will need next.

        The model can then process them in the same forward pass. Its probabilities for them are not
        known yet, so a node's probability given its parent is assumed to be the fraction of the
        parent's items that lie below the node.

        Args:
            part: the prefixes that the model is about to process.
            worst: (U,) score that an item must exceed to enter a user's list.
            fill: number of tokens up to which the forward pass should be filled.

        Returns:
            The guessed nodes, and the index of each guessed node's parent. An index below
            ``len(part)`` refers to a prefix in ``part``. A higher one refers to an earlier guess.
        """
        room = fill - int(self._trie.run_lengths(part.node).sum())
        nodes: list[int] = []
        parents: list[int] = []
        if room <= 0:
            return nodes, parents
        guesses = _Guesses(self._trie, self, worst)
        guesses.push_children(part.user, part.node, part.bound, np.arange(len(part)), room)
        while guesses.heap and room > 0:
            value, node, length, user, parent = heapq.heappop(guesses.heap)
            if length > room:
                continue
            room -= length
            nodes.append(node)
            parents.append(parent)
            index = np.array([len(part) + len(nodes) - 1])
            guesses.push_children(
                np.array([user]), np.array([node]), np.array([-value]), index, room
            )
        return nodes, parents


def _maxima(values: FloatArray, owner: IntArray, n: int) -> FloatArray:
    """For each of n nodes, return the maximum of its values, or -inf if it has none."""
    if len(owner) == n:
        return values
    greatest = np.full(n, -np.inf)
    np.maximum.at(greatest, owner, values)
    return greatest


class _Guesses:
    """A heap of the nodes that a search may need next, with the most probable node first.

    Attributes:
        heap: one tuple per node with the negative of its guessed log-probability, the node, the
            number of tokens between the node and its parent, its user, and its parent's index.
    """

    def __init__(self, trie: Trie, subtrees: Subtrees, worst: FloatArray) -> None:
        self._trie, self._subtrees, self._worst = trie, subtrees, worst
        self.heap: list[tuple[float, int, int, int, int]] = []

    def push_children(
        self, user: IntArray, node: IntArray, bound: FloatArray, index: IntArray, room: int
    ) -> None:
        """Add the promising children of some nodes to the heap.

        Args:
            user: index of each node's user.
            node: the nodes.
            bound: known or guessed log-probability of each node.
            index: index of each node among the prefixes and guesses, which its children store as
                the index of their parent.
            room: number of tokens that still fit into the forward pass. Children that need more
                tokens are left out.
        """
        trie, counts = self._trie, self._subtrees.counts
        child, count = trie.children(node)
        source = np.repeat(np.arange(len(node)), count)
        inner = ~trie.is_leaf(child)
        child, source = child[inner], source[inner]
        if not len(child):
            return
        below_child = counts(user[source], child)
        with np.errstate(divide="ignore"):
            share = np.log(below_child) - np.log(counts(user, node))[source]
        guess = bound[source] + share
        length = trie.run_lengths(child)
        likely = np.flatnonzero((guess > self._worst[user[source]] - _MARGIN) & (length <= room))
        likely = likely[np.argsort(-guess[likely], kind="stable")[:room]]
        arrays = (-guess, child, length, user[source], index[source])
        for entry in zip(*(a[likely].tolist() for a in arrays), strict=True):
            heapq.heappush(self.heap, entry)
