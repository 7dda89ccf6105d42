"""Add titles to a TitleTrie and remove titles from it without rebuilding it.

The trie that is edited is called the base, and it never changes. An edit returns a new ``LiveTrie``
and does not disturb searches that use an older one. The nodes on the path to an edited title are
replaced by new nodes, which form the overlay. All other nodes are shared with the base. Overlay
nodes are numbered after the nodes of the base, and they keep their numbers in later edits. A node's
list of children is therefore rewritten only when a child is added, removed, or replaced with an
overlay node for the first time. This technique is called path copying (Driscoll et al. 1989, Making
Data Structures Persistent). This module deals with token ids and catalog rows only, not with text.
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

_GONE = -1  # stands for a node that was removed because there are no more titles below it
_NEW = -1  # stands for a node that does not exist yet
_NONE: IntArray = np.empty(0, dtype=np.int64)
_TOKEN, _LENGTH, _CHILDREN = range(3)  # columns of LiveTrie._facts
# A new base is due after this number of edits, or this fraction of the base's nodes if it is more.
_MIN_DUE, _SHARE_DUE = 1000, 0.05


@dataclass(frozen=True, slots=True)
class _Node:
    """A node that replaces a node of the base, or that was added by an edit.

    Attributes:
        run: tokens between the node's parent and the node.
        children: (C,) numbers of the node's C children, sorted by the first tokens of their runs.
        spans: (I, 2) intervals that contain the positions of all titles below the node, in
            ascending order. Interval i goes from spans[i, 0] to spans[i, 1] - 1.
    """

    run: Tokens
    children: IntArray
    spans: IntArray


class LiveTrie:
    """An immutable trie that consists of a TitleTrie, called the base, and edits to it.

    It is searched like a ``TitleTrie``, in which each title has a position. Titles of the base keep
    their positions, added titles get new positions after them, and the positions of removed titles
    stay unused. The cost of an edit is proportional to the number of nodes on the path to the
    title, times the number of children per node. Edits recurse once for each node on the path,
    which is safe for titles of hundreds of tokens.

    Attributes:
        base: the trie to which the edits apply.
        root: number of the root node.
        n_items: number of items (catalog rows) whose titles are in the trie.
        n_tokens: total number of tokens in all titles.
        max_depth: number of tokens in the longest title that the trie has ever contained.
        n_edits: number of rows added and removed since the base was built.
    """

    def __init__(self, base: TitleTrie) -> None:
        """Create a trie without edits.

        Args:
            base: the trie to which later edits will apply.
        """
        self.base = base
        self.root = base.root
        self.n_items, self.n_tokens, self.max_depth = base.n_items, base.n_tokens, base.max_depth
        self.n_edits = 0
        self._size = len(base)  # the number of the first overlay node
        self._nodes: list[_Node | None] = []  # the overlay; None for a node that was removed
        # For each overlay node: the first token of its run, the length of its run, and the number
        # of its children. There may be spare rows at the end.
        self._facts = np.zeros((0, 3), dtype=np.int64)
        self._inner = 0  # how many more inner tokens there are than in the base
        self._rows = _NONE  # catalog row of each added position
        self._titles: list[Tokens] = []  # title at each added position
        # For each row that was added or removed, sorted by row: the row, and its position or -1.
        self._moved = np.empty((0, 2), dtype=np.int64)

    @property
    def n_positions(self) -> int:
        """Return the number of positions, including the unused ones of removed titles."""
        return self.base.n_items + len(self._rows)

    @property
    def inner_tokens(self) -> int:
        """Return the number of tokens that a model must process to score every title."""
        return self.base.inner_tokens + self._inner

    def due(self) -> bool:
        """Check whether there have been enough edits that a new TitleTrie should be built."""
        edits = max(len(self._nodes), self.n_edits)
        return edits > max(_MIN_DUE, _SHARE_DUE * len(self.base))

    def edited(self, add: Mapping[int, Sequence[int]], remove: Iterable[int] = ()) -> LiveTrie:
        """Return a new trie in which some titles have been removed and others added.

        Args:
            add: the token ids of each title to add, keyed by catalog row. A row that is also in
                ``remove`` gets a new title.
            remove: catalog rows to remove.

        Raises:
            DataError: a row to remove is not in the trie, a row to add is already in it, no titles
                would be left, or a title is empty or a proper prefix of another.
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
        """Update this trie's counts, titles and positions for an edit.

        Args:
            gone: the catalog rows to remove.
            rows: the catalog rows to add.
            cuts: the titles to remove, with their positions.
            adds: the titles to add, with their positions, in the order of ``rows``.
        """
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
        """Return the children of all given nodes in one array, and the number of children of each."""
        mine = nodes >= self._size
        if not mine.any():
            return self.base.children(nodes)
        parts = [self._node(n).children for n in nodes[mine].tolist()]
        return _interleave(mine, *self.base.children(nodes[~mine]), parts)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the intervals of positions of the titles below each of L nodes.

        A node may have several intervals, because the positions of removed titles are left out. The
        intervals of a node are disjoint and in ascending order.

        Args:
            nodes: (L,) nodes.

        Returns:
            Three arrays with one entry per interval: the index of the node in ``nodes``, the first
            position, and the position after the last one.
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
        """Return a mask of the given nodes that is True where a title ends."""
        mine = nodes >= self._size
        plain = self.base.is_leaf(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _CHILDREN) == 0, plain)

    def tokens(self, nodes: IntArray) -> IntArray:
        """Return the first of the tokens between each node and its parent; 0 for the root."""
        mine = nodes >= self._size
        plain = self.base.tokens(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _TOKEN), plain)

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """Return the number of tokens between each node and its parent."""
        mine = nodes >= self._size
        plain = self.base.run_lengths(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _LENGTH), plain)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """Return the tokens between each node and its parent; only the root has none."""
        mine = nodes >= self._size
        runs = self.base.runs(np.where(mine, 0, nodes))
        for index in np.flatnonzero(mine).tolist():
            runs[index] = list(self._node(int(nodes[index])).run)
        return runs

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each of the given positions.

        For the position of a removed title, this is the row that the title had.
        """
        mine = positions >= self.base.n_items
        rows = self.base.rows_at(np.where(mine, 0, positions))
        rows[mine] = self._rows[positions[mine] - self.base.n_items]
        return rows

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the positions of the given catalog rows, leaving out rows not in the trie."""
        positions = self.find_positions(np.asarray(rows, dtype=np.int64))
        return positions[positions >= 0]

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the position of each of the given catalog rows; -1 if a row is not in the trie."""
        known = (rows >= 0) & (rows < self.base.n_items)
        positions = np.full(len(rows), -1)
        positions[known] = self.base.positions_of(rows[known])
        if len(self._moved):
            index = np.minimum(np.searchsorted(self._moved[:, 0], rows), len(self._moved) - 1)
            moved = self._moved[index, 0] == rows
            positions[moved] = self._moved[index[moved], 1]
        return positions

    # Edits. The methods below modify a new trie before ``edited`` returns it.

    def _title(self, position: int) -> Tokens:
        if position >= self.base.n_items:
            return self._titles[position - self.base.n_items]
        return tuple(self.base.title(position))

    def _node(self, number: int) -> _Node:
        """Return the node with the given number, converting a node of the base to a ``_Node``."""
        if number >= self._size:
            node = self._nodes[number - self._size]
            assert node is not None
            return node
        base, one = self.base, np.array([number])
        children = np.arange(int(base.first_child[number]), int(base.first_child[number + 1]))
        span = np.array([[int(base.low[number]), int(base.high[number])]])
        return _Node(tuple(base.runs(one)[0]), children, span)

    def _fact(self, nodes: IntArray, mine: BoolArray, which: int) -> IntArray:
        """Look up a column of ``_facts`` for those of the given nodes that are in the overlay.

        ``mine`` is a mask of these nodes. The values returned for other nodes are meaningless.
        """
        if not len(self._facts):
            return nodes
        return np.asarray(self._facts[np.where(mine, nodes - self._size, 0), which])

    def _forget(self, number: int) -> None:
        """Remove a node that is no longer part of the trie, and stop counting its tokens."""
        if number == _NEW:
            return
        node = self._node(number)
        self._inner -= len(node.run) if len(node.children) else 0
        if number >= self._size:
            self._nodes[number - self._size] = None

    def _put(self, number: int, node: _Node) -> int:
        """Replace a node, or add one if ``number`` is _NEW, and return the new node's number.

        A node that replaces a node of the overlay keeps its number.
        """
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
            depth: number of tokens that the titles have before the node's run.
            cuts: titles to remove with their positions, in sorted order.

        Returns:
            The number of the node that replaces the old one, or _GONE if there are no more titles
            below it.
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
            depth: number of tokens that the titles have before the node's run.
            adds: titles to add with their positions, in sorted order. All of them have the first
                token of the node's run at index ``depth``.

        Returns:
            The number of the node that replaces the old one.

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
        """Apply edits to the children of a node.

        Args:
            children: numbers of the children.
            depth: index of the token in a title that decides to which child the title belongs.
            edits: titles with their positions, in sorted order.
            edit: the method that applies edits to one child, ``_cut`` or ``_add``.

        Returns:
            The numbers of the new children.
        """
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
        msg = f"Row {row} is negative. Expected row numbers of at least 0."
        raise DataError(msg)
    if not tokens:
        msg = f"The title of row {row} has no tokens. Expected at least the terminator."
        raise DataError(msg)
    if min(tokens) < 0:
        msg = f"Token id {min(tokens)} in a title is negative. Expected token ids of at least 0."
        raise DataError(msg)
    return tokens


def _common_length(one: Tokens, two: Tokens) -> int:
    """Return the length of the longest common prefix of two token sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _remove_positions(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Remove positions from intervals, which may split an interval into several.

    Args:
        spans: (I, 2) intervals in ascending order. Each consists of its first position and the
            position after its last one.
        positions: the positions to remove, all of which are in the intervals.

    Returns:
        The remaining intervals in the same form.
    """
    gone = np.array(positions, dtype=np.int64)
    low = np.sort(np.concatenate([spans[:, 0], gone + 1]), kind="stable")
    high = np.sort(np.concatenate([spans[:, 1], gone]), kind="stable")
    return np.stack([low, high], axis=1)[low < high]


def _append_positions(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Add positions to intervals, merging intervals that become adjacent.

    Args:
        spans: intervals in the form that ``_remove_positions`` describes.
        positions: the positions to add, all of which are higher than those in the intervals.
    """
    new = np.sort(np.array(positions, dtype=np.int64))
    low, high = np.append(spans[:, 0], new), np.append(spans[:, 1], new + 1)
    parts = low[1:] != high[:-1]
    return np.stack([low[np.append(True, parts)], high[np.append(parts, True)]], axis=1)


def _interleave(
    mine: BoolArray, plain: npt.NDArray[np.int64], plain_count: IntArray, parts: list[IntArray]
) -> tuple[IntArray, IntArray]:
    """Merge data about L nodes that come partly from the base and partly from the overlay.

    A node may have any number of entries, for example one for each of its children.

    Args:
        mine: (L,) mask of the nodes that are in the overlay.
        plain: entries of all nodes in the base, concatenated.
        plain_count: number of entries of each node in the base.
        parts: entries of each node in the overlay.

    Returns:
        The entries of all nodes in node order, and the (L,) number of entries of each node.
    """
    count = np.empty(len(mine), dtype=np.int64)
    count[~mine], count[mine] = plain_count, [len(p) for p in parts]
    start = np.cumsum(count) - count
    whole = np.empty((int(count.sum()), *plain.shape[1:]), dtype=np.int64)
    whole[ranges(start[~mine], plain_count)] = plain
    whole[ranges(start[mine], count[mine])] = np.concatenate(parts)
    return whole, count
