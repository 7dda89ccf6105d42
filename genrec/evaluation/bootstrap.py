"""Compute bootstrap confidence intervals for means over users.

This module works with numbers only and does not know which metrics they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genrec.evaluation.metrics import ALIKE_ABOVE, MAX_CELLS
from genrec.types import FloatArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users, with its bootstrap confidence interval.

    Attributes:
        mean: the mean.
        low, high: the lower and the upper bound of the interval.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    values: npt.ArrayLike, *, level: float = 0.95, draws: int | None = None, seed: int = 0
) -> Interval:
    """Compute the mean of per-user values with a percentile bootstrap interval.

    Each resample draws the same number of users with replacement. The bounds of the interval are
    two quantiles of the resampled means: (1 - level) / 2 and (1 + level) / 2. To compare two
    systems, pass the per-user differences to get a paired interval.

    Args:
        values: one value per user, for at least one user.
        level: the share of resampled means inside the interval.
        draws: the number of resamples. If None, it is 10,000 for up to 10,000 users; for more
            users, it is 10^8 divided by the number of users, but at least 1,000.
        seed: the random seed of the resampling.

    >>> bootstrap([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    return bootstraps(np.asarray(values)[:, None], level=level, draws=draws, seed=seed)[0]


def bootstraps(
    values: npt.ArrayLike, *, level: float = 0.95, draws: int | None = None, seed: int = 0
) -> list[Interval]:
    """Compute the mean and the interval of several metrics at once; see ``bootstrap``.

    All metrics share the same resamples, except that with more than 10,000 users, a metric with few
    distinct values is treated separately: the number of users with each value is resampled, which
    is equivalent and faster.

    Args:
        values: (n, M) the values of M metrics for n users.
        level: see ``bootstrap``.
        draws: see ``bootstrap``.
        seed: see ``bootstrap``.
    """
    v = np.asarray(values, dtype=np.float64)
    n = len(v)
    draws = draws or min(10_000, max(1_000, 100_000_000 // n))
    means = np.empty((v.shape[1], draws))
    rest = list(range(v.shape[1]))
    for column, per_user in enumerate(v.T if n > ALIKE_ABOVE else ()):
        distinct, count = np.unique(per_user, return_counts=True)
        if len(distinct) <= min(n // 100, 1_000):
            rng = np.random.default_rng(seed)
            means[column] = rng.multinomial(n, count / n, draws) @ distinct / n
            rest.remove(column)
    if rest:
        means[rest] = resample_means(np.ascontiguousarray(v[:, rest].T), draws, seed)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=1)
    return [Interval(*map(float, each)) for each in zip(v.mean(axis=0), low, high, strict=True)]


def resample_means(columns: FloatArray, draws: int, seed: int) -> FloatArray:
    """Compute the means of M metrics over random resamples of n users.

    Args:
        columns: (M, n) the values of the metrics.
        draws: the number of resamples.
        seed: the random seed.

    Returns:
        (M, draws) the mean of each metric in each resample.
    """
    n = columns.shape[1]
    rng = np.random.default_rng(seed)
    size = max(1, MAX_CELLS // n)
    means = np.empty((len(columns), draws))
    for first in range(0, draws, size):
        many = min(size, draws - first)
        drawn = rng.integers(0, n, (many, n))
        drawn += n * np.arange(many)[:, None]
        times = np.bincount(drawn.ravel(), minlength=many * n).astype(np.float64)
        means[:, first : first + many] = columns @ times.reshape(many, n).T / n
    return means
