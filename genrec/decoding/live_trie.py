"""LiveTrie: a TitleTrie with edits laid over it. Knows ids and rows only.

A snapshot never changes: an edit gives a new one, and what runs on the old one goes on undisturbed.
Every base node on an edited path has a node of the overlay in its place, with its run, children and
positions written out; all below it that was not touched is shared. Nodes of the overlay are
numbered after the base's, and have the same number in the next snapshot, so that a parent's
children are written again only where some came, went or left the base. (Path copying, Driscoll et
al. 1989, Making Data Structures Persistent.)
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

_GONE = -1  # in place of a node below which nothing is left
_NEW = -1  # in place of a node that is not there yet
_NONE: IntArray = np.empty(0, dtype=np.int64)
_TOKEN, _LENGTH, _CHILDREN = range(3)  # what is known of each overlay node in one array
_MIN_DUE, _SHARE_DUE = 1000, 0.05


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the overlay.

    Attributes:
        run: the tokens on the way into it.
        children: (C,) node numbers, sorted by first token.
        spans: (I, 2) live positions below are spans[i, 0] to spans[i, 1] - 1, rising.
    """

    run: Tokens
    children: IntArray
    spans: IntArray


class LiveTrie:
    """A base trie of E nodes and N positions with edits; the interface is the base's.

    Positions below N are the base's; titles that were added since have positions from N upwards,
    and those of removed ones stay unused. The cost of an edit is its path's length times the
    fan-out, in array operations. Recursive: titles have hundreds of tokens at most.

    Attributes:
        base: what the edits lie over.
        root: the number of the root.
        n_items: rows that the trie holds.
        n_tokens: tokens of all titles, counted title by title.
        max_depth: tokens of the longest title, or of a longer one that was removed.
        n_edits: rows added and rows removed since the base was built.
    """

    def __init__(self, base: TitleTrie) -> None:
        """A snapshot without edits."""
        self.base = base
        self.root = base.root
        self.n_items, self.n_tokens, self.max_depth = base.n_items, base.n_tokens, base.max_depth
        self.n_edits = 0
        self._size = len(base)  # nodes of the overlay are numbered from here
        self._nodes: list[_Node | None] = []
        self._facts = np.zeros((0, 3), dtype=np.int64)  # at least one row a node
        self._inner = 0  # how many more inner tokens there are than in the base
        self._rows = _NONE  # of the positions from N upwards
        self._titles: list[Tokens] = []  # of the same
        self._moved = np.empty((0, 2), dtype=np.int64)  # rows, rising, and their positions or -1

    @property
    def n_positions(self) -> int:
        """All positions are below this number."""
        return self.base.n_items + len(self._rows)

    @property
    def inner_tokens(self) -> int:
        """As of ``TitleTrie``."""
        return self.base.inner_tokens + self._inner

    def due(self) -> bool:
        """Whether there are so many edits that a fresh TitleTrie should become the base."""
        edits = max(len(self._nodes), self.n_edits)
        return edits > max(_MIN_DUE, _SHARE_DUE * len(self.base))

    def edited(self, add: Mapping[int, Sequence[int]], remove: Iterable[int] = ()) -> LiveTrie:
        """A snapshot with some titles less and others more; this one stays as it is.

        Args:
            add: token ids of the titles of new rows; also of removed ones, which so are retitled.
            remove: rows that are there.

        Raises:
            DataError: a row to remove is not there, one to add is there, no title is left, or a
                title is empty, or a proper prefix of another.
        """
        titles = {int(row): _checked(row, title) for row, title in add.items()}
        rows = sorted(titles, key=lambda row: (titles[row], row))
        gone = np.unique(np.fromiter(remove, dtype=np.int64))
        places = self.places(gone)
        self._refuse(gone, places, rows)
        new = copy.copy(self)
        new._nodes, new._facts = self._nodes.copy(), self._facts.copy()
        cuts = sorted((self._title(p), p) for p in places.tolist())
        first = self.n_positions
        adds = [(titles[row], first + n) for n, row in enumerate(rows)]
        new._number(gone, rows, cuts, adds)
        if cuts:
            new.root = new._cut(new.root, 0, cuts)
        if adds:
            new.root = new._add(new.root, 0, adds)
        return new

    def _refuse(self, gone: IntArray, places: IntArray, rows: Sequence[int]) -> None:
        if (places < 0).any():
            msg = (
                f"Row {gone[places < 0][0]} to be removed is not in the trie. Expected rows that "
                "were added and not yet removed."
            )
            raise DataError(msg)
        new = np.array(rows, dtype=np.int64)
        twice = new[(self.places(new) >= 0) & ~np.isin(new, gone)]
        if len(twice):
            msg = (
                f"Row {twice[0]} to be added is in the trie already. To give it another title, "
                "remove it in the same edit."
            )
            raise DataError(msg)
        if self.n_items + len(new) == len(gone):
            msg = "A trie of no titles would be left. Expected at least one; add others with it."
            raise DataError(msg)

    def _number(
        self, gone: IntArray, rows: list[int], cuts: Sequence[Edit], adds: Sequence[Edit]
    ) -> None:
        """Writes down where rows are after an edit."""
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
        self._moved = latest[np.unique(latest[:, 0], return_index=True)[1]]  # the first of each

    # Search.

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """As of ``TitleTrie``."""
        mine = nodes >= self._size
        if not mine.any():
            return self.base.children(nodes)
        parts = [self._node(n).children for n in nodes[mine].tolist()]
        return _woven(mine, *self.base.children(nodes[~mine]), parts)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The intervals of positions below L nodes: index of the node, low and high of each.

        A node may have several, disjoint and rising; they hold live positions only.
        """
        mine = nodes >= self._size
        if not mine.any():
            return self.base.intervals(nodes)
        parts = [self._node(n).spans for n in nodes[mine].tolist()]
        _, low, high = self.base.intervals(nodes[~mine])
        plain = np.stack([low, high], axis=1)
        spans, count = _woven(mine, plain, np.ones(len(low), dtype=np.int64), parts)
        return np.repeat(np.arange(len(nodes)), count), spans[:, 0], spans[:, 1]

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """As of ``TitleTrie``."""
        mine = nodes >= self._size
        plain = self.base.is_leaf(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _CHILDREN) == 0, plain)

    def tokens(self, nodes: IntArray) -> IntArray:
        """As of ``TitleTrie``."""
        mine = nodes >= self._size
        plain = self.base.tokens(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _TOKEN), plain)

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """As of ``TitleTrie``."""
        mine = nodes >= self._size
        plain = self.base.run_lengths(np.where(mine, 0, nodes))
        return np.where(mine, self._fact(nodes, mine, _LENGTH), plain)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """As of ``TitleTrie``."""
        mine = nodes >= self._size
        runs = self.base.runs(np.where(mine, 0, nodes))
        for index in np.flatnonzero(mine).tolist():
            runs[index] = list(self._node(int(nodes[index])).run)
        return runs

    def rows_at(self, positions: IntArray) -> IntArray:
        """The catalog row at each position; at a removed one's, the row that was there."""
        mine = positions >= self.base.n_items
        rows = self.base.rows_at(np.where(mine, 0, positions))
        rows[mine] = self._rows[positions[mine] - self.base.n_items]
        return rows

    def positions_of(self, rows: IntArray) -> IntArray:
        """The positions of catalog rows; of those that are not in the trie, none."""
        places = self.places(np.asarray(rows, dtype=np.int64))
        return places[places >= 0]

    # Edits. What follows writes to a snapshot that nobody else has seen yet.

    def places(self, rows: IntArray) -> IntArray:
        """(R,) the position of each row, -1 for none."""
        known = (rows >= 0) & (rows < self.base.n_items)
        places = np.full(len(rows), -1)
        places[known] = self.base.positions_of(rows[known])
        if len(self._moved):
            index = np.minimum(np.searchsorted(self._moved[:, 0], rows), len(self._moved) - 1)
            moved = self._moved[index, 0] == rows
            places[moved] = self._moved[index[moved], 1]
        return places

    def _title(self, position: int) -> Tokens:
        if position >= self.base.n_items:
            return self._titles[position - self.base.n_items]
        return tuple(self.base.title(position))

    def _node(self, number: int) -> _Node:
        """A node of the overlay, or one of the base written out as one."""
        if number >= self._size:
            node = self._nodes[number - self._size]
            assert node is not None
            return node
        base, one = self.base, np.array([number])
        children = np.arange(int(base.first_child[number]), int(base.first_child[number + 1]))
        span = np.array([[int(base.low[number]), int(base.high[number])]])
        return _Node(tuple(base.runs(one)[0]), children, span)

    def _fact(self, nodes: IntArray, mine: BoolArray, which: int) -> IntArray:
        """(L,) one fact of those nodes that are the overlay's; anything for the others."""
        if not len(self._facts):
            return nodes
        return np.asarray(self._facts[np.where(mine, nodes - self._size, 0), which])

    def _forget(self, number: int) -> None:
        """Takes a node away, or from the base's view of it."""
        if number == _NEW:
            return
        node = self._node(number)
        self._inner -= len(node.run) if len(node.children) else 0
        if number >= self._size:
            self._nodes[number - self._size] = None

    def _put(self, number: int, node: _Node) -> int:
        """Puts a node in place of another; gives its number, the same if it is the overlay's."""
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
        """Takes titles away below a node.

        Args:
            number: of the node.
            depth: tokens above its run.
            cuts: the titles, sorted.

        Returns:
            What stands in its place, or _GONE.
        """
        node, is_root = self._node(number), number == self.root
        run, children = node.run, node.children
        spans = _without(node.spans, [place for _, place in cuts])
        if len(children):
            children = self._below(children, depth + len(run), cuts, self._cut)
        if not len(spans) and not is_root:
            self._forget(number)
            return _GONE
        if len(children) == 1 and not is_root:
            only = self._node(int(children[0]))
            self._forget(int(children[0]))
            run, children = run + only.run, only.children
        return self._put(number, _Node(run, children, spans))

    def _add(self, number: int, depth: int, adds: Sequence[Edit]) -> int:
        """Puts titles below a node.

        Args:
            number: of the node, or _NEW for one that holds these titles only.
            depth: tokens above its run.
            adds: the titles, sorted; their token at depth is the first of the node's run.

        Returns:
            What stands in its place.

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
        shared = min(_common(run, title[depth:]) for title, _ in adds)
        depth += shared
        whole = _with(node.spans, [place for _, place in adds])
        is_leaf = not len(children) and not is_root
        if is_leaf and shared == len(run):
            if any(len(title) > depth for title, _ in adds):
                raise prefix_error(adds[0][0][:depth])
            return self._put(number, _Node(run, children, whole))
        if shared < len(run) and number != _NEW:
            children = np.array([self._put(_NEW, _Node(run[shared:], children, node.spans))])
        if any(len(title) == depth for title, _ in adds):
            raise prefix_error(adds[0][0][:depth])
        children = self._below(children, depth, adds, self._add)
        return self._put(number, _Node(run[:shared], children, whole))

    def _below(
        self,
        children: IntArray,
        depth: int,
        edits: Sequence[Edit],
        edit: Callable[[int, int, Sequence[Edit]], int],
    ) -> IntArray:
        """A node's children after an edit of each that a title's token at depth leads to."""
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


def _checked(row: int, title: Sequence[int]) -> Tokens:
    tokens = tuple(int(token) for token in title)
    if row < 0:
        msg = f"Row {row} to be added. Expected 0 or more."
        raise DataError(msg)
    if not tokens:
        msg = f"The title of row {row} has no tokens. Expected a terminator at least."
        raise DataError(msg)
    if min(tokens) < 0:
        msg = f"Token id {min(tokens)} in a title. Expected 0 or more."
        raise DataError(msg)
    return tokens


def _common(one: Tokens, two: Tokens) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _without(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Intervals without some of their positions."""
    gone = np.array(positions, dtype=np.int64)
    low = np.sort(np.concatenate([spans[:, 0], gone + 1]), kind="stable")
    high = np.sort(np.concatenate([spans[:, 1], gone]), kind="stable")
    return np.stack([low, high], axis=1)[low < high]


def _with(spans: IntArray, positions: Sequence[int]) -> IntArray:
    """Intervals with more positions, which are above all others."""
    new = np.sort(np.array(positions, dtype=np.int64))
    low, high = np.append(spans[:, 0], new), np.append(spans[:, 1], new + 1)
    parts = low[1:] != high[:-1]
    return np.stack([low[np.append(True, parts)], high[np.append(parts, True)]], axis=1)


def _woven(
    mine: BoolArray, plain: npt.NDArray[np.int64], plain_count: IntArray, parts: list[IntArray]
) -> tuple[IntArray, IntArray]:
    """Entries of L nodes one after the other, and (L,) how many each has.

    Args:
        mine: (L,) which nodes' entries are in parts.
        plain: entries of the others.
        plain_count: how many each of those has.
        parts: entries of each that is.
    """
    count = np.empty(len(mine), dtype=np.int64)
    count[~mine], count[mine] = plain_count, [len(p) for p in parts]
    start = np.cumsum(count) - count
    whole = np.empty((int(count.sum()), *plain.shape[1:]), dtype=np.int64)
    whole[ranges(start[~mine], plain_count)] = plain
    whole[ranges(start[mine], count[mine])] = np.concatenate(parts)
    return whole, count
