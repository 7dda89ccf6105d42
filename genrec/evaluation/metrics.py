"""Compute ranking metrics for each user.

The lists of U users are stored as a matrix of catalog rows with the shape (U, K), best items first.
In this matrix, -1 fills the positions after the end of a list, and -2 stands for an id that is not
in the catalog. The relevant items of all users are stored in one array of rows, user after user. An
array of U + 1 offsets gives the start and the end of each user's part.

This module works with ids, catalog rows and numbers only.
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
ALIKE_ABOVE = 10_000  # with more users than this, users with the same value are resampled together
MAX_CELLS = 250_000  # the maximum number of matrix cells that are processed at a time


def rank_of(target: str, ranked: Sequence[str]) -> int:
    """Return the rank of a target in a list, starting at 1; or 0 if it is not in the list.

    >>> rank_of("b", ["a", "b"]), rank_of("c", ["a", "b"])
    (2, 0)
    """
    return list(ranked).index(target) + 1 if target in ranked else 0


def hit_rate(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the hit rate at k (HR@k) for each user.

    It is 1 if the target is among the first k items, and 0 otherwise.

    Args:
        ranks: (U,) the rank of each user's only target, starting at 1; 0 if it is not in the list.
        k: the number of items to consider.

    >>> hit_rate([1, 10, 11, 0], k=10)
    array([1., 1., 0., 0.])
    """
    r = np.asarray(ranks)
    return ((r >= 1) & (r <= k)).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the normalized discounted cumulative gain at k (NDCG@k) for each user.

    It is 1 / log2(r + 1) if the target is among the first k items, where r is its rank, and 0
    otherwise. With one target, the best possible value is 1, so no division is needed.

    Args:
        ranks: (U,) the rank of each user's only target, starting at 1; 0 if it is not in the list.
        k: the number of items to consider.

    >>> ndcg([1, 3, 11, 0], k=10)
    array([1. , 0.5, 0. , 0. ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.log2(np.maximum(r, 1.0) + 1.0), 0.0)


def mrr(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the reciprocal rank at k for each user, whose mean over users is MRR@k.

    It is 1 / r if the target is among the first k items, where r is its rank, and 0 otherwise.

    Args:
        ranks: (U,) the rank of each user's only target, starting at 1; 0 if it is not in the list.
        k: the number of items to consider.

    >>> mrr([1, 4, 11, 0], k=10)
    array([1.  , 0.25, 0.  , 0.  ])
    """
    r = np.asarray(ranks, dtype=np.float64)
    return np.where(hit_rate(r, k) > 0, 1.0 / np.maximum(r, 1.0), 0.0)


def recall(
    relevant: Sequence[Sequence[str]], ranked: Sequence[Sequence[str]], k: int
) -> FloatArray:
    """Compute recall@k for each user: the share of relevant items that are among the first k items.

    Args:
        relevant: the relevant items of each of the U users; duplicates count once.
        ranked: the ranked list of each user, best item first.
        k: the number of items to consider.

    Returns:
        (U,) the recall of each user.

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
    """Convert lists of item ids to a matrix of catalog rows.

    Args:
        ranked: the ranked list of each of the U users, best item first.
        row_of: a mapping from item ids to catalog rows.

    Returns:
        A (U, K) matrix, where K is the length of the longest list; see the module's docstring.

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
    """Compute where each user's part starts in an array that concatenates the sets of all users.

    Args:
        sets: the set of items of each of the U users.

    Returns:
        (U + 1,) the start of each part, followed by the length of the array.

    >>> starts([["a", "b"], [], ["c"]]).tolist()
    [0, 2, 2, 3]
    """
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    return np.concatenate([[0], np.cumsum(lengths)])


def ranks_of(targets: npt.ArrayLike, ranked: RowArray) -> IntArray:
    """Find the rank of each user's only target in the user's list.

    Args:
        targets: (U,) the catalog row of each target.
        ranked: (U, K) the lists; see the module's docstring.

    Returns:
        (U,) the ranks, starting at 1; 0 if the target is not in the list.

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
    """Mark the positions of relevant items in the lists, counting repeated items only once.

    Args:
        relevant: the catalog rows of the relevant items of all users, user after user.
        start: (U + 1,) the offsets of each user's part in ``relevant``; see ``starts``.
        ranked: (U, K) the lists; see the module's docstring.

    Returns:
        (U, K) a mask that is True at the positions of relevant items.

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
    """Compute four metrics for users who each have a set of relevant items.

    Let n be the number of relevant items of a user, and let the hits be the relevant items among
    the first k items of the list:

    - ``hit_rate``: 1 if there is a hit, otherwise 0
    - ``recall``: the number of hits divided by n
    - ``mrr``: 1 / r, where r is the rank of the first hit, or 0 if there is no hit
    - ``ndcg``: the sum of 1 / log2(r + 1) over the ranks r of the hits, divided by the same sum over
      the ranks from 1 to min(n, k)

    Args:
        hit: (U, K) the mask that ``hits`` returns.
        n_relevant: (U,) the number of distinct relevant items of each user, at least 1.
        k: the number of items to consider.

    Returns:
        For each metric, keyed by name, the (U,) values for the users.

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
    """Mark lists that are too short, repeat an item, or contain an id that is not in the catalog.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        wanted: (U,) the required number of items in each list, or one number for all lists.

    Returns:
        (U,) a mask that is True for invalid lists.

    >>> invalid(np.array([[1, 2], [1, 1], [1, -2], [1, -1]]), 2).tolist()
    [False, True, True, True]
    """
    bad: BoolArray = (ranked >= 0).sum(axis=1) < np.asarray(wanted)
    for part in _parts(ranked):
        bad[part] |= (ranked[part] == UNKNOWN).any(axis=1) | _repeated(ranked[part]).any(axis=1)
    return bad


def coverage(ranked: RowArray, n_items: int, k: int) -> float:
    """Compute the share of the catalog's items that are among the first k items of any list.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        n_items: the number of items in the catalog.
        k: the number of items in each list to consider.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=4, k=1)
    0.25
    """
    return float((exposure(ranked, n_items, k) > 0).mean())


def exposure(ranked: RowArray, n_items: int, k: int) -> IntArray:
    """Count the lists that contain each item among their first k items.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        n_items: the number of items in the catalog.
        k: the number of items in each list to consider.

    Returns:
        The number of lists for each catalog row.

    >>> exposure(np.array([[0, 1], [0, 2]]), n_items=4, k=2).tolist()
    [2, 1, 1, 0]
    """
    top = ranked[:, :k]
    return np.bincount(top[top >= 0], minlength=n_items)


def gini(counts: npt.ArrayLike) -> float:
    """Compute the Gini coefficient of counts, a measure of their inequality.

    It is 0 if all counts are equal, and close to 1 if one item has all of them. For counts
    c_1 <= ... <= c_n, it is 2 sum(i c_i) / (n sum(c_i)) - (n + 1) / n.

    Args:
        counts: (n,) the counts, which must not be negative.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    c = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(c)
    if c.sum() == 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) @ c) / (n * c.sum()) - (n + 1) / n)


def novelty(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the novelty of each user's first k items, in bits.

    It is the mean of -log2(c_i / sum(c)) over these items, where c_i is the number of events of
    item i, or 1 if there are none. It is NaN for an empty list.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        counts: (N,) the number of events of each item in the catalog.
        k: the number of items in each list to consider.

    Returns:
        (U,) the novelty for each user.

    >>> novelty(np.array([[0, 1]]), [6, 2], k=2).round(4)
    array([1.2075])
    """
    c = np.asarray(counts, dtype=np.float64)
    return _mean_of(-np.log2(np.maximum(c, 1.0) / max(c.sum(), 1.0)), ranked, k)


def popularity(ranked: RowArray, counts: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the mean popularity percentile of each user's first k items.

    Let N be the number of items in the catalog. The percentile of an item with c events is the
    number of items with fewer than c events, plus the number of items with at most c events,
    divided by 2N. The average for random lists is 0.5. The result is NaN for an empty list.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        counts: (N,) the number of events of each item in the catalog.
        k: the number of items in each list to consider.

    Returns:
        (U,) the mean percentile for each user.

    >>> popularity(np.array([[2, 1]]), [0, 5, 9, 9], k=1)
    array([0.75])
    """
    c = np.asarray(counts)
    order = np.sort(c)
    low, high = np.searchsorted(order, c, "left"), np.searchsorted(order, c, "right")
    return _mean_of((low + high) / (2.0 * len(c)), ranked, k)


def diversity(ranked: RowArray, vectors: Any, k: int) -> FloatArray:
    """Compute the diversity of each user's first k items.

    It is 1 minus the mean cosine over all pairs of these items, and NaN for a list with fewer than
    two items. For the vectors v of n items, the cosines of all ordered pairs sum to |sum(v)|^2 - n.

    Args:
        ranked: (U, K) the lists; see the module's docstring.
        vectors: (N, D) a unit vector for each item in the catalog, as a NumPy array or a
            SciPy sparse matrix.
        k: the number of items in each list to consider.

    Returns:
        (U,) the diversity for each user.

    >>> diversity(np.array([[0, 1], [0, 2]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), k=2)
    array([0., 1.])
    """
    from scipy import sparse

    values = np.full(len(ranked), np.nan)
    for part in _parts(ranked, len(ranked[:1, :k].T) * 100):
        top = ranked[part, :k]
        n = (top >= 0).sum(axis=1)
        place = np.concatenate([[0], np.cumsum(n)]).astype(np.int32)
        chosen = sparse.csr_array(  # it has the same dtype as the vectors, which avoids a copy
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
    """A comparison of stated probabilities with outcomes, in B bins of about equal size.

    Attributes:
        stated: (B,) the mean stated probability in each bin, in ascending order.
        observed: (B,) the share of outcomes in each bin that came true.
        count: (B,) the number of probabilities in each bin.
        error: the expected calibration error, which is the mean of |stated - observed| over the
            bins, weighted by their counts.
    """

    stated: FloatArray
    observed: FloatArray
    count: IntArray
    error: float


def calibration(stated: npt.ArrayLike, came_true: npt.ArrayLike, bins: int = 10) -> Calibration:
    """Compare stated probabilities with the actual outcomes.

    Args:
        stated: (n,) the stated probabilities.
        came_true: (n,) the outcome for each probability, 1 if it came true and 0 if not.
        bins: the number of bins. The sorted probabilities are split into bins of about equal size.

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
    """Yield slices of users such that each slice of the matrix has about ``MAX_CELLS`` cells."""
    size = max(1, MAX_CELLS // max(1, width or ranked.shape[1]))
    for first in range(0, len(ranked), size):
        yield slice(first, min(first + size, len(ranked)))


def _repeated(rows: RowArray) -> BoolArray:
    """Mark the positions of items that also appear earlier in the same list.

    Args:
        rows: (U, K) the lists; see the module's docstring.

    Returns:
        (U, K) a mask that is True at the positions of repeated items.
    """
    repeated = np.zeros(rows.shape, dtype=bool)
    ordered = np.sort(
        rows, axis=1
    )  # sorting is much faster than argsort, and is enough for lists without repeated items
    same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    users = np.flatnonzero(same.any(axis=1))
    order = np.argsort(rows[users], axis=1, kind="stable")
    later = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(later, order[:, 1:], same[users], axis=1)
    repeated[users] = later
    return repeated


def _mean_of(values: FloatArray, ranked: RowArray, k: int) -> FloatArray:
    """Compute the mean value of the first k items of each list.

    Args:
        values: (N,) the value of each item in the catalog.
        ranked: (U, K) the lists; see the module's docstring.
        k: the number of items in each list to consider.

    Returns:
        (U,) the means; NaN for an empty list.
    """
    top = ranked[:, :k]
    n = (top >= 0).sum(axis=1)
    total = np.zeros(len(top))
    for column in top.T:
        total += np.where(column >= 0, values[column], 0.0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
