"""TitleTrie: the catalog's titles as a compressed prefix tree in flat arrays. Knows ids and rows only.

A node is the root, a place where titles part, or a title's end; the tokens between two nodes are
the run on the way into the lower one. Nodes are numbered level by level, children of a node are
neighbours sorted by token id, and the titles below a node are an interval of positions; ``order``
maps positions to catalog rows. (Level order and compressed sparse rows as in STATIC,
https://arxiv.org/abs/2602.22647; runs in one piece as in PATRICIA, Morrison 1968.)
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
Chunk = tuple[Ids, IntArray]  # token ids of several titles in one array, and how many each has

_CHUNK = 50_000  # titles made into one array at once
_ARRAYS = ("token", "first_child", "low", "high", "run_start", "run", "order")
FORMAT = "genrec-trie-1"


class TitleTrie:
    """A prefix tree over N token sequences, E nodes of which node 0 is the root.

    Attributes:
        token: (E,) the first token on the way into each node; 0 for the root.
        first_child: (E + 1,) children of node n are first_child[n] to first_child[n + 1] - 1.
        low, high: (E,) positions below node n are low[n] to high[n] - 1.
        run: the tokens of all runs after their first, in the order of nodes.
        run_start: (E + 1,) those of node n are run[run_start[n] : run_start[n + 1]].
        order: (N,) catalog row at each position; rows of one title are neighbours, in row order.
        max_depth: tokens of the longest title.
        n_tokens: tokens of all titles, counted title by title.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        """Builds the tree.

        Args:
            sequences: token ids of each row's title with its terminator; equal ones share a leaf.

        Raises:
            DataError: there are none, one is empty, or one is a proper prefix of another.
        """
        self._build(_chunks(sequences))

    @classmethod
    def of_chunks(cls, chunks: Iterable[Chunk]) -> TitleTrie:
        """Builds the tree from arrays, for catalogs whose titles do not fit in lists.

        Args:
            chunks: token ids of the next titles, one after the other, and how many each title has.

        Raises:
            DataError: as the constructor.
        """
        trie = cls.__new__(cls)
        trie._build(chunks)
        return trie

    def _build(self, chunks: Iterable[Chunk]) -> None:
        flat, start = _gathered(chunks)
        order = _sorted(flat, start)
        flat, start = _taken(flat, start, order)
        length = np.diff(start)
        shared = _shared_prefixes(flat, start)
        self.n_tokens = int(start[-1])
        self.max_depth = int(length.max())
        _refuse_prefixes(flat, start, shared)
        first = np.flatnonzero(shared < length)  # of each distinct title: its first position
        self._levels(flat, start, first, shared[first], length)
        self.order = order.astype(_width(len(order)))

    def _levels(
        self, flat: Ids, start: IntArray, first: IntArray, shared: IntArray, length: IntArray
    ) -> None:
        """Numbers the nodes level by level.

        Args:
            flat: tokens of the sorted titles.
            start: (N + 1,) where each title's begin.
            first: (L,) the first position of each distinct title.
            shared: (L,) tokens that each has in common with the one before it.
            length: (N,) tokens of each title.
        """
        n = len(length)
        ends = np.append(first, n)
        low, high = np.array([0]), np.array([len(first)])  # of this level, in distinct titles
        above, depth = np.array([0]), np.array([0])  # where the way in begins, where it ends
        lows, highs, counts, begins, stops = [low], [ends[high]], [], [low], [low]
        while len(low):
            inner = np.flatnonzero(depth < length[first[low]])
            # What the titles below a node share is the least of their neighbours' shares; a node's
            # children begin where a title shares no more than the node's own depth.
            size = high[inner] - low[inner]
            place = ranges(low[inner], size)
            source = np.repeat(inner, size)
            begin = (shared[place] <= depth[source]) | (place == low[source])
            child_low, parent = place[begin], source[begin]
            child_high = np.append(child_low[1:], 0)
            if len(parent):
                last = np.flatnonzero(np.append(parent[1:] != parent[:-1], True))
                child_high[last] = high[parent[last]]
            counts.append(np.bincount(parent, minlength=len(low)))
            above = depth[parent]
            low, high = child_low, child_high
            depth = _branching(shared, low, high, length[first[low]])
            lows.append(first[low])
            highs.append(ends[high])
            begins.append(start[first[low]] + above)
            stops.append(start[first[low]] + depth)
        whole = [np.concatenate(arrays) for arrays in (lows, highs, begins, stops, counts)]
        self.low, self.high = (a.astype(_width(n)) for a in whole[:2])
        begin, stop, count = whole[2:]
        self.token = flat[begin]
        self.token[0] = 0
        begin[1:] += 1
        self.run = _picked(flat, begin, stop - begin)
        self.run_start = _starts(stop - begin)
        self.first_child = _starts(np.append(count, np.zeros(len(begin) - len(count), int)), 1)

    root = 0
    _positions: Ids | None = None

    def __len__(self) -> int:
        """How many nodes there are, the root included."""
        return len(self.token)

    @property
    def n_items(self) -> int:
        """How many rows the trie holds."""
        return len(self.order)

    @property
    def n_positions(self) -> int:
        """How many positions there are."""
        return len(self.order)

    @property
    def n_bytes(self) -> int:
        """The memory of all arrays."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    @property
    def inner_tokens(self) -> int:
        """The tokens that scoring every title by catalog-normalised log P evaluates."""
        inner = np.flatnonzero(np.diff(self.first_child) > 0)
        lengths = self.run_start[inner + 1].astype(np.int64) - self.run_start[inner] + 1
        return int(lengths[inner > 0].sum())

    def children(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Children of L nodes: their numbers one after the other, and (L,) how many each has."""
        first = self.first_child[nodes].astype(np.int64)
        count = self.first_child[nodes + 1].astype(np.int64) - first
        return ranges(first, count), count

    def is_leaf(self, nodes: IntArray) -> BoolArray:
        """Which of the nodes are titles' ends."""
        return np.asarray(self.first_child[nodes] == self.first_child[nodes + 1], dtype=np.bool_)

    def tokens(self, nodes: IntArray) -> IntArray:
        """The first token on the way into each node."""
        return np.asarray(self.token[nodes], dtype=np.int64)

    def intervals(self, nodes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The intervals of positions below L nodes: index of the node, low and high of each."""
        low, high = self.low[nodes].astype(np.int64), self.high[nodes].astype(np.int64)
        return np.arange(len(low)), low, high

    def rows_at(self, positions: IntArray) -> IntArray:
        """The catalog row at each position."""
        return self.order[positions].astype(np.int64)

    def runs(self, nodes: IntArray) -> list[list[int]]:
        """The tokens on the way into each node, one or more; none for the root."""
        first, start = self.token[nodes].tolist(), self.run_start[nodes].tolist()
        stop = self.run_start[nodes + 1].tolist()
        run = self.run
        return [
            [] if node == 0 else [token, *run[low:high].tolist()] if high > low else [token]
            for node, token, low, high in zip(nodes.tolist(), first, start, stop, strict=True)
        ]

    def run_lengths(self, nodes: IntArray) -> IntArray:
        """How many tokens ``runs`` gives for each node."""
        rest = self.run_start[nodes + 1].astype(np.int64) - self.run_start[nodes]
        return np.where(nodes == 0, 0, rest + 1)

    def rows(self, node: int) -> IntArray:
        """The catalog rows below a node."""
        return np.asarray(self.order[self.low[node] : self.high[node]], dtype=np.int64)

    def positions(self) -> Ids:
        """(N,) the position of each catalog row: the inverse of ``order``, made once."""
        if self._positions is None:
            positions = np.empty_like(self.order)
            positions[self.order] = np.arange(len(self.order), dtype=self.order.dtype)
            self._positions = positions
        return self._positions

    def positions_of(self, rows: IntArray) -> IntArray:
        """The position of each of some catalog rows."""
        return np.asarray(self.positions()[rows], dtype=np.int64)

    def places(self, rows: IntArray) -> IntArray:
        """(R,) the position of each of some rows, -1 for a row that the trie does not hold."""
        known = (rows >= 0) & (rows < self.n_items)
        places = np.full(len(rows), -1)
        places[known] = self.positions_of(rows[known])
        return places

    def title(self, position: int) -> list[int]:
        """The tokens of the title at a position."""
        node, tokens = self.root, list[int]()
        while (first := int(self.first_child[node])) < (last := int(self.first_child[node + 1])):
            node = first + int(np.searchsorted(self.low[first:last], position, side="right")) - 1
            tokens += self.runs(np.array([node]))[0]
        return tokens

    def save(self, path: str | Path) -> None:
        """Writes the arrays to a safetensors file, beside its place and renamed."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        meta = {"format": FORMAT, "max_depth": str(self.max_depth), "n_tokens": str(self.n_tokens)}
        files.write_arrays(Path(path), arrays, meta)

    @classmethod
    def load(cls, path: str | Path) -> TitleTrie:
        """Maps the arrays of a file that ``save`` wrote into memory; nothing is read yet.

        Raises:
            DataError: the file is not there or is none of these.
        """
        arrays, meta = files.map_arrays(Path(path))
        if meta.get("format") != FORMAT or set(arrays) != set(_ARRAYS):
            msg = f"{path} is no trie of this version. Expected a file that TitleTrie.save wrote."
            raise DataError(msg)
        trie = cls.__new__(cls)
        for name, array in arrays.items():
            setattr(trie, name, array)
        trie.max_depth, trie.n_tokens = int(meta["max_depth"]), int(meta["n_tokens"])
        return trie


def _chunks(sequences: Iterable[Sequence[int]]) -> Iterator[Chunk]:
    sequences = iter(sequences)
    while some := list(islice(sequences, _CHUNK)):
        length = np.fromiter(map(len, some), dtype=np.int64, count=len(some))
        yield np.fromiter(chain.from_iterable(some), np.int64, int(length.sum())), length


def _width(n: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned kind that holds 0 to n."""
    return np.dtype(np.uint16 if n < 1 << 16 else np.uint32 if n < 1 << 32 else np.uint64)


def ranges(first: IntArray, count: IntArray) -> IntArray:
    """first[0], first[0] + 1, ... (count[0] of them), first[1], ..."""
    total = int(count.sum())
    if not total:
        return np.empty(0, dtype=np.int64)
    offset = np.cumsum(count) - count
    return np.asarray(np.arange(total) + np.repeat(first - offset, count))


def _starts(counts: IntArray, first: int = 0) -> npt.NDArray[np.unsignedinteger]:
    """(len(counts) + 1,) where each begins whose sizes are counts, in the smallest width."""
    starts = np.cumsum(np.concatenate([[first], counts]))
    return starts.astype(_width(int(starts[-1])))


def _gathered(chunks: Iterable[Chunk]) -> tuple[Ids, IntArray]:
    """All tokens in the smallest width, and (N + 1,) where each title's begin."""
    parts: list[Ids] = []
    lengths: list[IntArray] = []
    for tokens, length in chunks:
        found = np.asarray(tokens)
        if len(found) and int(found.min()) < 0:
            msg = f"Token id {int(found.min())} in a title. Expected 0 or more."
            raise DataError(msg)
        kind = np.uint16 if not len(found) or int(found.max()) < 1 << 16 else np.uint32
        parts.append(found.astype(kind))
        lengths.append(np.asarray(length, dtype=np.int64))
    if not sum(map(len, lengths)):
        msg = "A trie of no titles. Expected at least one; check the catalog."
        raise DataError(msg)
    length = np.concatenate(lengths)
    if not length.all():
        msg = f"Title {int(np.argmin(length))} has no tokens. Expected a terminator at least."
        raise DataError(msg)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(length)])


