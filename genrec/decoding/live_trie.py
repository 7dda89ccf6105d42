"""Edit a TitleTrie without rebuilding it. Deals with token ids and rows only.

A snapshot never changes. An edit returns a new snapshot and does not disturb searches that use the
old one. Each base node on an edited path is replaced by an overlay node that lists its run,
children and positions. Snapshots share all subtrees that were not edited. Overlay nodes are
numbered after the nodes of the base and keep their numbers in later snapshots. So a parent's list
of children is rewritten only when a child is added, removed, or moved to the overlay for the first
time. This is path copying (Driscoll et al. 1989, Making Data Structures Persistent).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import numpy as np
import numpy.typing as npt

from genrec.decoding.trie import TitleTrie, prefix_error, ranges
from genrec.errors import DataError
from genrec.types import BoolArray, IntArray

Tokens = tuple[int, ...]
Edit = tuple[Tokens, int]  # a title's tokens and its position

_GONE = -1  # marks a node that was removed because there are no more titles below it
_NEW = -1  # marks a node that does not exist yet
_NONE: IntArray = np.empty(0, dtype=np.int64)
_TOKEN, _LENGTH, _CHILDREN = range(3)  # columns of the array of facts about overlay nodes
_MIN_DUE, _SHARE_DUE = 1000, 0.05


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the overlay.

    Attributes:
        run: tokens between the node's parent and the node.
        children: (C,) numbers of the child nodes, sorted by first token.
        spans: (I, 2) ascending intervals of the live positions below the node. Interval i runs
            from spans[i, 0] to spans[i, 1] - 1.
    """

    run: Tokens
    children: IntArray
    spans: IntArray


