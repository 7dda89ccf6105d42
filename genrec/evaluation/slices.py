"""Break results down by slices of users, and compare combined systems with their parts.

This module works with labels and the values of metrics for each user; ``genrec.data.slices`` makes
the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.slices import in_order
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.comparisons import (
    Comparison,
    intervals,
    judge,
    plain_comparisons,
    plain_intervals,
)
from genrec.types import FloatArray

LEAST = 20  # the minimum number of users of a slice for which means and intervals are computed
DRAWS = 2_000  # the number of bootstrap resamples for a slice


@dataclass(frozen=True, slots=True)
class Slice:
    """The results of all systems for a slice of users.

    Attributes:
        users: the number of these users.
        intervals: the mean and the 95% interval of each metric, keyed by system and metric; empty if
            there are fewer than ``LEAST`` users.
        comparisons: comparisons of each combined system with its best part; empty if there are fewer
            than ``LEAST`` users.
    """

    users: int
    intervals: Mapping[str, Mapping[str, Interval]]
    comparisons: Sequence[Comparison]

    def difference(self, ours: str, metric: str) -> Interval | None:
        """Return the difference of a system from its best part in a metric; None if it has none."""
        found = (c.difference for c in self.comparisons if (c.ours, c.metric) == (ours, metric))
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """Return the slice as a dictionary of plain values that can be written as JSON."""
        return {
            "users": self.users,
            "systems": {name: plain_intervals(found) for name, found in self.intervals.items()},
            "comparisons": plain_comparisons(self.comparisons),
        }


def by_slice(
    labels: Mapping[str, Sequence[str]],
    values: Mapping[tuple[str, str], FloatArray],
    best_parts: Mapping[str, str],
) -> dict[str, dict[str, Slice]]:
    """Compute the results of each slice of users, keyed by kind of slice and label.

    A kind of slice is left out if all users have the same label.

    Args:
        labels: for each kind of slice, the labels of the U users.
        values: the (U,) values of the users, keyed by system and metric; NaN for a user without a
            value.
        best_parts: the best part of each combined system, which it is compared with; see
            ``best_parts``.
    """
    pairs = {
        (ours, other, metric): values[ours, metric] - values[other, metric]
        for ours, other in best_parts.items()
        for system, metric in values
        if system == ours and (other, metric) in values
    }
    found: dict[str, dict[str, Slice]] = {}
    for kind, each in labels.items():
        several = in_order(each)
        for label in several if len(several) > 1 else ():
            inside = np.array(each) == label
            slice_values = {key: v[inside] for key, v in values.items()}
            differences = {key: v[inside] for key, v in pairs.items()}
            found.setdefault(kind, {})[label] = _slice(
                f"{kind}: {label}", int(inside.sum()), slice_values, differences
            )
    return found


def _slice(
    name: str,
    users: int,
    values: Mapping[tuple[str, str], FloatArray],
    differences: Mapping[tuple[str, str, str], FloatArray],
) -> Slice:
    if users < LEAST:
        return Slice(users, {}, ())
    by_system: dict[str, dict[str, Interval]] = {system: {} for system, _ in values}
    for (system, metric), interval in intervals(values, DRAWS).items():
        by_system[system][metric] = interval
    comparisons = [
        Comparison(ours, other, metric, difference, users, judge(metric, difference), name)
        for (ours, other, metric), difference in intervals(differences, DRAWS).items()
    ]
    return Slice(users, by_system, comparisons)


def best_parts(
    parts: Mapping[str, Sequence[str]], values: Mapping[tuple[str, str], FloatArray], metric: str
) -> dict[str, str]:
    """Choose the best part of each combined system by the mean of a metric over all users.

    The same part is used in all slices. If it were chosen in each slice, it would often be the part
    that was lucky there.

    Args:
        parts: the names of the parts of each combined system; a part may be missing in ``values``.
        values: the (U,) values of the users, keyed by system and metric.
        metric: a metric for which higher is better.
    """
    best = {}
    for ours, names in parts.items():
        known = [name for name in names if (name, metric) in values]
        if known and (ours, metric) in values:
            best[ours] = max(known, key=lambda name: float(np.mean(values[name, metric])))
    return best
