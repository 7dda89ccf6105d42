"""Compute ranking metrics per user. Deals with ids, catalog rows and numbers only.

The lists of U users are a (U, K) matrix of catalog rows, best first. In this matrix, -1 fills the
positions after the end of a list, and -2 stands for an id that is not in the catalog. The relevant
items of all users are concatenated into one array of rows. An array of (U + 1,) offsets says where
each user's part starts and ends.
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
ALIKE_ABOVE = 10_000  # above this number of users, users with the same value are resampled together
MAX_CELLS = 250_000  # maximum number of matrix cells to process at a time


def rank_of(target: str, ranked: Sequence[str]) -> int:
    """Return the rank of a target, from 1; 0 if it is not in the list.

    >>> rank_of("b", ["a", "b"]), rank_of("c", ["a", "b"])
    (2, 0)
    """
    return list(ranked).index(target) + 1 if target in ranked else 0


def hit_rate(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute HR@k per user: 1 if the target's rank r satisfies 1 <= r <= k, otherwise 0.

    Args:
        ranks: (U,) rank of each user's single target, from 1; 0 for a miss.
        k: the cutoff rank.

    >>> hit_rate([1, 10, 11, 0], k=10)
    array([1., 1., 0., 0.])
    """
    r = np.asarray(ranks)
    return ((r >= 1) & (r <= k)).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute NDCG@k per user: 1 / log2(r + 1) for a target at rank r <= k, otherwise 0.

    With one target, the ideal list has a gain of 1, so no division is needed.

    Args:
        ranks: (U,) rank of each user's single target, from 1; 0 for a miss.
        k: the cutoff rank.

    >>> ndcg([1, 3, 11, 0], k=10)
    array([1. , 0.5, 0. , 0. ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.log2(np.maximum(r, 1.0) + 1.0), 0.0)


def mrr(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute MRR@k per user: 1 / r for a target at rank r <= k, otherwise 0.

    Args:
        ranks: (U,) rank of each user's single target, from 1; 0 for a miss.
        k: the cutoff rank.

    >>> mrr([1, 4, 11, 0], k=10)
    array([1.  , 0.25, 0.  , 0.  ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.maximum(r, 1.0), 0.0)


def recall(
    relevant: Sequence[Sequence[str]], ranked: Sequence[Sequence[str]], k: int
) -> FloatArray:
    """Compute recall@k per user: |relevant ∩ first k of the list| / |relevant|.

    Args:
        relevant: (U,) the relevant items of each user; duplicates count once.
        ranked: (U,) lists of items, best first.
        k: the cutoff rank.

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
    """Convert lists of ids to a (U, K) matrix of rows, where K is the length of the longest list.

    Args:
        ranked: (U,) lists of item ids, best first.
        row_of: the catalog row of each item id.

    >>> as_rows([["a", "b"], ["x"]], {"a": 0, "b": 1}).tolist()
    [[0, 1], [-2, -1]]
    """
    lengths = np.fromiter(map(len, ranked), np.int64, len(ranked))
    rows = np.full((len(ranked), int(lengths.max(initial=0))), END, dtype=np.int32)
    ids = itertools.chain.from_iterable(ranked)
    each = map(row_of.get, ids, itertools.repeat(UNKNOWN))
    flat = np.fromiter(each, np.int32, int(lengths.sum()))
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = flat
    return rows


def starts(sets: Sequence[Sequence[Any]]) -> IntArray:
    """Return the (U + 1,) offsets of each user's part after concatenating the sets.

    >>> starts([["a", "b"], [], ["c"]]).tolist()
    [0, 2, 2, 3]
    """
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    return np.concatenate([[0], np.cumsum(lengths)])


def ranks_of(targets: npt.ArrayLike, ranked: RowArray) -> IntArray:
    """Find the rank of each user's single target, from 1; 0 if it is not in the list.

    Args:
        targets: (U,) catalog row of each target.
        ranked: (U, K) lists.

    >>> ranks_of([7, 3], np.array([[5, 7], [1, 2]])).tolist()
    [2, 0]
    """
    rows = np.asarray(targets)
    ranks = np.zeros(len(rows), dtype=np.int64)
    for part in _parts(ranked):
        same = ranked[part] == rows[part, None]
        if same.shape[1]:
            ranks[part] = np.where(same.any(axis=1), same.argmax(axis=1) + 1, 0)
    return ranks


def hits(relevant: npt.ArrayLike, start: IntArray, ranked: RowArray) -> BoolArray:
    """Mark the positions of relevant items in the lists; a repeated item counts once.

    Args:
        relevant: (R,) relevant rows, concatenated over users.
        start: (U + 1,) offsets of each user's part in ``relevant``.
        ranked: (U, K) lists.

    Returns:
        A (U, K) mask of the positions that contain a relevant item.

    >>> hits([7, 8, 3], np.array([0, 2, 3]), np.array([[8, 8, 7], [1, 2, -1]])).tolist()
    [[True, False, True], [False, False, False]]
    """
    rows, sizes = np.asarray(relevant), np.diff(start)
    hit = np.zeros(ranked.shape, dtype=bool)
    for part in _parts(ranked):
        lists, here = ranked[part], hit[part]
        for n in range(int(sizes[part].max(initial=0))):
            users = np.flatnonzero(sizes[part] > n)
            here[users] |= lists[users] == rows[start[part][users] + n, None]
        here &= lists >= 0
        several = np.flatnonzero(here.sum(axis=1) > 1)
        here[several] &= ~_repeated(lists[several])
    return hit


def set_metrics(hit: BoolArray, n_relevant: IntArray, k: int) -> dict[str, FloatArray]:
    """Compute metrics of lists per user, given sets of relevant items.

    Let n be the number of relevant items, and let r be the ranks of the relevant items among the
    first k positions:

    - ``hit_rate``: 1 if there is at least one such rank, otherwise 0
    - ``recall``: the number of such ranks / n
    - ``mrr``: 1 / min(r), or 0 if there is no such rank
    - ``ndcg``: sum of 1 / log2(r + 1), divided by the same sum over r = 1 to min(n, k)

    Args:
        hit: (U, K) the result of ``hits``.
        n_relevant: (U,) number of distinct relevant items, at least 1.
        k: the cutoff rank.

    >>> measured = set_metrics(np.array([[False, True]]), np.array([2]), k=2)
    >>> {name: round(float(values[0]), 4) for name, values in measured.items()}
    {'hit_rate': 1.0, 'recall': 0.5, 'mrr': 0.5, 'ndcg': 0.3869}
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
    """Mark lists that are too short, repeat an item, or contain an id outside the catalog.

    Args:
        ranked: (U, K) lists.
        wanted: (U,) required number of items in each list, or one number for all lists.

    >>> invalid(np.array([[1, 2], [1, 1], [1, -2], [1, -1]]), 2).tolist()
    [False, True, True, True]
    """
    bad: BoolArray = (ranked >= 0).sum(axis=1) < np.asarray(wanted)
    for part in _parts(ranked):
        bad[part] |= (ranked[part] == UNKNOWN).any(axis=1) | _repeated(ranked[part]).any(axis=1)
    return bad


def coverage(ranked: RowArray, n_items: int, k: int) -> float:
    """Compute coverage: |items among the first k of any list| / |catalog|.

    Args:
        ranked: (U, K) lists.
        n_items: the size of the catalog.
        k: the cutoff rank.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=4, k=1)
    0.25
    """
    return float((exposure(ranked, n_items, k) > 0).mean())


def exposure(ranked: RowArray, n_items: int, k: int) -> IntArray:
    """Count, for each item, the lists that contain it among their first k items.

    Args:
        ranked: (U, K) lists.
        n_items: the size of the catalog.
        k: the cutoff rank.

    >>> exposure(np.array([[0, 1], [0, 2]]), n_items=4, k=2).tolist()
    [2, 1, 1, 0]
    """
    top = ranked[:, :k]
    return np.bincount(top[top >= 0], minlength=n_items)


def gini(counts: npt.ArrayLike) -> float:
    """Compute the Gini coefficient of counts: 0 if all are equal, near 1 if one item has all of them.

    For counts c_1 <= ... <= c_n, it is 2 sum(i c_i) / (n sum(c_i)) - (n + 1) / n.

    Args:
        counts: (n,) non-negative counts.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    c = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(c)
    if c.sum() == 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) @ c) / (n * c.sum()) - (n + 1) / n)


def novelty(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """Compute novelty per user: the mean of -log2(c_i / sum(c)) over the first k items, in bits.

    c_i is the count of item i, or 1 if the count is 0. The result is NaN for an empty list.

    Args:
        ranked: (U, K) lists.
        counts: (N,) number of events of each item.
        k: the cutoff rank.

    >>> novelty(np.array([[0, 1]]), [6, 2], k=2).round(4)
    array([1.2075])
    """
    c = np.asarray(counts, dtype=np.float64)
    return _mean_of(-np.log2(np.maximum(c, 1.0) / max(c.sum(), 1.0)), ranked, k)


def popularity(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the mean popularity percentile of each user's first k items.

    The percentile of an item with count c is (|items with a count below c| + |items with a count of
    at most c|) / 2N, where N is the size of the catalog. The average for random lists is 0.5. The
    result is NaN for an empty list.

    Args:
        ranked: (U, K) lists.
        counts: (N,) number of events of each item.
        k: the cutoff rank.

    >>> popularity(np.array([[2, 1]]), [0, 5, 9, 9], k=1)
    array([0.75])
    """
    c = np.asarray(counts)
    order = np.sort(c)
    low, high = np.searchsorted(order, c, "left"), np.searchsorted(order, c, "right")
    return _mean_of((low + high) / (2.0 * len(c)), ranked, k)


def diversity(ranked: RowArray, vectors: Any, k: int) -> FloatArray:
    """Compute diversity per user: 1 - the mean cosine over all pairs of the first k items.

    For unit vectors v of n items, the cosines of all ordered pairs sum to |sum(v)|^2 - n. The result
    is NaN for a list with fewer than two items.

    Args:
        ranked: (U, K) lists.
        vectors: (N, D) unit vectors by catalog row, as a NumPy array or SciPy sparse matrix.
        k: the cutoff rank.

    >>> diversity(np.array([[0, 1], [0, 2]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), k=2)
    array([0., 1.])
    """
    from scipy import sparse

    values = np.full(len(ranked), np.nan)
    for part in _parts(ranked, len(ranked[:1, :k].T) * 100):
        top = ranked[part, :k]
        n = (top >= 0).sum(axis=1)
        place = np.concatenate([[0], np.cumsum(n)]).astype(np.int32)
        chosen = sparse.csr_array(  # same dtype as the vectors, to avoid a copy
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
        values[part.start : part.stop][several] = 1.0 - mean
    return values


@dataclass(frozen=True, slots=True)
class Calibration:
    """Comparison of stated probabilities with outcomes, in B bins of about equal size.

    Attributes:
        stated: (B,) mean stated probability, ascending.
        observed: (B,) share of outcomes that came true.
        count: (B,) number of probabilities in each bin.
        error: the expected calibration error, sum(count |stated - observed|) / sum(count).
    """

    stated: FloatArray
    observed: FloatArray
    count: IntArray
    error: float


def calibration(stated: npt.ArrayLike, came_true: npt.ArrayLike, bins: int = 10) -> Calibration:
    """Compare stated probabilities with outcomes.

    Args:
        stated: (n,) probabilities.
        came_true: (n,) outcomes, 0 or 1.
        bins: the number of bins, into which the sorted probabilities are split about equally.

    >>> calibration([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 0], bins=2).error
    0.25
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
    """Split the users into slices with at most about ``MAX_CELLS`` cells each."""
    size = max(1, MAX_CELLS // max(1, width or ranked.shape[1]))
    for first in range(0, len(ranked), size):
        yield slice(first, min(first + size, len(ranked)))


def _repeated(rows: RowArray) -> BoolArray:
    """Mark the positions in (U, K) lists whose item also appears earlier in the same list."""
    repeated = np.zeros(rows.shape, dtype=bool)
    ordered = np.sort(
        rows, axis=1
    )  # much faster than argsort, and sufficient for lists without repeats
    same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    users = np.flatnonzero(same.any(axis=1))
    order = np.argsort(rows[users], axis=1, kind="stable")
    later = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(later, order[:, 1:], same[users], axis=1)
    repeated[users] = later
    return repeated


def _mean_of(values: FloatArray, ranked: RowArray, k: int) -> FloatArray:
    """Average the (N,) values of the first k items of each list. The average of an empty list is NaN."""
    top = ranked[:, :k]
    n = (top >= 0).sum(axis=1)
    total = np.zeros(len(top))
    for column in top.T:
        total += np.where(column >= 0, values[column], 0.0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
