"""Store the catalog's titles as a compressed prefix tree. Deals with token ids and rows only.

The tree is stored in flat arrays. A node is the root, a point where titles diverge, or the end of a
title. The tokens between a node and its parent are called the node's run. Nodes are numbered level
by level, and the children of a node are adjacent and sorted by token id. The titles below a node
form an interval of positions, and ``order`` maps positions to catalog rows. Level order and
compressed sparse rows follow STATIC (https://arxiv.org/abs/2602.22647); undivided runs follow
PATRICIA (Morrison 1968).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

_CHUNK = 50_000  # number of titles converted to one array at a time
_ARRAYS = ("token", "first_child", "low", "high", "run_start", "run", "order")
FORMAT = "genrec-trie-1"


class TitleTrie:
    """A prefix tree over N token sequences with E nodes. Node 0 is the root.

    Attributes:
        token: (E,) first token of each node's run; 0 for the root.
        first_child: (E + 1,) node n has the children first_child[n] to first_child[n + 1] - 1.
        low, high: (E,) node n has the positions low[n] to high[n] - 1 below it.
        run: tokens of all runs in node order, without the first token of each run.
        run_start: (E + 1,) node n's part of ``run`` is run[run_start[n] : run_start[n + 1]].
        order: (N,) catalog row at each position; rows with the same title are adjacent and sorted.
        max_depth: number of tokens in the longest title.
        n_tokens: total number of tokens in all titles. Shared prefixes count once for each title.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        """Build the tree.

        Args:
            sequences: token ids of each row's title, including the terminator. Equal titles share
                a leaf.

        Raises:
            DataError: there are no titles, a title is empty, or one is a proper prefix of another.
        """
        self._build(_chunks(sequences))

    @classmethod
    def of_chunks(cls, chunks: Iterable[Chunk]) -> TitleTrie:
        """Build the tree from arrays, for catalogs too large for lists of token ids.

        Args:
            chunks: pairs of arrays, with titles in row order: the concatenated token ids of some
                titles, and the number of tokens in each of these titles.

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
        """Number the nodes level by level.

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
        low, high = np.array([0]), np.array([len(first)])  # intervals of distinct titles per node
        above, depth = np.array([0]), np.array([0])  # depths at which the runs start and end
        lows, highs, counts, begins, stops = [low], [ends[high]], [], [low], [low]
        while len(low):
            inner = np.flatnonzero(depth < length[first[low]])
            # A child starts at each title whose common prefix with the title before it ends at the
            # node's depth or earlier.
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
        """Return the number of catalog rows in the trie."""
        return len(self.order)

    @property
    def n_positions(self) -> int:
        """Return the number of positions."""
        return len(self.order)

    @property
    def n_bytes(self) -> int:
        """Return the size of the arrays in bytes."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    @property
    def inner_tokens(self) -> int:
        """Return the number of tokens that the model must read to score every title."""
        inner = np.flatnonzero(np.diff(self.first_child) > 0)
        lengths = self.run_start[inner + 1].astype(np.int64) - self.run_start[inner] + 1
        return int(lengths[inner > 0].sum())

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Return the concatenated children of L nodes, and the (L,) number of children per node."""
        first = self.first_child[nodes].astype(np.int64)
        count = self.first_child[nodes + 1].astype(np.int64) - first
        return ranges(first, count), count

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """Return a mask of the nodes at which a title ends."""
        return np.asarray(self.first_child[nodes] == self.first_child[nodes + 1], dtype=np.bool_)

    def tokens(self, nodes: IntArray) -> IntArray:
        """Return the first token of each node's run."""
        return np.asarray(self.token[nodes], dtype=np.int64)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the intervals of positions below L nodes as arrays (node index, low, high)."""
        low, high = self.low[nodes].astype(np.int64), self.high[nodes].astype(np.int64)
        return np.arange(len(low)), low, high

    def rows_at(self, positions: IntArray) -> IntArray:
        """Return the catalog row at each position."""
        return self.order[positions].astype(np.int64)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """Return the tokens of each node's run. Only the root's run is empty."""
        first, start = self.token[nodes].tolist(), self.run_start[nodes].tolist()
        stop = self.run_start[nodes + 1].tolist()
        run = self.run
        return [
            [] if node == 0 else [token, *run[low:high].tolist()] if high > low else [token]
            for node, token, low, high in zip(nodes.tolist(), first, start, stop, strict=True)
        ]

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """Return the number of tokens in each node's run."""
        rest = self.run_start[nodes + 1].astype(np.int64) - self.run_start[nodes]
        return np.where(nodes == 0, 0, rest + 1)

    def rows(self, node: int) -> IntArray:
        """Return the catalog rows below a node."""
        return np.asarray(self.order[self.low[node] : self.high[node]], dtype=np.int64)

    def positions(self) -> Ids:
        """Return the (N,) position of each row (the inverse of ``order``). The result is cached."""
        if self._positions is None:
            positions = np.empty_like(self.order)
            positions[self.order] = np.arange(len(self.order), dtype=self.order.dtype)
            self._positions = positions
        return self._positions

    def positions_of(self, rows: IntArray) -> IntArray:
        """Return the positions of the given catalog rows."""
        return np.asarray(self.positions()[rows], dtype=np.int64)

    def find_positions(self, rows: IntArray) -> IntArray:
        """Return the (R,) positions of the given rows, or -1 for rows that are not in the trie."""
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
        """Write the arrays to a safetensors file. The write is atomic."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        meta = {"format": FORMAT, "max_depth": str(self.max_depth), "n_tokens": str(self.n_tokens)}
        files.write_arrays(Path(path), arrays, meta)

    @classmethod
    def load(cls, path: str | Path) -> TitleTrie:
        """Load a trie by mapping its file into memory. Data is read from disk when it is accessed.

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
        trie = cls.__new__(cls)
        for name, array in arrays.items():
            setattr(trie, name, array)
        trie.max_depth, trie.n_tokens = int(meta["max_depth"]), int(meta["n_tokens"])
        return trie


