"""Compare systems on the same users, with confidence intervals.

This module works with the values of metrics for each user, not with lists or cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from genrec.evaluation import bootstrap
from genrec.evaluation.bootstrap import Interval
from genrec.types import FloatArray

LEAST_USERS = 500  # with fewer users, it should not be claimed that one system beats another
LOWER_IS_BETTER = ("nats", "seconds", "invalid")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two systems in a metric, measured on the same users.

    Attributes:
        ours, other: the names of the systems.
        metric: the name of the metric.
        difference: the mean difference over users (ours minus other), with its 95% bootstrap
            interval.
        users: the number of users.
        verdict: ``better``, ``worse`` or ``not distinguishable``.
        targets: ``all``, or ``new`` or ``repeat`` if only users with such a target were compared;
            for a slice of users, its kind and label, such as ``popularity: cold``.
    """

    ours: str
    other: str
    metric: str
    difference: Interval
    users: int
    verdict: str
    targets: str = "all"

    def __str__(self) -> str:
        """Return the comparison as a sentence without a final period."""
        link = "from" if self.verdict == "not distinguishable" else "than"
        few = (
            f"; fewer than {LEAST_USERS} users are too few to support a claim"
            if self.users < LEAST_USERS and self.verdict != "not distinguishable"
            else ""
        )
        on = {"all": "", "new": " on new targets", "repeat": " on repeats"}.get(
            self.targets, f" in the slice {self.targets}"
        )
        d = self.difference
        return (
            f"{self.ours} is {self.verdict} {link} {self.other} in {self.metric}{on}: difference "
            f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {self.users:,} users{few}"
        )


def judge(metric: str, difference: Interval) -> str:
    """Return ``better``, ``worse`` or ``not distinguishable`` for a difference in a metric.

    >>> judge("nats", Interval(-0.2, -0.3, -0.1)), judge("ndcg@10", Interval(0.1, -0.1, 0.3))
    ('better', 'not distinguishable')
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def intervals(values: Mapping[Key, FloatArray], draws: int | None = None) -> dict[Key, Interval]:
    """Compute the mean and the 95% interval of each metric over the users who have a value.

    A metric is left out if no user has a value.

    Args:
        values: the values of all users, with any keys, such as system and metric; NaN for a user
            without a value.
        draws: the number of bootstrap resamples; see ``bootstrap.bootstrap``.
    """
    complete = [name for name, v in values.items() if len(v) and not np.isnan(v).any()]
    by_name = {}
    if complete:
        columns = np.stack([values[n] for n in complete], axis=1)
        by_name = dict(zip(complete, bootstrap.bootstraps(columns, draws=draws), strict=True))
    for name, v in values.items():
        known = v[~np.isnan(v)]
        if name not in by_name and len(known):
            by_name[name] = bootstrap.bootstrap(known, draws=draws)
    return {name: by_name[name] for name in values if name in by_name}


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def plain_comparisons(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as plain values that can be written as JSON."""
    return [
        {
            "system": c.ours,
            "other": c.other,
            "metric": c.metric,
            **_interval(c.difference),
            "verdict": c.verdict,
            "said": str(c),
        }
        for c in comparisons
    ]


def plain_intervals(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Return the intervals of metrics as plain values that can be written as JSON."""
    return {metric: _interval(interval) for metric, interval in intervals.items()}
