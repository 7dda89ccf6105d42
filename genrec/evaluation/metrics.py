"""Ranking metrics, per user first, and intervals over users. Knows ids, rows and numbers only.

Lists of many users are a matrix of catalog rows, (U, K) integers, best first: U users, K places;
-1 stands behind the end of a list, -2 for an id that is not in the catalog. What a user's list is
held against are the relevant rows of all users one after the other, with the (U + 1,) places where
each user's begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.types import BoolArray, FloatArray, IntArray

RowArray = npt.NDArray[np.int32]

END, UNKNOWN = -1, -2
ALIKE_ABOVE = 10_000  # users; fewer are resampled one by one
MAX_CELLS = 250_000  # of a matrix, worked on at a time


def rank_of(target: str, ranked: Sequence[str]) -> int:
    """The rank of a target from 1, or 0 where it is not in the list.

    >>> rank_of("b", ["a", "b"]), rank_of("c", ["a", "b"])
    (2, 0)
    """
    return list(ranked).index(target) + 1 if target in ranked else 0


def hit_rate(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """HR@k per user: 1 where the one target stands at rank 1 to k, else 0. Rank 0 is a miss.

    >>> hit_rate([1, 10, 11, 0], k=10)
    array([1., 1., 0., 0.])
    """
    r = np.asarray(ranks)
    return ((r >= 1) & (r <= k)).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """NDCG@k per user with one target at rank r: 1 / log2(r + 1) for 1 <= r <= k, else 0.

    >>> ndcg([1, 3, 11, 0], k=10)
    array([1. , 0.5, 0. , 0. ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.log2(np.maximum(r, 1.0) + 1.0), 0.0)


def mrr(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """MRR@k per user with one target at rank r: 1 / r for 1 <= r <= k, else 0.

    >>> mrr([1, 4, 11, 0], k=10)
    array([1.  , 0.25, 0.  , 0.  ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.maximum(r, 1.0), 0.0)


def recall(
    relevant: Sequence[Sequence[str]], ranked: Sequence[Sequence[str]], k: int
) -> FloatArray:
    """Recall@k per user: the share of the distinct relevant items among the first k of the list.

    >>> recall([["a", "b", "b"]], [["x", "b"]], k=2)
    array([0.5])
    """
    return np.array(
        [
            len(set(wanted) & set(got[:k])) / len(set(wanted))
            for wanted, got in zip(relevant, ranked, strict=True)
        ]
    )


def as_rows(ranked: Sequence[Sequence[str]], row_of: Mapping[str, int]) -> RowArray:
    """Lists of ids as a (U, K) matrix of rows; K is the longest list's length.

    >>> as_rows([["a", "b"], ["x"]], {"a": 0, "b": 1}).tolist()
    [[0, 1], [-2, -1]]
    """
    lengths = np.fromiter(map(len, ranked), np.int64, len(ranked))
    rows = np.full((len(ranked), int(lengths.max(initial=0))), END, dtype=np.int32)
    ids = itertools.chain.from_iterable(ranked)
    each = map(row_of.get, ids, itertools.repeat(UNKNOWN))
    found = np.fromiter(each, np.int32, int(lengths.sum()))
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = found
    return rows


def starts(sets: Sequence[Sequence[Any]]) -> IntArray:
    """(U + 1,) places where each user's part of the joined sets begins."""
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    return np.concatenate([[0], np.cumsum(lengths)])


def ranks_of(targets: npt.ArrayLike, ranked: RowArray) -> IntArray:
    """(U,) the rank from 1 of each user's one target row in (U, K) lists; 0 where it is not there.

    >>> ranks_of([7, 3], np.array([[5, 7], [1, 2]])).tolist()
    [2, 0]
    """
    wanted = np.asarray(targets)
    found = np.zeros(len(wanted), dtype=np.int64)
    for part in _parts(ranked):
        same = ranked[part] == wanted[part, None]
        if same.shape[1]:
            found[part] = np.where(same.any(axis=1), same.argmax(axis=1) + 1, 0)
    return found


def hits(relevant: npt.ArrayLike, start: IntArray, ranked: RowArray) -> BoolArray:
    """(U, K) whether a place of the lists holds a relevant item, counted where it first stands.

    Args:
        relevant: (R,) rows, user after user.
        start: (U + 1,) where each user's rows begin.
        ranked: (U, K) lists.
    """
    rows, many = np.asarray(relevant), np.diff(start)
    found = np.zeros(ranked.shape, dtype=bool)
    for part in _parts(ranked):
        lists, here = ranked[part], found[part]
        for n in range(int(many[part].max(initial=0))):
            users = np.flatnonzero(many[part] > n)
            here[users] |= lists[users] == rows[start[part][users] + n, None]
        here &= lists >= 0
        several = np.flatnonzero(here.sum(axis=1) > 1)
        here[several] &= ~_repeated(lists[several])
    return found


def set_metrics(hit: BoolArray, n_relevant: IntArray, k: int) -> dict[str, FloatArray]:
    """Metrics of lists against sets of relevant items, per user.

    ``hit_rate`` is 1 where any is among the first k, ``recall`` the share of them that is, ``mrr``
    1 / the rank of the first, ``ndcg`` the sum of 1 / log2(r + 1) over the ranks r of those found,
    divided by that of a list which begins with all of them.

    >>> found = set_metrics(np.array([[False, True]]), np.array([2]), k=2)
    >>> {name: round(float(values[0]), 4) for name, values in found.items()}
    {'hit_rate': 1.0, 'recall': 0.5, 'mrr': 0.5, 'ndcg': 0.3869}

    Args:
        hit: (U, K) from ``hits``.
        n_relevant: (U,) how many distinct relevant items there are, at least 1.
        k: how much of the lists counts.
    """
    top = hit[:, :k]
    some = top.any(axis=1)
    first = top.argmax(axis=1) + 1 if top.shape[1] else np.ones(len(top))
    gain = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gain)[np.minimum(n_relevant, k) - 1]
    return {
        "hit_rate": some.astype(np.float64),
        "recall": top.sum(axis=1) / n_relevant,
        "mrr": np.where(some, 1.0 / first, 0.0),
        "ndcg": top @ gain[: top.shape[1]] / ideal,
    }


def invalid(ranked: RowArray, wanted: npt.ArrayLike) -> BoolArray:
    """(U,) whether a list is short, holds an item twice, or holds what is not in the catalog.

    Args:
        ranked: (U, K) lists.
        wanted: (U,) how many items each list should have, or one number.
    """
    bad: BoolArray = (ranked >= 0).sum(axis=1) < np.asarray(wanted)
    for part in _parts(ranked):
        bad[part] |= (ranked[part] == UNKNOWN).any(axis=1) | _repeated(ranked[part]).any(axis=1)
    return bad


def coverage(ranked: RowArray, n_items: int, k: int) -> float:
    """The share of the catalog that stands among the first k of any list."""
    return float((exposure(ranked, n_items, k) > 0).mean())


def exposure(ranked: RowArray, n_items: int, k: int) -> IntArray:
    """(n_items,) in how many lists each item stands among the first k."""
    top = ranked[:, :k]
    return np.bincount(top[top >= 0], minlength=n_items)


def gini(counts: npt.ArrayLike) -> float:
    """The Gini coefficient of counts: 0 where all are equal, near 1 where one has all.

    With n counts c in rising order it is 2 sum(i c_i) / (n sum(c)) - (n + 1) / n.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    c = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(c)
    if c.sum() == 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) @ c) / (n * c.sum()) - (n + 1) / n)


def novelty(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """(U,) mean self-information in bits of the first k: -log2 of an item's share of the counts.

    An item that was never counted is taken as counted once. NaN for an empty list.

    >>> novelty(np.array([[0, 1]]), [6, 2], k=2).round(4)
    array([1.2075])
    """
    c = np.asarray(counts, dtype=np.float64)
    return _mean_of(-np.log2(np.maximum(c, 1.0) / max(c.sum(), 1.0)), ranked, k)


def popularity(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """(U,) mean popularity percentile of the first k: 0.5 for a list drawn at random.

    An item's percentile is the share of the catalog with smaller counts and half of that with
    equal ones. NaN for an empty list.

    >>> popularity(np.array([[2, 1]]), [0, 5, 9, 9], k=1)
    array([0.75])
    """
    c = np.asarray(counts)
    order = np.sort(c)
    low, high = np.searchsorted(order, c, "left"), np.searchsorted(order, c, "right")
    return _mean_of((low + high) / (2.0 * len(c)), ranked, k)


def diversity(ranked: RowArray, vectors: Any, k: int) -> FloatArray:
    """(U,) 1 - the mean cosine over all pairs of the first k; NaN for fewer than two items.

    With unit vectors v the cosines of all ordered pairs of n items sum to ``|sum(v)|^2 - n``.

    Args:
        ranked: (U, K) lists.
        vectors: (N, D) of unit length, by catalog row; a NumPy array or a scipy sparse matrix.
        k: how much of the lists counts.
    """
    from scipy import sparse

    found = np.full(len(ranked), np.nan)
    for part in _parts(ranked, len(ranked[:1, :k].T) * 100):
        top = ranked[part, :k]
        n = (top >= 0).sum(axis=1)
        place = np.concatenate([[0], np.cumsum(n)]).astype(np.int32)
        chosen = sparse.csr_array(  # of the vectors' own types: others would copy them each time
            (np.ones(place[-1], vectors.dtype), top[top >= 0].astype(np.int32), place),
            shape=(len(top), vectors.shape[0]),
        )
        total = chosen @ vectors
        if sparse.issparse(total):
            square = total.multiply(total).sum(axis=1, dtype=np.float64)
        else:
            square = np.einsum("ud,ud->u", total, total, dtype=np.float64)
        several = n > 1
        mean = (np.asarray(square).ravel() - n)[several] / (n * (n - 1))[several]
        found[part.start : part.stop][several] = 1.0 - mean
    return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """Stated probabilities against what came true, in B bins of about equally many.

    Attributes:
        stated: (B,) the mean stated probability, rising.
        observed: (B,) the share that came true.
        count: (B,) how many.
        error: the expected calibration error, the mean of |stated - observed| weighted by count.
    """

    stated: FloatArray
    observed: FloatArray
    count: IntArray
    error: float


def calibration(stated: npt.ArrayLike, came_true: npt.ArrayLike, bins: int = 10) -> Calibration:
    """The reliability of stated probabilities.

    >>> calibration([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 0], bins=2).error
    0.25

    Args:
        stated: (n,) probabilities.
        came_true: (n,) 0 or 1.
        bins: how many; the probabilities are sorted and cut into as many parts of equal size.
    """
    p, y = np.asarray(stated, dtype=np.float64), np.asarray(came_true, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = np.array([p[part].mean() for part in parts])
    shares = np.array([y[part].mean() for part in parts])
    count = np.array([len(part) for part in parts], dtype=np.int64)
    error = float((np.abs(means - shares) * count).sum() / max(count.sum(), 1))
    return Calibration(means, shares, count, error)


def _parts(ranked: RowArray, width: int | None = None) -> Iterator[slice]:
    """Slices of users, each of about a million cells."""
    size = max(1, MAX_CELLS // max(1, width or ranked.shape[1]))
    for first in range(0, len(ranked), size):
        yield slice(first, min(first + size, len(ranked)))


def _repeated(rows: RowArray) -> BoolArray:
    """(u, K) whether a place holds an item that stands further up in its list, too."""
    found = np.zeros(rows.shape, dtype=bool)
    ordered = np.sort(rows, axis=1)  # much quicker than argsort, and enough for sound lists
    same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    users = np.flatnonzero(same.any(axis=1))
    order = np.argsort(rows[users], axis=1, kind="stable")
    later = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(later, order[:, 1:], same[users], axis=1)
    found[users] = later
    return found


def _mean_of(values: FloatArray, ranked: RowArray, k: int) -> FloatArray:
    """(U,) the mean of (N,) values by row over the first k of each list; NaN for an empty one."""
    top = ranked[:, :k]
    n = (top >= 0).sum(axis=1)
    total = np.zeros(len(top))
    for column in top.T:
        total += np.where(column >= 0, values[column], 0.0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
