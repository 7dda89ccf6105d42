"""Measure which groups of items the lists show, by popularity or by an attribute such as the brand.

The share of a group is the fraction of the places in a list that its items take. Its exposure
weights these places by how much attention they get, 1 / log2(rank + 1), as in Singh & Joachims
(2018, "Fairness of Exposure in Rankings"). Both are compared with three shares that do not depend on
a system: of the catalog's items, of the events that the systems were fitted on, and of the targets.

The head, the middle and the tail are those of Abdollahpouri et al. (2019, "The Unfairness of
Popularity Bias in Recommendation"): the most popular items that have together a fifth of all events,
the least popular items that have together at most a fifth, and all others. Items with the same
number of events are never divided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.context import to_text
from genrec.data.user_groups import join_rare, order_groups
from genrec.errors import RequestError
from genrec.evaluation.bootstrap import Interval
from genrec.evaluation.comparisons import intervals, plain_intervals
from genrec.evaluation.metrics import RowArray, as_rows
from genrec.types import FloatArray, IntArray

POPULARITY = "popularity"  # the groups by the number of events, not a column
HEAD, MIDDLE, TAIL, COLD = LEVELS = ("head", "middle", "tail", "cold")
_PART = 5  # the head and the tail have about one event in this many
_DRAWS = 2_000  # the number of bootstrap resamples


@dataclass(frozen=True, slots=True)
class GroupExposure:
    """How often the lists show a group of items.

    Attributes:
        items: the number of its items in the catalog.
        item_share, event_share, target_share: its share of the catalog's items, of the events that
            the systems were fitted on, and of the targets; 0 if there are none at all.
        intervals: for each system, ``share@K`` and ``exposure@K`` with their 95% intervals over
            users.
        coverage: for each system, the share of the group's items that are in any list.
    """

    items: int
    item_share: float
    event_share: float
    target_share: float
    intervals: Mapping[str, Mapping[str, Interval]]
    coverage: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dictionary that can be written as JSON."""
        return {
            "items": self.items,
            "item_share": self.item_share,
            "event_share": self.event_share,
            "target_share": self.target_share,
            "systems": {name: plain_intervals(found) for name, found in self.intervals.items()},
            "coverage": dict(self.coverage),
        }


def label_levels(counts: npt.ArrayLike) -> list[str]:
    """Label each item of a catalog as ``head``, ``middle``, ``tail`` or ``cold``.

    Args:
        counts: (N,) the number of events of each item. An item without events is cold.

    >>> label_levels([0, 1, 1, 2, 3, 4])
    ['cold', 'tail', 'tail', 'middle', 'middle', 'head']
    """
    c = np.asarray(counts)
    sizes = np.arange(int(c.max(initial=0)) + 1)
    events = np.bincount(c, minlength=len(sizes)) * sizes  # of all items with so many events
    fifth = c.sum() / _PART
    below = np.cumsum(events)
    above = np.cumsum(events[::-1])[::-1]
    least_head = int(np.flatnonzero(above >= fifth)[-1]) if fifth else len(sizes)
    most_tail = int(np.searchsorted(below, fifth, side="right")) - 1
    return [
        COLD if not n else HEAD if n >= least_head else TAIL if n <= most_tail else MIDDLE
        for n in c.tolist()
    ]


def check_column(catalog: Catalog, column: str) -> None:
    """Check that exposure can be measured by a column.

    Raises:
        RequestError: it is neither ``popularity`` nor an attribute of the catalog.
    """
    known = [name for name in catalog.columns if name not in {"item_id", "title"}]
    if column not in [POPULARITY, *known]:
        msg = (
            f"Exposure cannot be measured by {column!r}. Expected {POPULARITY}, or one of the columns of "
            f"the catalog: {', '.join(known) or 'it has no further columns'}."
        )
        raise RequestError(msg)


