"""Compare two arms of an experiment with a test that may be looked at after every user.

An ordinary test of a difference is valid for one look, which must be planned in advance. Whoever looks
every day and stops at the first significant difference is wrong far more often than in 5% of the
cases. A confidence sequence is a sequence of intervals that all contain the true difference at the
same time with the stated probability, so a decision at any look is valid. This module works with
numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genrec.types import BoolArray, FloatArray, IntArray

LEAST_USERS = 50  # of each arm, before which nothing is decided
LEAST_DIFFERENT = 10  # users of both arms together whose value is not the most frequent one


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of the means of two arms, with its interval of a confidence sequence.

    Attributes:
        difference: the mean of the second arm minus that of the first; NaN without users.
        low, high: the bounds of the present interval. They are infinite before ``LEAST_USERS``.
        users: the number of users of each arm.
        decided_after: the number of users of both arms after which the interval first excluded 0;
            None if it never did.
        second_is_better: the decision: True if the second arm has the higher mean; None if the
            interval never excluded 0.
    """

    difference: float
    low: float
    high: float
    users: tuple[int, int]
    decided_after: int | None = None
    second_is_better: bool | None = None


def compare(
    values: FloatArray, second: BoolArray, *, level: float = 0.95, planned: int = 2000
) -> Comparison:
    """Compare the means of two arms after every user.

    The interval is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
    Ramdas (2024, Time-uniform central limit theory and asymptotic confidence sequences, Annals of
    Statistics 52, https://arxiv.org/abs/2103.06476), theorem 2.2, for the difference of two means.
    With n1 and n2 users, variances v1 and v2 of their values, t = n1 + n2 and the error rate a, it is

        difference +- sqrt(v1 / n1 + v2 / n2) * sqrt(2 (t r + 1) / (t r) * log(sqrt(t r + 1) / a)).

    The number r decides after how many users the interval is tightest compared with an ordinary one.
    It does not affect the validity. "Asymptotic" means that the stated level holds for large numbers of
    users, as that of the usual normal interval, so nothing is decided before ``LEAST_USERS`` users of
    each arm have been seen, and before ``LEAST_DIFFERENT`` users differ from the rest. In a small arm
    in which hardly anyone has accepted anything yet, the variance would be far too low, so v1 and v2
    are at least the variance of all values together. Without that, up to 30% of the experiments with 10%
    of the users in one arm and a rate of .02 were decided although there was no difference.

    Args:
        values: (n,) the value of each user, in the order in which the users came. A value must not
            change later.
        second: (n,) True for the users of the second arm.
        level: the probability that all intervals contain the true difference.
        planned: the number of users of both arms at which the interval should be tightest.
    """
    n = np.stack([np.cumsum(~second), np.cumsum(second)]).astype(np.float64)
    total = np.stack([np.cumsum(np.where(second, 0.0, values)), np.cumsum(values * second)])
    square = np.stack([np.cumsum(np.where(second, 0.0, values**2)), np.cumsum(values**2 * second)])
    if not len(values) or n[:, -1].min() == 0:
        one, other = (int(n[0, -1]), int(n[1, -1])) if len(values) else (0, 0)
        return Comparison(math.nan, -math.inf, math.inf, (one, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        variance = np.maximum(square / n - mean**2, 0.0) * n / (n - 1)
        every = n.sum(axis=0)
        pooled = np.maximum(square.sum(axis=0) / every - (total.sum(axis=0) / every) ** 2, 0.0)
        variance = np.maximum(variance, pooled * every / (every - 1))
        spread = np.sqrt((variance / n).sum(axis=0))
    difference = mean[1] - mean[0]
    half = spread * _width(every, 1.0 - level, planned)
    ready = (n.min(axis=0) >= LEAST_USERS) & (_different(values) >= LEAST_DIFFERENT)
    found = np.flatnonzero(ready & (np.abs(difference) > half))
    last = float(half[-1]) if ready[-1] else math.inf
    return Comparison(
        float(difference[-1]),
        float(difference[-1]) - last,
        float(difference[-1]) + last,
        (int(n[0, -1]), int(n[1, -1])),
        int(found[0]) + 1 if len(found) else None,
        bool(difference[found[0]] > 0) if len(found) else None,
    )


def _width(users: FloatArray, error: float, planned: int) -> FloatArray:
    """Return the half width of the interval in standard errors of the difference.

    Args:
        users: (n,) the numbers of users.
        error: the error rate.
        planned: the number of users at which it should be smallest.
    """
    a = -2 * math.log(error)
    rate = users * (a + math.log(a + 1)) / planned
    return np.asarray(np.sqrt(2 * (rate + 1) / rate * (np.log(rate + 1) / 2 - math.log(error))))


def _different(values: FloatArray) -> IntArray:
    """Count, after each user, the users so far whose value is not the most frequent one of all."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.cumsum(which.reshape(-1) != int(np.argmax(counts)))
