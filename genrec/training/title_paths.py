"""List the choices that lead to each title in a trie (a prefix tree of token ids).

A choice is made at every node on the path to the title that has two or more children. This module
deals with tries and catalog rows, not with texts.
"""

from __future__ import annotations

import numpy as np

from genrec.decoding.trie import TitleTrie, ranges
from genrec.types import IntArray

_NO_CHOICE = 1  # a node with this many children or fewer leaves no choice


class TitlePaths:
    """The choices on the path through the trie to the title of each catalog row.

    The choices of all titles are stored one after another in arrays. N is the number of catalog
    rows, and S is the total number of choices.

    Attributes:
        trie: the trie of the titles.
        start: (N + 1,) the index of each row's first choice, followed by S. A row that is not in
            the trie has no choices.
        node: (S,) the node at which the choice is made.
        choice: (S,) the index of the chosen child among the children of the node.
        offset: (S,) the index, within the title, of the token that makes the choice. The model must
            process all tokens before it.
        copies: (N,) the number of rows that share the title; 0 for a row that is not in the trie.
        needed: (N,) the number of tokens of the title that the model must process to compute the
            title's probability.
    """

    def __init__(self, trie: TitleTrie, kept: IntArray | None = None, n: int | None = None) -> None:
        """Collect the choices by walking up from every leaf of the trie.

        Args:
            trie: a trie of the titles of all catalog rows, or of some of them.
            kept: (n_items,) the catalog row of each of the trie's items; None if the trie covers
                the whole catalog.
            n: the number of catalog rows; None if the trie covers the whole catalog.
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
        while low < high:  # level by level
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
        """Find the choices that lead to the titles of some catalog rows.

        Args:
            rows: (R,) catalog rows.

        Returns:
            The indices of the choices of all rows, in the order of the rows; and the (R,) numbers
            of choices per row.
        """
        count = self.start[rows + 1] - self.start[rows]
        return ranges(self.start[rows], count), count