def _chunks(sequences: Iterable[Sequence[int]]) -> Iterator[Chunk]:
    """Convert token sequences to arrays, ``_CHUNK`` titles at a time."""
    sequences = iter(sequences)
    while some := list(islice(sequences, _CHUNK)):
        length = np.fromiter(map(len, some), dtype=np.int64, count=len(some))
        yield np.fromiter(chain.from_iterable(some), np.int64, int(length.sum())), length


def _smallest_dtype(n: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned type that can represent 0 to n."""
    return np.dtype(np.uint16 if n < 1 << 16 else np.uint32 if n < 1 << 32 else np.uint64)


def ranges(first: IntArray, count: IntArray) -> IntArray:
    """Concatenate ranges of consecutive integers, given their starts and lengths.

    >>> ranges(np.array([5, 9]), np.array([2, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    total = int(count.sum())
    if not total:
        return np.empty(0, dtype=np.int64)
    offset = np.cumsum(count) - count
    return np.asarray(np.arange(total) + np.repeat(first - offset, count))


def _offsets(counts: IntArray, first: int = 0) -> npt.NDArray[np.unsignedinteger]:
    """Return the start of each group, and the end of the last one, in the smallest integer type."""
    starts = np.cumsum(np.concatenate([[first], counts]))
    return starts.astype(_smallest_dtype(int(starts[-1])))


def _concatenate(chunks: Iterable[Chunk]) -> tuple[Ids, IntArray]:
    """Concatenate all titles.

    Returns:
        The tokens of all titles in the smallest type, and the (N + 1,) start index of each title.
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
    """Return the (N,) order that sorts the titles by their tokens. Equal titles keep row order."""
    size = flat.dtype.itemsize
    data = pa.py_buffer(flat.astype(flat.dtype.newbyteorder(">")))  # bytes then sort like tokens
    texts = pa.Array.from_buffers(
        pa.large_binary(), len(start) - 1, [None, pa.py_buffer(start * size), data]
    )
    return np.asarray(pc.array_sort_indices(texts)).astype(np.int64)


def _reorder(flat: Ids, start: IntArray, order: IntArray) -> tuple[Ids, IntArray]:
    """Reorder titles and return their tokens and the start index of each title."""
    length = np.diff(start)[order]
    return _take_ranges(flat, start[order], length), np.concatenate([[0], np.cumsum(length)])


def _take_ranges(flat: Ids, first: IntArray, count: IntArray) -> Ids:
    """Return ``flat[ranges(first, count)]`` without building the whole index array at once."""
    result = np.empty(int(count.sum()), dtype=flat.dtype)
    done = 0
    for low in range(0, len(count), _CHUNK):
        some = ranges(first[low : low + _CHUNK], count[low : low + _CHUNK])
        result[done : done + len(some)] = flat[some]
        done += len(some)
    return result


def _shared_prefixes(flat: Ids, start: IntArray) -> IntArray:
    """Return the (N,) length of the common prefix of each sorted title and the one before it."""
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
    """Raise DataError if a title is a proper prefix of the next one."""
    length = np.diff(start)
    prefix = np.flatnonzero((shared[1:] == length[:-1]) & (length[1:] > length[:-1]))
    if len(prefix):
        raise prefix_error(flat[start[prefix[0]] : start[prefix[0] + 1]].tolist())


def prefix_error(title: Sequence[int]) -> DataError:
    """Build the error for a title that is a proper prefix of another."""
    return DataError(
        f"The title with the tokens {list(title)} is a prefix of another title. Expected every "
        "title to end with a terminator that occurs nowhere else in a title."
    )


def _branching_depth(shared: IntArray, low: IntArray, high: IntArray, length: IntArray) -> IntArray:
    """Return the depth at which the distinct titles from low to high - 1 diverge.

    For an interval with a single title, this is the title's length.
    """
    depth = length.copy()
    several = np.flatnonzero(high - low > 1)
    if len(several):
        bounds = np.stack([low[several] + 1, high[several]], axis=1).ravel()
        within = np.minimum.reduceat(np.append(shared, 0), bounds)[::2]
        depth[several] = within
    return depth
