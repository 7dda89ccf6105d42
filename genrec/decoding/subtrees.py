"""Subtrees: how many allowed items and how much prior weight lie below the nodes of a trie.

Knows nodes, positions and users, nothing of a model's probabilities.
"""

from __future__ import annotations

import heapq

import numpy as np

from genrec.decoding.frontier import Frontier
from genrec.decoding.types import Allowed, Prior, Trie
from genrec.types import FloatArray, IntArray

_MARGIN = 1.0  # nats below the last listed score at which a prefix is still worth a guess


class Subtrees:
    """Totals over the items below trie nodes, for each of U users."""

    def __init__(self, trie: Trie, allowed: Allowed | None, prior: Prior | None) -> None:
        """Keep the sources of the totals.

        Args:
            trie: the catalog.
            allowed: the items that each user may be given; None for all.
            prior: the items' weights for each user, or None.
        """
        self._trie, self._allowed, self._prior = trie, allowed, prior

    def counts(self, user: IntArray, nodes: IntArray) -> IntArray:
        """Return how many items below each node may be returned to its user, as (C,)."""
        owner, low, high = self._trie.intervals(nodes)
        if self._allowed is None:
            count = high - low
        else:
            count = self._allowed.counts(user[owner], low, high)
        if len(owner) == len(nodes):
            return count
        return np.bincount(owner, count, len(nodes)).astype(np.int64)

    def prior_mass(self, user: IntArray, nodes: IntArray) -> FloatArray:
        """Return the total prior weight below each node, as (C,)."""
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        mass = self._prior.mass(user[owner], low, high)
        if len(owner) > len(nodes):
            mass = np.bincount(owner, mass, len(nodes)).astype(np.float64)
        return mass

    def best_prior(self, user: IntArray, nodes: IntArray) -> FloatArray:
        """Return the log of the greatest prior weight below each node, as (C,)."""
        assert self._prior is not None
        owner, low, high = self._trie.intervals(nodes)
        best = self._prior.best(user[owner], low, high)
        if len(owner) == len(nodes):
            return best
        greatest = np.full(len(nodes), -np.inf)
        np.maximum.at(greatest, owner, best)
        return greatest

    def likely_descendants(
        self, part: Frontier, worst: FloatArray, fill: int
    ) -> tuple[list[int], list[int]]:
        """Guess which descendants of the given prefixes the search will follow next.

        The model's opinion of them is not known yet. So each node is assumed to be as likely,
        given its parent, as its share of the items there.

        Args:
            part: prefixes that are about to be read.
            worst: (U,) score that an item must exceed to enter a user's list.
            fill: number of tokens up to which the pass is filled.

        Returns:
            The guessed nodes, and for each the index of its parent: below ``len(part)`` an entry of
            ``part``, from there on an earlier guess.
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


class _Guesses:
    """A heap of nodes that may be followed next, the likeliest first.

    Attributes:
        heap: negative guessed log-probability, node, run length, user and index of the parent.
    """

    def __init__(self, trie: Trie, subtrees: Subtrees, worst: FloatArray) -> None:
        self._trie, self._subtrees, self._worst = trie, subtrees, worst
        self.heap: list[tuple[float, int, int, int, int]] = []

    def push_children(
        self, user: IntArray, node: IntArray, bound: FloatArray, index: IntArray, room: int
    ) -> None:
        """Push the promising children of nodes whose runs fit in the remaining room."""
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
