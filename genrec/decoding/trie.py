"""Store the titles of a catalog as a compressed prefix tree (trie) in flat arrays.

A node is the root, a point where titles diverge, or the end of a title. The sequence of tokens
between a node and its parent is called the node's run. Nodes are numbered level by level, and the
children of a node are adjacent and sorted by token id. In sorted order, each title has a position,
so the titles below a node form an interval of positions. The array ``order`` maps positions to
catalog rows.

Numbering nodes by level and storing them as compressed sparse rows follows STATIC
(https://arxiv.org/abs/2602.22647). Keeping runs of tokens undivided follows PATRICIA (Morrison
1968). This module deals with token ids and catalog rows only, not with text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genrec import files
from genrec.errors import DataError
from genrec.types import BoolArray, IntArray

Ids = npt.NDArray[np.integer]
Chunk = tuple[Ids, IntArray]  # token ids of several titles in one array, and each title's length

_CHUNK = 50_000  # number of titles that are processed at a time
_ARRAYS = ("token", "first_child", "low", "high", "run_start", "run", "order")
FORMAT = "genrec-trie-1"


class TitleTrie:
    """A prefix tree with E nodes that holds the titles of N catalog rows as token sequences.

    A node is the root (node 0), a point where titles diverge, or the end of a title. The tokens
    between a node and its parent are the node's run. A title's position is its index in the sorted
    order of all titles.

    Attributes:
        token: (E,) first token of each node's run; 0 for the root, whose run is empty.
        first_child: (E + 1,) the children of node n are the nodes from first_child[n] to
            first_child[n + 1] - 1.
        low, high: (E,) the titles below node n have the positions from low[n] to high[n] - 1.
        run: tokens of all runs in node order, without the first token of each run.
        run_start: (E + 1,) run[run_start[n] : run_start[n + 1]] is the part of ``run`` that belongs
            to node n.
        order: (N,) catalog row at each position; rows with the same title are adjacent and sorted.
        max_depth: number of tokens in the longest title.
        n_tokens: total number of tokens in all titles.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        """Build the tree from the token ids of titles.

        Args:
            sequences: token ids of the title in each catalog row, including the terminator. Rows
                with the same title share a node.

        Raises:
            DataError: there are no titles, a title is empty, or one is a proper prefix of another.
        """
        self._build(_chunks(sequences))

    @classmethod
    def of_chunks(cls, chunks: Iterable[Chunk]) -> TitleTrie:
        """Build the tree from arrays, for catalogs that are too large for lists of token ids.

        Args:
            chunks: the titles in the order of the catalog's rows, several at a time. Each chunk is
                a pair of arrays: the concatenated token ids of its titles, and the number of tokens
                in each of them.

        Raises:
            DataError: there are no titles, a title is empty, or one is a proper prefix of another.
        """
        trie = cls.__new__(cls)
        trie._build(chunks)
        return trie

    def _build(self, chunks: Iterable[Chunk]) -> None:
        flat, start = _concatenate(chunks)
        order = _sort_titles(flat, start)
        flat, start = _reorder(flat, start, order)
        length = np.diff(start)
        shared = _shared_prefixes(flat, start)
        self.n_tokens = int(start[-1])
        self.max_depth = int(length.max())
        _refuse_prefixes(flat, start, shared)
        first = np.flatnonzero(shared < length)  # first position of each distinct title
        self._number_nodes(flat, start, first, shared[first], length)
        self.order = order.astype(_smallest_dtype(len(order)))

    def _number_nodes(
        self, flat: Ids, start: IntArray, first: IntArray, shared: IntArray, length: IntArray
    ) -> None:
        """Create the nodes level by level, and fill the arrays that describe them.

        Args:
            flat: tokens of the sorted titles.
            start: (N + 1,) index of each title's first token.
            first: (L,) first position of each distinct title.
            shared: (L,) number of leading tokens that each distinct title shares with the title
                before it.
            length: (N,) number of tokens in each title.
        """
        n = len(length)
        ends = np.append(first, n)
        low, high = np.array([0]), np.array([len(first)])  # each node's interval of distinct titles
        above, depth = np.array([0]), np.array([0])  # depths at which each node's run starts, ends
        lows, highs, counts, begins, stops = [low], [ends[high]], [], [low], [low]
        while len(low):
            inner = np.flatnonzero(depth < length[first[low]])
            # A child begins at each title that has no more tokens in common with the title before
            # it than the node's depth.
            size = high[inner] - low[inner]
            title = ranges(low[inner], size)
            source = np.repeat(inner, size)
            begin = (shared[title] <= depth[source]) | (title == low[source])
            child_low, parent = title[begin], source[begin]
            child_high = np.append(child_low[1:], 0)
            if len(parent):
                last = np.flatnonzero(np.append(parent[1:] != parent[:-1], True))
                child_high[last] = high[parent[last]]
            counts.append(np.bincount(parent, minlength=len(low)))
            above = depth[parent]
            low, high = child_low, child_high
            depth = _branching_depth(shared, low, high, length[first[low]])
            lows.append(first[low])
            highs.append(ends[high])
            begins.append(start[first[low]] + above)
            stops.append(start[first[low]] + depth)
        whole = [np.concatenate(arrays) for arrays in (lows, highs, begins, stops, counts)]
        self.low, self.high = (a.astype(_smallest_dtype(n)) for a in whole[:2])
        begin, stop, count = whole[2:]
        self.token = flat[begin]
        self.token[0] = 0
        begin[1:] += 1
        self.run = _take_ranges(flat, begin, stop - begin)
        self.run_start = _offsets(stop - begin)
        self.first_child = _offsets(np.append(count, np.zeros(len(begin) - len(count), int)), 1)

    root = 0
    _positions: Ids | None = None

    def __len__(self) -> int:
        """Return the number of nodes, including the root."""
        return len(self.token)

    @property
    def n_items(self) -> int:
        """Return the number of items (catalog rows) whose titles are in the trie."""
        return len(self.order)

    @property
    def n_positions(self) -> int:
        """Return the number of positions, which is one for each item."""
        return len(self.order)

    @property
    def n_bytes(self) -> int:
        """Return the size of the arrays in bytes."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    @property
    def inner_tokens(self) -> int:
        """Return the number of tokens that a model must process to score every title."""
        inner = np.flatnonzero(np.diff(self.first_child) > 0)
        lengths = self.run_start[inner + 1].astype(np.int64) - self.run_start[inner] + 1
        return int(lengths[inner > 0].sum())

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """List the children of L nodes.

        Args:
            nodes: (L,) nodes.

        Returns:
            The children of all nodes in one array, and the (L,) number of children of each node.
        """
        first = self.first_child[nodes].astype(np.int64)
        count = self.first_child[nodes + 1].astype(np.int64) - first
        return ranges(first, count), count

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """Return a mask of the given nodes that is True where a title ends."""
        return np.asarray(self.first_child[nodes] == self.first_child[nodes + 1], dtype=np.bool_)

    def tokens(self, nodes: IntArray) -> IntArray:
        """Return the first token of each node's run, which leads from the node's parent to it."""
        return np.asarray(self.token[nodes], dtype=np.int64)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the interval of positions of the titles below each of L nodes.

        Args:
            nodes: (L,) nodes.

        Returns:
            Three arrays with one entry per interval: the index of the node in ``nodes``, the first
            position, and the position after the last one. Here, each node has one interval.
        """
        low, high = self.low[nodes].astype(np.int64), self.high[nodes].astype(np.int64)
        return np.arange(len(low)), low, high

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each of the given positions."""
        return self.order[positions].astype(np.int64)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """Return the tokens between each node and its parent; only the root has none."""
        first, start = self.token[nodes].tolist(), self.run_start[nodes].tolist()
        stop = self.run_start[nodes + 1].tolist()
        run = self.run
        return [
            [] if node == 0 else [token, *run[low:high].tolist()] if high > low else [token]
            for node, token, low, high in zip(nodes.tolist(), first, start, stop, strict=True)
        ]

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """Return the number of tokens between each node and its parent."""
        rest = self.run_start[nodes + 1].astype(np.int64) - self.run_start[nodes]
        return np.where(nodes == 0, 0, rest + 1)

    def rows(self, node: int) -> IntArray:
        """Return the catalog rows of all titles below a node."""
        return np.asarray(self.order[self.low[node] : self.high[node]], dtype=np.int64)

    def positions(self) -> Ids:
        """Return the (N,) positions of the catalog rows from 0 to N - 1. The result is cached."""
        if self._positions is None:
            positions = np.empty_like(self.order)
            positions[self.order] = np.arange(len(self.order), dtype=self.order.dtype)
            self._positions = positions
        return self._positions

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the position of each of the given catalog rows."""
        return np.asarray(self.positions()[rows], dtype=np.int64)

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the position of each of the given catalog rows; -1 if a row is not in the trie."""
        known = (rows >= 0) & (rows < self.n_items)
        positions = np.full(len(rows), -1)
        positions[known] = self.positions_of(rows[known])
        return positions

    def title(self, position: int) -> list[int]:
        """Return the token ids of the title at a position."""
        node, tokens = self.root, list[int]()
        while (first := int(self.first_child[node])) < (last := int(self.first_child[node + 1])):
            node = first + int(np.searchsorted(self.low[first:last], position, side="right")) - 1
            tokens += self.runs(np.array([node]))[0]
        return tokens

    def save(self, path: str | Path) -> None:
        """Atomically write the trie to a safetensors file."""
        files.write_arrays(Path(path), *self.to_arrays())

    def to_arrays(self) -> tuple[dict[str, Ids], dict[str, str]]:
        """Return named arrays and metadata strings from which the trie can be rebuilt."""
        meta = {"format": FORMAT, "max_depth": str(self.max_depth), "n_tokens": str(self.n_tokens)}
        return {name: getattr(self, name) for name in _ARRAYS}, meta

    @classmethod
    def load(cls, path: str | Path) -> TitleTrie:
        """Load a trie by mapping its file into memory, so that only the parts in use are read.

        Raises:
            DataError: the file is missing or was not written by ``save``.
        """
        arrays, meta = files.map_arrays(Path(path))
        if meta.get("format") != FORMAT or set(arrays) != set(_ARRAYS):
            msg = (
                f"{path} is not a trie file of this version. Expected a file written by "
                "TitleTrie.save; rebuild the trie."
            )
            raise DataError(msg)
        return cls.from_arrays(arrays, meta)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Ids], meta: Mapping[str, str]) -> TitleTrie:
        """Rebuild a trie from the result of ``to_arrays``. The arrays are not copied."""
        trie = cls.__new__(cls)
        for name in _ARRAYS:
            setattr(trie, name, arrays[name])
        trie.max_depth, trie.n_tokens = int(meta["max_depth"]), int(meta["n_tokens"])
        return trie


def _chunks(sequences: Iterable[Sequence[int]]) -> Iterator[Chunk]:
    """Convert token sequences to pairs of arrays, several titles at a time.

    Yields:
        The concatenated token ids of some titles, and the number of tokens in each of them.
    """
    sequences = iter(sequences)
    while some := list(islice(sequences, _CHUNK)):
        length = np.fromiter(map(len, some), dtype=np.int64, count=len(some))
        yield np.fromiter(chain.from_iterable(some), np.int64, int(length.sum())), length


def _smallest_dtype(n: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer type that can represent all numbers from 0 to n."""
    return np.dtype(np.uint16 if n < 1 << 16 else np.uint32 if n < 1 << 32 else np.uint64)


