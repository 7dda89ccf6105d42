"""Ranking metrics, per user first, and intervals over users. Knows ids and numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    values: npt.ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of per-user values with a percentile bootstrap interval over users.

    For two systems give the per-user differences: the paired interval.

    Args:
        values: (users,) numbers; at least one.
        level: the share of bootstrap means inside.
        draws: resamples.
        seed: of the resampling.
    """
    v = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [v[rng.integers(0, len(v), (500, len(v)))].mean(axis=1) for _ in range(-(-draws // 500))]
    )
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(v.mean()), float(low), float(high))
