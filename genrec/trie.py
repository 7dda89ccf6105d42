"""TitleTrie: the catalog's titles as a prefix tree in flat arrays. Knows token ids and rows only.

Nodes are numbered level by level, children of a node are neighbours sorted by token id, and the
leaves below a node are an interval of positions; ``order`` maps positions to catalog rows. The
layout (level order, compressed sparse rows) follows STATIC (https://arxiv.org/abs/2602.22647).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]


class TitleTrie:
    """A prefix tree over N token sequences.

    Attributes:
        token: (M,) the token id on the way into each of M nodes; -1 for node 0, the root.
        first_child: (M + 1,) children of node n are first_child[n] to first_child[n + 1] - 1.
        low, high: (M,) positions below node n are low[n] to high[n] - 1.
        depth: (M,) tokens from the root.
        order: (N,) catalog row at each position; rows of one title are neighbours, in row order.
        skip: (M,) where the forced run from n ends: the first node at or below n that is a leaf or
            has two or more children.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        """Builds the tree.

        Args:
            sequences: token ids of each row's title with its terminator; equal ones share a leaf.

        Raises:
            DataError: there are none, one is empty, or one is a proper prefix of another.
        """
        rows = [np.asarray(s, dtype=np.int32) for s in sequences]
        if not rows:
            msg = "A trie of no titles. Expected at least one; check the catalog."
            raise DataError(msg)
        length = np.array([len(r) for r in rows], dtype=np.int64)
        if not length.all():
            msg = f"Title {int(np.argmin(length))} has no tokens. Expected a terminator at least."
            raise DataError(msg)
        padded = np.full((len(rows), int(length.max()) + 1), -1, dtype=np.int32)
        padded[np.arange(padded.shape[1]) < length[:, None]] = np.fromiter(
            chain.from_iterable(rows), dtype=np.int32, count=int(length.sum())
        )
        order = np.lexsort(padded.T[::-1])
        padded, length = padded[order], length[order]
        shared = _shared_prefixes(padded, length)
        self.order: IntArray = order.astype(np.int64)
        self._build_levels(padded, length, shared)

    def _build_levels(self, padded: Int32Array, length: IntArray, shared: IntArray) -> None:
        """Numbers the nodes level by level; a node begins where the prefix so far is new."""
        n = len(length)
        token, low, high, depth = (
            [np.array([-1])],
            [np.array([0])],
            [np.array([n])],
            [np.array([0])],
        )
        for d in range(1, int(length.max()) + 1):
            begins = np.flatnonzero(shared < d)  # a new prefix of d tokens (or a shorter title)
            ends = np.append(begins[1:], n)
            real = length[begins] >= d
            token.append(padded[begins[real], d - 1].astype(np.int64))
            low.append(begins[real])
            high.append(ends[real])
            depth.append(np.full(int(real.sum()), d))
        self.token: IntArray = np.concatenate(token)
        self.low: IntArray = np.concatenate(low)
        self.high: IntArray = np.concatenate(high)
        self.depth: IntArray = np.concatenate(depth)
        self.first_child = self._children([len(level) for level in token])
        self.skip = self._skips()

    def _children(self, sizes: list[int]) -> IntArray:
        """(M + 1,) first children: a node's children begin at its low on the next level."""
        start = np.concatenate([[0], np.cumsum(sizes)])
        first = np.full(len(self.token) + 1, len(self.token), dtype=np.int64)
        for level in range(len(sizes) - 1):
            nodes = slice(start[level], start[level + 1])
            below = self.low[start[level + 1] : start[level + 2]]
            first[nodes] = start[level + 1] + np.searchsorted(below, self.low[nodes])
        return first

    def _skips(self) -> IntArray:
        skip = np.arange(len(self.token))
        single = np.flatnonzero(np.diff(self.first_child) == 1)[::-1]
        for d in range(int(self.depth.max()), -1, -1):
            nodes = single[self.depth[single] == d]
            skip[nodes] = skip[self.first_child[nodes]]
        return skip

    def __len__(self) -> int:
        """How many nodes there are, the root included."""
        return len(self.token)

    @property
    def n_items(self) -> int:
        """How many rows the trie holds."""
        return len(self.order)

    @property
    def max_depth(self) -> int:
        """The tokens of the longest title, terminator included."""
        return int(self.depth[-1])

    def children(self, node: int) -> IntArray:
        """The children of a node, sorted by token id; empty for a leaf."""
        return np.arange(self.first_child[node], self.first_child[node + 1])

    def is_leaf(self, nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Which of the nodes are leaves."""
        return np.asarray(self.first_child[nodes] == self.first_child[nodes + 1])

    def rows(self, node: int) -> IntArray:
        """The catalog rows below a node."""
        return self.order[self.low[node] : self.high[node]]

    def run(self, child: int, end: int) -> list[int]:
        """The tokens from the way into child down to end, a node on its forced run."""
        tokens = [int(self.token[child])]
        node = child
        while node != end:
            node = int(self.first_child[node])
            tokens.append(int(self.token[node]))
        return tokens

    def positions(self) -> IntArray:
        """(N,) the position of each catalog row: the inverse of ``order``."""
        positions = np.empty_like(self.order)
        positions[self.order] = np.arange(len(self.order))
        return positions


def _shared_prefixes(padded: Int32Array, length: IntArray) -> IntArray:
    """(N,) tokens that a sorted sequence shares with the one before it; its length if equal."""
    if len(length) == 1:
        return np.array([-1])
    differ = padded[1:] != padded[:-1]
    shared = np.where(differ.any(axis=1), differ.argmax(axis=1), padded.shape[1])
    prefix = (shared == length[:-1]) & (length[1:] > length[:-1])
    if prefix.any():
        where = int(np.argmax(prefix))
        msg = (
            f"Title tokens {padded[where, : length[where]].tolist()} are a prefix of another "
            "title's. Expected every title to end with a terminator that none contains."
        )
        raise DataError(msg)
    return np.concatenate([[-1], shared]).astype(np.int64)