def _sorted(flat: Ids, start: IntArray) -> IntArray:
    """(N,) the order of the titles by their tokens, equal ones by row."""
    size = flat.dtype.itemsize
    data = pa.py_buffer(flat.astype(flat.dtype.newbyteorder(">")))  # so that bytes sort as tokens
    texts = pa.Array.from_buffers(
        pa.large_binary(), len(start) - 1, [None, pa.py_buffer(start * size), data]
    )
    return np.asarray(pc.array_sort_indices(texts)).astype(np.int64)


def _taken(flat: Ids, start: IntArray, order: IntArray) -> tuple[Ids, IntArray]:
    """The titles in another order."""
    length = np.diff(start)[order]
    return _picked(flat, start[order], length), np.concatenate([[0], np.cumsum(length)])


def _picked(flat: Ids, first: IntArray, count: IntArray) -> Ids:
    """The entries ``ranges(first, count)`` of flat."""
    result = np.empty(int(count.sum()), dtype=flat.dtype)
    done = 0
    for low in range(0, len(count), _CHUNK):  # so that the index stays small
        some = ranges(first[low : low + _CHUNK], count[low : low + _CHUNK])
        result[done : done + len(some)] = flat[some]
        done += len(some)
    return result


def _shared_prefixes(flat: Ids, start: IntArray) -> IntArray:
    """(N,) tokens that each sorted title shares with the one before it; the first: none."""
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
    length = np.diff(start)
    prefix = np.flatnonzero((shared[1:] == length[:-1]) & (length[1:] > length[:-1]))
    if len(prefix):
        raise prefix_error(flat[start[prefix[0]] : start[prefix[0] + 1]].tolist())


def prefix_error(title: Sequence[int]) -> DataError:
    """What is raised where a title is a proper prefix of another."""
    return DataError(
        f"Title tokens {list(title)} are a prefix of another title's. Expected every title to end "
        "with a terminator that none contains."
    )


def _branching(shared: IntArray, low: IntArray, high: IntArray, length: IntArray) -> IntArray:
    """The depth at which the distinct titles low to high - 1 part; a single one's length."""
    depth = length.copy()
    several = np.flatnonzero(high - low > 1)
    if len(several):
        bounds = np.stack([low[several] + 1, high[several]], axis=1).ravel()
        within = np.minimum.reduceat(np.append(shared, 0), bounds)[::2]
        depth[several] = within
    return depth