def ranges(first: IntArray, count: IntArray) -> IntArray:
    """Concatenate ranges of consecutive integers, which are given by their starts and lengths.

    >>> ranges(np.array([5, 9]), np.array([2, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    total = int(count.sum())
    if not total:
        return np.empty(0, dtype=np.int64)
    offset = np.cumsum(count) - count
    return np.asarray(np.arange(total) + np.repeat(first - offset, count))


def _offsets(counts: IntArray, first: int = 0) -> npt.NDArray[np.unsignedinteger]:
    """Compute the index at which each group starts if groups are stored one after another.

    Args:
        counts: (G,) size of each group.
        first: index at which the first group starts.

    Returns:
        (G + 1,) indices in the smallest integer type. The last one is the end of the last group.
    """
    starts = np.cumsum(np.concatenate([[first], counts]))
    return starts.astype(_smallest_dtype(int(starts[-1])))


def _concatenate(chunks: Iterable[Chunk]) -> tuple[Ids, IntArray]:
    """Concatenate the token ids of all N titles, and check them.

    Returns:
        The tokens of all titles in the smallest integer type, and (N + 1,) indices: the index of
        each title's first token, followed by the number of tokens.

    Raises:
        DataError: there are no titles, a title is empty, or a token id is negative.
    """
    parts: list[Ids] = []
    lengths: list[IntArray] = []
    for given, length in chunks:
        tokens = np.asarray(given)
        if len(tokens) and int(tokens.min()) < 0:
            msg = (
                f"Token id {int(tokens.min())} in a title is negative. Expected token ids of 0 or "
                "more."
            )
            raise DataError(msg)
        dtype = np.uint16 if not len(tokens) or int(tokens.max()) < 1 << 16 else np.uint32
        parts.append(tokens.astype(dtype))
        lengths.append(np.asarray(length, dtype=np.int64))
    if not sum(map(len, lengths)):
        msg = "The trie cannot be built because there are no titles. Expected at least one title."
        raise DataError(msg)
    length = np.concatenate(lengths)
    if not length.all():
        msg = f"Title {int(np.argmin(length))} has no tokens. Expected at least the terminator."
        raise DataError(msg)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(length)])


def _sort_titles(flat: Ids, start: IntArray) -> IntArray:
    """Find the order that sorts N titles by their tokens.

    Args:
        flat: tokens of all titles in one array.
        start: (N + 1,) index of each title's first token, followed by the number of tokens.

    Returns:
        (N,) indices of the titles in sorted order. Equal titles keep their original order.
    """
    size = flat.dtype.itemsize
    data = pa.py_buffer(flat.astype(flat.dtype.newbyteorder(">")))  # bytes then sort like tokens
    texts = pa.Array.from_buffers(
        pa.large_binary(), len(start) - 1, [None, pa.py_buffer(start * size), data]
    )
    return np.asarray(pc.array_sort_indices(texts)).astype(np.int64)


def _reorder(flat: Ids, start: IntArray, order: IntArray) -> tuple[Ids, IntArray]:
    """Reorder N titles.

    Args:
        flat: tokens of all titles in one array.
        start: (N + 1,) index of each title's first token, followed by the number of tokens.
        order: (N,) indices of the titles in the new order.

    Returns:
        The same two arrays, for the titles in the new order.
    """
    length = np.diff(start)[order]
    return _take_ranges(flat, start[order], length), np.concatenate([[0], np.cumsum(length)])


def _take_ranges(flat: Ids, first: IntArray, count: IntArray) -> Ids:
    """Concatenate ranges of an array, which are given by their starts and lengths.

    The result is ``flat[ranges(first, count)]``, but the array of indices is built in parts to save
    memory.
    """
    result = np.empty(int(count.sum()), dtype=flat.dtype)
    done = 0
    for low in range(0, len(count), _CHUNK):
        some = ranges(first[low : low + _CHUNK], count[low : low + _CHUNK])
        result[done : done + len(some)] = flat[some]
        done += len(some)
    return result


def _shared_prefixes(flat: Ids, start: IntArray) -> IntArray:
    """Count the leading tokens that each of N sorted titles shares with the title before it.

    Args:
        flat: tokens of all titles in one array.
        start: (N + 1,) index of each title's first token, followed by the number of tokens.

    Returns:
        (N,) counts; 0 for the first title.
    """
    length = np.diff(start)
    shared = np.zeros(len(length), dtype=np.int64)
    alive = np.arange(1, len(length))
    depth = 0
    while len(alive):
        alive = alive[(length[alive] > depth) & (length[alive - 1] > depth)]
        alive = alive[flat[start[alive] + depth] == flat[start[alive - 1] + depth]]
        depth += 1
        shared[alive] = depth
    return shared


def _refuse_prefixes(flat: Ids, start: IntArray, shared: IntArray) -> None:
    """Raise a DataError if a sorted title is a proper prefix of the title after it.

    Args:
        flat: tokens of all N titles in one array.
        start: (N + 1,) index of each title's first token, followed by the number of tokens.
        shared: (N,) number of leading tokens that each title shares with the title before it.
    """
    length = np.diff(start)
    prefix = np.flatnonzero((shared[1:] == length[:-1]) & (length[1:] > length[:-1]))
    if len(prefix):
        raise prefix_error(flat[start[prefix[0]] : start[prefix[0] + 1]].tolist())


def prefix_error(title: Sequence[int]) -> DataError:
    """Return the exception for a title that is a proper prefix of another title.

    Args:
        title: token ids of the shorter title.
    """
    return DataError(
        f"The title with the tokens {list(title)} is a prefix of another title. Expected every "
        "title to end with a terminator that occurs nowhere else in a title."
    )


def _branching_depth(shared: IntArray, low: IntArray, high: IntArray, length: IntArray) -> IntArray:
    """Count the leading tokens that all titles in an interval of sorted titles have in common.

    Args:
        shared: (L,) number of leading tokens that each of L distinct titles shares with the title
            before it.
        low: index of the first title of each interval.
        high: index after the last title of each interval.
        length: number of tokens in the first title of each interval.

    Returns:
        One count per interval. For an interval with a single title, this is the title's length.
    """
    depth = length.copy()
    several = np.flatnonzero(high - low > 1)
    if len(several):
        bounds = np.stack([low[several] + 1, high[several]], axis=1).ravel()
        within = np.minimum.reduceat(np.append(shared, 0), bounds)[::2]
        depth[several] = within
    return depth