def label_items(catalog: Catalog, column: str) -> list[str]:
    """Label each item by its value of an attribute; the values of the fewest items are joined."""
    return join_rare(to_text(item.attributes.get(column)) for item in catalog)


def measure_exposure(
    labels: Sequence[str],
    order: Sequence[str],
    lists: Mapping[str, RowArray],
    counts: IntArray,
    targets: npt.ArrayLike,
    k: int,
) -> dict[str, GroupExposure]:
    """Measure the exposure of each group of items.

    Args:
        labels: the group of each of the N items in the catalog.
        order: the groups in the order in which they are returned; groups without items are left out.
        lists: (U, K) the lists of each system as catalog rows; see ``genrec.evaluation.metrics``.
        counts: (N,) the number of events of each item.
        targets: (U,) the catalog row of each target.
        k: the number of items in each list to consider.
    """
    of, goals = np.array(labels), np.asarray(targets)
    values: dict[tuple[str, str, str], FloatArray] = {}
    for system, rows in lists.items():
        top = rows[:, :k]
        listed = top >= 0
        weight = listed / np.log2(np.arange(2, top.shape[1] + 2))
        for group in order:
            inside = listed & (of == group)[np.where(listed, top, 0)]
            with np.errstate(invalid="ignore"):  # an empty list has no shares
                values[group, system, f"share@{k}"] = inside.sum(axis=1) / listed.sum(axis=1)
                shown = (weight * inside).sum(axis=1)
                values[group, system, f"exposure@{k}"] = shown / weight.sum(axis=1)
    found = intervals(values, _DRAWS)
    measured = {}
    for group in order:
        member = of == group
        if not member.any():
            continue
        by_system: dict[str, dict[str, Interval]] = {system: {} for system in lists}
        for (label, system, metric), interval in found.items():
            if label == group:
                by_system[system][metric] = interval
        covered = {
            system: len(np.intersect1d(rows[:, :k], np.flatnonzero(member))) / int(member.sum())
            for system, rows in lists.items()
        }
        measured[group] = GroupExposure(
            int(member.sum()),
            float(member.mean()),
            float(counts[member].sum() / max(counts.sum(), 1)),
            float(member[goals].mean()) if len(goals) else 0.0,
            by_system,
            covered,
        )
    return measured


@dataclass(frozen=True)
class ItemGroups:
    """The groups of items whose exposure is measured.

    Attributes:
        row_of: the catalog row of each item id.
        counts: (N,) the number of events of each item that the systems were fitted on.
        labels: for ``popularity`` and each column, the group of each item, and the order of the
            groups.
    """

    row_of: Mapping[str, int]
    counts: IntArray
    labels: Mapping[str, tuple[Sequence[str], Sequence[str]]]

    @classmethod
    def of(cls, catalog: Catalog, counts: IntArray, columns: Sequence[str]) -> ItemGroups:
        """Group the items of a catalog by popularity and by columns; see ``label_items``."""
        labels = {POPULARITY: (label_levels(counts), list(LEVELS))}
        for column in columns:
            if column != POPULARITY:
                values = label_items(catalog, column)
                labels[column] = (values, order_groups(values))
        return cls({item.item_id: row for row, item in enumerate(catalog)}, counts, labels)

    def measure(
        self, ranked: Mapping[str, Sequence[Sequence[str]]], targets: Sequence[str], k: int
    ) -> dict[str, dict[str, GroupExposure]]:
        """Measure the exposure of each group; see ``measure_exposure``.

        Args:
            ranked: for each system, the ranked item ids of each of the U users.
            targets: the item id of each user's target.
            k: the number of items in each list to consider.

        Returns:
            The exposure, keyed by ``popularity`` or the column, and by group.
        """
        lists = {name: as_rows(found, self.row_of) for name, found in ranked.items()}
        rows = [self.row_of[target] for target in targets]
        return {
            name: measure_exposure(labels, order, lists, self.counts, rows, k)
            for name, (labels, order) in self.labels.items()
        }