class LiveTrie:
    """A base trie of E nodes and N positions with edits, searched like a ``TitleTrie``.

    Positions below N belong to the base. Added titles get positions from N upwards, and the
    positions of removed titles stay unused. Measured in array operations, the cost of an edit is
    proportional to the length of its path times the fan-out. Edits recurse once per node of the
    path, which is safe for titles of hundreds of tokens.

    Attributes:
        base: trie to which the edits apply.
        root: number of the root node.
        n_items: number of catalog rows in the trie.
        n_tokens: total number of tokens in all titles. Shared prefixes count once for each title.
        max_depth: number of tokens in the longest title that the trie has ever contained.
        n_edits: number of rows added and removed since the base was built.
    """

    def __init__(self, base: TitleTrie) -> None:
        """Create a snapshot without edits."""
        self.base = base
        self.root = base.root
        self.n_items, self.n_tokens, self.max_depth = base.n_items, base.n_tokens, base.max_depth
        self.n_edits = 0
        self._size = len(base)  # the number of the first overlay node
        self._nodes: list[_Node | None] = []
        self._facts = np.zeros((0, 3), dtype=np.int64)  # one row per overlay node, plus spare rows
        self._inner = 0  # difference from the base in the number of inner tokens
        self._rows = _NONE  # catalog row of each position from N upwards
        self._titles: list[Tokens] = []  # title at each position from N upwards
        self._moved = np.empty((0, 2), dtype=np.int64)  # (row, position or -1), sorted by row

    @property
    def n_positions(self) -> int:
        """Return the number of positions, including unused ones."""
        return self.base.n_items + len(self._rows)

    @property
    def inner_tokens(self) -> int:
        """See ``TitleTrie.inner_tokens``."""
        return self.base.inner_tokens + self._inner

    def due(self) -> bool:
        """Check whether there are enough edits to justify rebuilding the base as a new TitleTrie."""
        edits = max(len(self._nodes), self.n_edits)
        return edits > max(_MIN_DUE, _SHARE_DUE * len(self.base))

    def edited(self, add: Mapping[int, Sequence[int]], remove: Iterable[int] = ()) -> LiveTrie:
        """Return a new snapshot with some titles removed and others added.

        Args:
            add: row -> token ids of its title. A row that is also in ``remove`` gets a new title.
            remove: rows to remove.

        Raises:
            DataError: a row to remove is missing, a row to add already exists, the trie would
                become empty, or a title is empty or a proper prefix of another.
        """
        titles = {int(row): _check_title(row, title) for row, title in add.items()}
        rows = sorted(titles, key=lambda row: (titles[row], row))
        gone = np.unique(np.fromiter(remove, dtype=np.int64))
        positions = self.find_positions(gone)
        self._check_edit(gone, positions, rows)
        new = copy.copy(self)
        new._nodes, new._facts = self._nodes.copy(), self._facts.copy()
        cuts = sorted((self._title(p), p) for p in positions.tolist())
        first = self.n_positions
        adds = [(titles[row], first + n) for n, row in enumerate(rows)]
        new._record_edit(gone, rows, cuts, adds)
        if cuts:
            new.root = new._cut(new.root, 0, cuts)
        if adds:
            new.root = new._add(new.root, 0, adds)
        return new

    def _check_edit(self, gone: IntArray, positions: IntArray, rows: Sequence[int]) -> None:
        if (positions < 0).any():
            msg = (
                f"Row {gone[positions < 0][0]} cannot be removed because it is not in the trie. "
                "Expected a row that was added and has not been removed."
            )
            raise DataError(msg)
        new = np.array(rows, dtype=np.int64)
        twice = new[(self.find_positions(new) >= 0) & ~np.isin(new, gone)]
        if len(twice):
            msg = (
                f"Row {twice[0]} cannot be added because it is already in the trie. To change its "
                "title, remove the row in the same edit."
            )
            raise DataError(msg)
        if self.n_items + len(new) == len(gone):
            msg = (
                "The edit would leave the trie with no titles. Expected at least one title; add "
                "others in the same edit."
            )
            raise DataError(msg)

    def _record_edit(
        self, gone: IntArray, rows: list[int], cuts: Sequence[Edit], adds: Sequence[Edit]
    ) -> None:
        """Update the counts, titles and positions to reflect an edit."""
        self.n_edits += len(cuts) + len(adds)
        self.n_items += len(adds) - len(cuts)
        self.n_tokens += sum(len(t) for t, _ in adds) - sum(len(t) for t, _ in cuts)
        self.max_depth = max([self.max_depth, *(len(t) for t, _ in adds)])
        self._titles = [*self._titles, *(t for t, _ in adds)]
        for _, place in cuts:
            if place >= self.base.n_items:
                self._titles[place - self.base.n_items] = ()
        self._rows = np.concatenate([self._rows, np.array(rows, dtype=np.int64)])
        moved = [(row, place) for row, (_, place) in zip(rows, adds, strict=True)]
        moved += [(row, -1) for row in gone.tolist()]
        latest = np.concatenate([np.array(moved, dtype=np.int64).reshape(-1, 2), self._moved])
        self._moved = latest[np.unique(latest[:, 0], return_index=True)[1]]  # first entry per row

    # Search.

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """See ``TitleTrie.children``."""
        mine = nodes >= self._size
        if not mine.any():
            return self.base.children(nodes)
        parts = [self._node(n).children for n in nodes[mine].tolist()]
        return _interleave(mine, *self.base.children(nodes[~mine]), parts)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the intervals of positions below L nodes as three arrays (node index, low, high).

        A node may have several intervals, which are disjoint and ascending. They contain only live
        positions.
        """
        mine = nodes >= self._size
        if not mine.any():
            return self.base.intervals(nodes)
        parts = [self._node(n).spans for n in nodes[mine].tolist()]
        _, low, high = self.base.intervals(nodes[~mine])
        plain = np.stack([low, high], axis=1)
        spans, count = _interleave(mine, plain, np.ones(len(low), dtype=np.int64), parts)
        return np.repeat(np.arange(len(nodes)), count), spans[:, 0], spans[:, 1]

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """See ``TitleTrie.is_leaf``."""
        mine = nodes >= self._size
        plain = self.base.is_leaf(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _CHILDREN) == 0, plain)

    def tokens(self, nodes: IntArray) -> IntArray:
        """See ``TitleTrie.tokens``."""
        mine = nodes >= self._size
        plain = self.base.tokens(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _TOKEN), plain)

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """See ``TitleTrie.run_lengths``."""
        mine = nodes >= self._size
        plain = self.base.run_lengths(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _LENGTH), plain)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """See ``TitleTrie.runs``."""
        mine = nodes >= self._size
        runs = self.base.runs(np.where(mine, 0, nodes))
        for index in np.flatnonzero(mine).tolist():
            runs[index] = list(self._node(int(nodes[index])).run)
        return runs

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each position; for a removed title, return its former row."""
        mine = positions >= self.base.n_items
        rows = self.base.rows_at(np.where(mine, 0, positions))
        rows[mine] = self._rows[positions[mine] - self.base.n_items]
        return rows

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the positions of the given catalog rows, skipping rows that are not in the trie."""
        positions = self.find_positions(np.asarray(rows, dtype=np.int64))
        return positions[positions >= 0]

    def find_positions(self, rows: IntArray) -> IntArray:
        """See ``TitleTrie.find_positions``."""
        known = (rows >= 0) & (rows < self.base.n_items)
        positions = np.full(len(rows), -1)
        positions[known] = self.base.positions_of(rows[known])
        if len(self._moved):
            index = np.minimum(np.searchsorted(self._moved[:, 0], rows), len(self._moved) - 1)
            moved = self._moved[index, 0] == rows
            positions[moved] = self._moved[index[moved], 1]
        return positions

    # Edits. The methods below modify a snapshot before any caller can see it.

    def _title(self, position: int) -> Tokens:
        if position >= self.base.n_items:
            return self._titles[position - self.base.n_items]
        return tuple(self.base.title(position))

    def _node(self, number: int) -> _Node:
        """Return an overlay node, or convert a base node to an overlay node."""
        if number >= self._size:
            node = self._nodes[number - self._size]
            assert node is not None
            return node
        base, one = self.base, np.array([number])
        children = np.arange(int(base.first_child[number]), int(base.first_child[number + 1]))
        span = np.array([[int(base.low[number]), int(base.high[number])]])
        return _Node(tuple(base.runs(one)[0]), children, span)

    def _fact(self, nodes: IntArray, mine: BoolArray, which: int) -> IntArray:
        """Return (L,) values from a column of ``_facts``. Values for base nodes are arbitrary."""
        if not len(self._facts):
            return nodes
        return np.asarray(self._facts[np.where(mine, nodes - self._size, 0), which])

    def _forget(self, number: int) -> None:
        """Remove an overlay node, or stop counting the tokens of a base node."""
        if number == _NEW:
            return
        node = self._node(number)
        self._inner -= len(node.run) if len(node.children) else 0
        if number >= self._size:
            self._nodes[number - self._size] = None

    def _put(self, number: int, node: _Node) -> int:
        """Replace a node and return the number of the new node. An overlay node keeps its number."""
        self._forget(number)
        if number < self._size:
            number = self._size + len(self._nodes)
            self._nodes.append(None)
            if len(self._nodes) > len(self._facts):
                more = np.zeros((len(self._facts) // 4 + 16, 3), dtype=np.int64)
                self._facts = np.concatenate([self._facts, more])
        index, n = number - self._size, len(node.run)
        self._nodes[index] = node
        self._facts[index] = (node.run[0] if n else 0, n, len(node.children))
        self._inner += n if len(node.children) else 0
        return number

    def _cut(self, number: int, depth: int, cuts: Sequence[Edit]) -> int:
        """Remove titles below a node.

        Args:
            number: number of the node.
            depth: number of title tokens before the node's run.
            cuts: titles to remove, in sorted order.

        Returns:
            The number of the replacement node, or _GONE.
        """
        node, is_root = self._node(number), number == self.root
        run, children = node.run, node.children
        spans = _remove_positions(node.spans, [place for _, place in cuts])
        if len(children):
            children = self._edit_children(children, depth + len(run), cuts, self._cut)
        if not len(spans) and not is_root:
            self._forget(number)
            return _GONE
        if len(children) == 1 and not is_root:
            only = self._node(int(children[0]))
            self._forget(int(children[0]))
            run, children = run + only.run, only.children
        return self._put(number, _Node(run, children, spans))

    def _add(self, number: int, depth: int, adds: Sequence[Edit]) -> int:
        """Add titles below a node.

        Args:
            number: number of the node, or _NEW to create a node for these titles only.
            depth: number of title tokens before the node's run.
            adds: titles to add, in sorted order. The node's run starts with the token that these
                titles have at index ``depth``.

        Returns:
            The number of the replacement node.

        Raises:
            DataError: a title is a proper prefix of another.
        """
        is_root = number == self.root
        if number == _NEW and len(adds) == 1:
            ((title, place),) = adds
            return self._put(number, _Node(title[depth:], _NONE, np.array([[place, place + 1]])))
        if number == _NEW:
            node = _Node(adds[-1][0][depth:], _NONE, _NONE.reshape(0, 2))
        else:
            node = self._node(number)
        run, children = node.run, node.children
        shared = min(_common_length(run, title[depth:]) for title, _ in adds)
        depth += shared
        whole = _append_positions(node.spans, [place for _, place in adds])
        is_leaf = not len(children) and not is_root
        if is_leaf and shared == len(run):
            if any(len(title) > depth for title, _ in adds):
                raise prefix_error(adds[0][0][:depth])
            return self._put(number, _Node(run, children, whole))
        if shared < len(run) and number != _NEW:
            children = np.array([self._put(_NEW, _Node(run[shared:], children, node.spans))])
        if any(len(title) == depth for title, _ in adds):
            raise prefix_error(adds[0][0][:depth])
        children = self._edit_children(children, depth, adds, self._add)
        return self._put(number, _Node(run[:shared], children, whole))

    def _edit_children(
        self,
        children: IntArray,
        depth: int,
        edits: Sequence[Edit],
        edit: Callable[[int, int, Sequence[Edit]], int],
    ) -> IntArray:
        """Apply each edit to a child, chosen by its token at ``depth``; return the new children."""
        groups = [(t, list(some)) for t, some in groupby(edits, key=lambda e: e[0][depth])]
        tokens = self.tokens(children)
        wanted = np.array([token for token, _ in groups])
        place = np.searchsorted(tokens, wanted)
        there = np.append(tokens, -1)[place] == wanted
        old = np.where(there, np.append(children, 0)[place], _NEW)
        new = np.array(
            [edit(n, depth, some) for n, (_, some) in zip(old.tolist(), groups, strict=True)]
        )
        if np.array_equal(old, new):
            return children
        children = children.copy()
        children[place[there]] = new[there]
        children = np.insert(children, place[~there], new[~there])
        return np.asarray(children[children != _GONE])


def _check_title(row: int, title: Sequence[int]) -> Tokens:
    tokens = tuple(int(token) for token in title)
    if row < 0:
        msg = f"Row {row} is negative. Expected row numbers of 0 or more."
        raise DataError(msg)
    if not tokens:
        msg = f"The title of row {row} has no tokens. Expected at least the terminator."
        raise DataError(msg)
    if min(tokens) < 0:
        msg = f"Token id {min(tokens)} in a title is negative. Expected token ids of 0 or more."
        raise DataError(msg)
    return tokens


def _common_length(one: Tokens, two: Tokens) -> int:
    """Return the length of the common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _remove_positions(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Remove positions from intervals."""
    gone = np.array(positions, dtype=np.int64)
    low = np.sort(np.concatenate([spans[:, 0], gone + 1]), kind="stable")
    high = np.sort(np.concatenate([spans[:, 1], gone]), kind="stable")
    return np.stack([low, high], axis=1)[low < high]


def _append_positions(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Add positions that are higher than all positions in the intervals."""
    new = np.sort(np.array(positions, dtype=np.int64))
    low, high = np.append(spans[:, 0], new), np.append(spans[:, 1], new + 1)
    parts = low[1:] != high[:-1]
    return np.stack([low[np.append(True, parts)], high[np.append(parts, True)]], axis=1)


def _interleave(
    mine: BoolArray, plain: npt.NDArray[np.int64], plain_count: IntArray, parts: list[IntArray]
) -> tuple[IntArray, IntArray]:
    """Merge the entries of base nodes and overlay nodes in node order.

    Args:
        mine: (L,) mask of the nodes that belong to the overlay.
        plain: concatenated entries of the base nodes.
        plain_count: number of entries per base node.
        parts: entries of each overlay node.

    Returns:
        The merged entries, and the (L,) number of entries per node.
    """
    count = np.empty(len(mine), dtype=np.int64)
    count[~mine], count[mine] = plain_count, [len(p) for p in parts]
    start = np.cumsum(count) - count
    whole = np.empty((int(count.sum()), *plain.shape[1:]), dtype=np.int64)
    whole[ranges(start[~mine], plain_count)] = plain
    whole[ranges(start[mine], count[mine])] = np.concatenate(parts)
    return whole, count
