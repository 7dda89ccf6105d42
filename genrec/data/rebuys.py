"""Measure how often users rebuy items from their latest basket and items that they returned.

Recommendation lists leave such items out by default. If users buy them again more often than their
other earlier items, ``prepare`` and ``audit`` report it. This module deals with events only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genrec.data.interactions import Interactions
from genrec.data.statuses import is_return
from genrec.types import IntArray

_LEAST = 20  # with fewer repeats of a kind, nothing is said
_STANDARD_ERRORS = 2.0  # a difference counts if it is larger than this
_USERS = 10_000  # at most this many users are counted


@dataclass(frozen=True, slots=True)
class Rebuys:
    """Counts of how often users buy items again, by kind of item.

    Each pair of a basket and an item from the same user's earlier baskets is counted. The pair is a
    repeat if the basket contains the item.

    Attributes:
        latest: the number of pairs whose item was in the user's previous basket and was not
            returned, and how many of them are repeats.
        returned: the same two counts for items whose latest event before the basket was a return.
        others: the same two counts for all other items.
    """

    latest: tuple[int, int]
    returned: tuple[int, int]
    others: tuple[int, int]

    @property
    def shares(self) -> dict[str, float]:
        """The fraction of pairs that are repeats, for each kind of item that has any pairs."""
        kinds = {"latest": self.latest, "returned": self.returned, "others": self.others}
        return {name: _share(kind) for name, kind in kinds.items() if kind[0]}

    def notes(self) -> list[str]:
        """Return a remark on each kind of item that users buy again more often than other items."""
        kinds = {
            "items of a user's latest basket": (self.latest, "--allow-last-basket"),
            "returned items": (self.returned, "--allow-returned"),
        }
        notes = []
        repeats = self.latest[1] + self.returned[1] + self.others[1]
        for what, (kind, flag) in kinds.items():
            if _is_higher(kind, self.others):
                notes.append(
                    f"{what} are in the next basket in {_share(kind):.1%} of cases, other earlier items in "
                    f"{_share(self.others):.1%} ({kind[1] / repeats:.0%} of all repeats are such items); "
                    f"lists leave them out unless you pass {flag}"
                )
        return notes


def measure_rebuys(events: Interactions, target: str) -> Rebuys:
    """Count how often users buy items again in the train part.

    If the data has many users, a fixed random sample of them is used.

    Args:
        events: the events, with their split.
        target: the target behavior, such as ``buy``.
    """
    users = np.random.default_rng(0).permutation(len(events.user_ids))[:_USERS]
    counts = np.zeros((3, 2), dtype=np.int64)
    for user in np.sort(users).tolist():
        counts += _count(events, events.events(events.user_ids[user]), target)
    latest, returned, others = ((int(n), int(taken)) for n, taken in counts)
    return Rebuys(latest, returned, others)


def _count(events: Interactions, where: slice, target: str) -> IntArray:
    """Return a (3, 2) array of one user's pairs and repeats, with a row per field of ``Rebuys``."""
    c, names = events.columns, events.behaviors
    part = [
        (row, names[behavior], unit)
        for row, behavior, unit, split in zip(
            *(x[where].tolist() for x in (c.row, c.behavior, c.unit, c.split)), strict=True
        )
        if split == 0 and row >= 0
    ]
    baskets: dict[int, set[int]] = {}
    for row, behavior, unit in part:
        if behavior == target:
            baskets.setdefault(unit, set()).add(row)
    counts = np.zeros((3, 2), dtype=np.int64)
    had: set[int] = set()
    returned: set[int] = set()
    latest: set[int] = set()
    begun: set[int] = set()
    for row, behavior, unit in part:
        if behavior == target and unit not in begun:
            basket = baskets[unit]
            kinds = (latest - returned, returned, had - latest - returned)
            counts += [(len(kind), len(kind & basket)) for kind in kinds]
            begun.add(unit)
            had |= basket
            latest = basket
        returned.discard(row)
        if is_return(behavior) and behavior != target and row in had:
            returned.add(row)
    return counts


def _share(kind: tuple[int, int]) -> float:
    chances, taken = kind
    return taken / chances if chances else 0.0


def _is_higher(kind: tuple[int, int], others: tuple[int, int]) -> bool:
    """Check whether a kind of item is bought again significantly more often than other items."""
    if kind[1] < _LEAST or not others[0]:
        return False
    one, other = _share(kind), _share(others)
    variance = one * (1 - one) / kind[0] + other * (1 - other) / others[0]
    return one - other > _STANDARD_ERRORS * math.sqrt(variance)
