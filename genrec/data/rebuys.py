"""Measure how often users get items of their latest basket or returned items again.

Lists leave such items out by default. Where users get them again more often than their other items,
``prepare`` and ``audit`` say so. This module deals with events only.
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
    """How often the items that users had are in their next basket, by kind of item.

    A chance is a basket of a user together with an item that the user had in an earlier basket. It is
    taken if the item is in the basket.

    Attributes:
        latest: the chances of items of the basket before, and how many of them were taken.
        returned: the same for items whose latest event before the basket was a return.
        others: the same for all other items.
    """

    latest: tuple[int, int]
    returned: tuple[int, int]
    others: tuple[int, int]

    @property
    def shares(self) -> dict[str, float]:
        """The share of chances that were taken, for each kind of item that has any."""
        kinds = {"latest": self.latest, "returned": self.returned, "others": self.others}
        return {name: _share(kind) for name, kind in kinds.items() if kind[0]}

    def notes(self) -> list[str]:
        """Return remarks on the kinds of items that users get again more often than others."""
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
    """Count the chances to get items again in the train part, and how many were taken.

    In data with many users, a fixed random sample of them is counted.

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
    """Count one user's chances and those taken, for the kinds of items in the order of ``Rebuys``."""
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
    """Check whether a kind of items is taken more often than others, beyond chance."""
    if kind[1] < _LEAST or not others[0]:
        return False
    one, other = _share(kind), _share(others)
    variance = one * (1 - one) / kind[0] + other * (1 - other) / others[0]
    return one - other > _STANDARD_ERRORS * math.sqrt(variance)
