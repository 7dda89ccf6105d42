"""Compare the quality of lists between groups of users, such as countries.

This module works with labels and the values of metrics for each user; ``genrec.data.user_groups``
makes the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.user_groups import order_groups
from genrec.evaluation.bootstrap import Interval, resample_means
from genrec.evaluation.comparisons import plain_intervals
from genrec.evaluation.slices import DRAWS, LEAST, Slice, by_slice
from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class UserGroup:
    """The results of all systems for a group of users.

    Attributes:
        slice: the number of users, and the metrics of each system with their intervals.
        differences: for each system and metric, the mean of these users minus the mean of all other
            users, with its 95% bootstrap interval; empty if either are fewer than ``LEAST``.
    """

    slice: Slice
    differences: Mapping[str, Mapping[str, Interval]]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dictionary that can be written as JSON."""
        gaps = {name: plain_intervals(found) for name, found in self.differences.items()}
        return {**self.slice.to_dict(), "less_others": gaps}


def compare_groups(
    labels: Sequence[str],
    values: Mapping[tuple[str, str], FloatArray],
    best_parts: Mapping[str, str],
) -> dict[str, UserGroup]:
    """Compute the results of each group of users, and their differences from all other users.

    Args:
        labels: the group of each of the U users.
        values: the (U,) values of the users, keyed by system and metric.
        best_parts: the best part of each combined system; see ``slices.best_parts``.

    Returns:
        The groups, the largest first; empty if all users are in the same group.
    """
    slices = by_slice({"group": labels}, values, best_parts).get("group", {})
    if not slices:
        return {}
    of, order = np.array(labels), order_groups(labels)
    columns = np.stack([values[key] for key in values])
    gaps = _gaps(columns, [np.flatnonzero(of == label) for label in order])
    found = {}
    for label, gap in zip(order, gaps, strict=True):
        differences: dict[str, dict[str, Interval]] = {}
        for (system, metric), interval in zip(values, gap, strict=False):
            differences.setdefault(system, {})[metric] = interval
        found[label] = UserGroup(slices[label], differences)
    return found


def _gaps(columns: FloatArray, groups: Sequence[IntArray]) -> list[list[Interval]]:
    """Compute the difference of each group's means from those of all other users.

    The users of each group are resampled by themselves, so the sizes of the groups stay the same.

    Args:
        columns: (M, U) the values of M metrics for U users.
        groups: the places of the users of each group.

    Returns:
        The M differences of each group, with 95% percentile bootstrap intervals; none if it or the
        rest has fewer than ``LEAST`` users.
    """
    sums, drawn = [], []
    for seed, places in enumerate(groups):
        own = np.ascontiguousarray(columns[:, places])
        sums.append(own.sum(axis=1))
        drawn.append(resample_means(own, DRAWS, seed) * len(places))
    total, total_drawn = sum(sums), sum(drawn)
    found: list[list[Interval]] = []
    for places, own, of_draws in zip(groups, sums, drawn, strict=True):
        n, rest = len(places), columns.shape[1] - len(places)
        if min(n, rest) < LEAST:
            found.append([])
            continue
        gap = own / n - (total - own) / rest
        low, high = np.quantile(
            of_draws / n - (total_drawn - of_draws) / rest, [0.025, 0.975], axis=1
        )
        found.append([Interval(*map(float, e)) for e in zip(gap, low, high, strict=True)])
    return found
