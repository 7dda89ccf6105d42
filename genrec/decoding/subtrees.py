"""Count the allowed items and sum the prior weights below the nodes of a trie.

This module deals with nodes, positions and users, not with a model's probabilities.
"""

from __future__ import annotations

import numpy as np

from genrec.decoding.frontier import Frontier
from genrec.decoding.normalizers import group_logsumexp
from genrec.decoding.types import Allowed, Options, Prior, Trie
from genrec.types import FloatArray, IntArray

# A prefix may be processed in advance if its guessed score is at most this many nats below the
# score of the last item in the list.
_MARGIN = 1.0
_LEAST = -50.0  # the logarithm of a share that is too small to matter


class Subtrees:
    """Computes totals over the items whose titles lie below trie nodes, for each of U users."""

    def __init__(
        self,
        trie: Trie,
        allowed: Allowed | None,
        prior: Prior | None,
        options: Options,
    ) -> None:
        """Store the trie, the filters, the prior and the options.

        Args:
            trie: the catalog's trie.
            allowed: the items that may be returned to each user; None to allow all items.
            prior: the weights of the items for each user, or None.
            options: the search options.
        """
        self._trie, self._allowed, self._prior, self._options = trie, allowed, prior, options

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
        assert self._options.boosts is not None
        owner, low, high = self._trie.intervals(nodes)
        return _maxima(self._options.boosts.best(low, high), owner, len(nodes))

    def likely_descendants(
        self, part: Frontier, worst: FloatArray, fill: int
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Guess which nodes below the given prefixes the search will need next.

        The model can then process them in the same forward pass. Its probabilities for them are not
        known yet, so they are guessed; see ``_log_shares``.

        Args:
            part: the prefixes that the model is about to process.
            worst: (U,) score that an item must exceed to enter a user's list.
            fill: number of tokens up to which the forward pass should be filled.

        Returns:
            The users and the guessed nodes, and the index of each guessed node's parent. An index
            below ``len(part)`` refers to a prefix in ``part``. A higher one refers to an earlier guess.
        """
        n, room = len(part), fill - int(self._trie.run_lengths(part.node).sum())
        user, node, value = part.user, part.node, part.bound
        parent, length = np.full(n, -1), np.zeros(n, dtype=np.int64)
        fresh, order = np.arange(n), np.empty(0, dtype=np.int64)
        asked = np.zeros(n, dtype=bool)
        while len(fresh) and room > 0:
            asked[fresh] = True
            child, source, guess, size = self._likely_children(
                user[fresh], node[fresh], value[fresh], worst, room
            )
            user, node = np.append(user, user[fresh][source]), np.append(node, child)
            value, parent = np.append(value, guess), np.append(parent, fresh[source])
            length = np.append(length, size)
            asked = np.append(asked, np.zeros(len(child), dtype=bool))
            # A node is never likelier than its parent, so those chosen include their parents.
            order = n + np.argsort(-value[n:], kind="stable")
            order = order[np.cumsum(length[order]) <= room]
            fresh = order[~asked[order]]
        place = np.arange(len(node))
        place[order] = np.arange(n, n + len(order))
        return user[order], node[order], place[parent[order]]

    def _likely_children(
        self, user: IntArray, node: IntArray, value: FloatArray, worst: FloatArray, room: int
    ) -> tuple[IntArray, IntArray, FloatArray, IntArray]:
        """Find the children of L nodes that may be needed and are not the end of a title.

        Args:
            user: (L,) user of each node.
            node: (L,) trie nodes.
            value: (L,) known or guessed bound of each node.
            worst: (U,) score that an item must exceed to enter a user's list.
            room: maximum number of tokens of a child.

        Returns:
            The children, the index of each child's parent among the L nodes, the guessed bounds,
            and the numbers of tokens.
        """
        trie = self._trie
        child, count = trie.children(node)
        source = np.repeat(np.arange(len(node)), count)
        guess = value[source] + self._log_shares(user, node, child, source, count)
        length = trie.run_lengths(child)
        likely = np.flatnonzero(
            (guess > worst[user[source]] - _MARGIN) & (length <= room) & ~trie.is_leaf(child)
        )
        likely = likely[np.argsort(-guess[likely], kind="stable")[:room]]
        return child[likely], source[likely], guess[likely], length[likely]

    def _log_shares(
        self, user: IntArray, node: IntArray, child: IntArray, source: IntArray, count: IntArray
    ) -> FloatArray:
        """Guess the logarithm of the probability of each of C children, given its parent.

        The model's probability is guessed by the share of the parent's items that lie below the
        child. If there is a prior, its weights are known.

        Args:
            user: (L,) user of each parent.
            node: (L,) the parents.
            child: (C,) the children of all parents.
            source: (C,) index of each child's parent.
            count: (L,) number of children of each parent.
        """
        options, owner = self._options, user[source]
        items = self.counts(owner, child)
        with np.errstate(divide="ignore", invalid="ignore"):  # there may be no items below
            share = np.log(items) - np.log(self.counts(user, node))[source]
            if self._prior is None:
                return share
            if options.fusion == "score":
                best = self.best_prior(owner, child) - self.best_prior(user, node)[source]
                return np.asarray(share + options.beta * best)
        share = np.where(items > 0, share, _LEAST) / options.temperature
        share += options.beta * np.log(self.prior_mass(owner, child))
        share -= group_logsumexp(share, np.cumsum(count) - count, source)
        return np.where(items > 0, share, -np.inf)


def _maxima(values: FloatArray, owner: IntArray, n: int) -> FloatArray:
    """For each of n nodes, return the maximum of its values, or -inf if it has none."""
    if len(owner) == n:
        return values
    greatest = np.full(n, -np.inf)
    np.maximum.at(greatest, owner, values)
    return greatest
