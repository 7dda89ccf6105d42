"""List the choices that lead to each title of a trie. Knows tries and rows, nothing of texts."""

from __future__ import annotations

import numpy as np

from genrec.decoding.trie import TitleTrie, ranges
from genrec.types import IntArray

_NO_CHOICE = 1  # at a node with at most so many children there is nothing to choose


class TitlePaths:
    """The choices on the way down the trie to each title: S steps of N catalog rows.

    Attributes:
        trie: the trie.
        start: (N + 1,) where each row's steps begin; a row that the trie lacks has none.
        node: (S,) the node whose children are chosen from.
        choice: (S,) the number of the chosen child.
        offset: (S,) the place in the title of the token that makes the choice; all tokens before
            it have to be read.
        copies: (N,) how many rows share the title; 0 for a row that the trie lacks.
        needed: (N,) how many tokens of the title have to be read to know its probability.
    """

    def __init__(self, trie: TitleTrie, kept: IntArray | None = None, n: int | None = None) -> None:
        """Collect the choices by walking up from every leaf.

        Args:
            trie: over the titles of all rows, or of some.
            kept: (n_items,) the catalog row of each of the trie's rows; None if they are the same.
            n: how many catalog rows there are; None for as many as the trie has.
        """
        self.trie = trie
        kept = np.arange(trie.n_items) if kept is None else kept
        n = trie.n_items if n is None else n
        first = trie.first_child.astype(np.int64)
        count = first[1:] - first[:-1]
        nodes = np.arange(len(trie))
        parent = np.concatenate([[-1], np.repeat(nodes, count)])
        length = trie.run_lengths(nodes)
        depth = np.zeros(len(trie), dtype=np.int64)
        low, high = 0, 1
        while low < high:  # one level after the other
            depth[low:high] = length[low:high] + np.where(low, depth[parent[low:high]], 0)
            low, high = high, int(trie.first_child[high])
        leaf = np.flatnonzero(count == 0)
        leaf = leaf[np.argsort(trie.low[leaf], kind="stable")]
        sizes = trie.high[leaf].astype(np.int64) - trie.low[leaf]
        at = np.repeat(leaf, sizes)[trie.positions_of(np.arange(trie.n_items))]
        parts: list[tuple[IntArray, IntArray]] = []
        row = np.arange(trie.n_items)
        below = at
        while len(row):
            above = parent[below]
            parts.append((row[count[above] > _NO_CHOICE], below[count[above] > _NO_CHOICE]))
            row, below = row[above > 0], above[above > 0]
        rows = np.concatenate([p[0] for p in parts[::-1]])  # from the top down
        lower = np.concatenate([p[1] for p in parts[::-1]])
        order = np.argsort(kept[rows], kind="stable")
        rows, lower = rows[order], lower[order]
        self.node = parent[lower]
        self.choice = lower - trie.first_child[self.node].astype(np.int64)
        self.offset = depth[self.node]
        self.start = np.concatenate([[0], np.cumsum(np.bincount(kept[rows], minlength=n))])
        self.copies = np.zeros(n, dtype=np.int64)
        self.copies[kept] = trie.high[at].astype(np.int64) - trie.low[at]
        self.needed = np.zeros(n, dtype=np.int64)
        np.maximum.at(self.needed, kept[rows], self.offset)

    def steps(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return the steps of R rows, one after the other, and (R,) how many each row has."""
        count = self.start[rows + 1] - self.start[rows]
        return ranges(self.start[rows], count), count
