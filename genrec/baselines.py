"""Simple recommenders to be compared with, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from genrec.interactions import History, Interactions


class Baseline(Protocol):
    """What is compared: a name, and ranked item ids for a history."""

    name: str

    def rank(self, history: History, k: int) -> Sequence[str]:
        """The k best item ids, best first."""
        ...


class Popular:
    """Most events first, whoever asks; ties by catalog row."""

    name = "popular"

    def __init__(self, interactions: Interactions, behavior: str, *, before: str = "test") -> None:
        """Counts the events of a behavior that lie before a split, over all users.

        Args:
            interactions: split interactions.
            behavior: what is counted.
            before: ``validation`` to count train only, ``test`` for train and validation.
        """
        c = interactions.columns
        limit = {"validation": 1, "test": 2}[before]
        use = (c.split < limit) & (c.behavior == interactions.behaviors.index(behavior))
        counts = np.bincount(c.row[use], minlength=len(interactions.catalog))
        self.order = [
            interactions.catalog[int(row)].item_id for row in np.argsort(-counts, kind="stable")
        ]

    def rank(self, history: History, k: int) -> Sequence[str]:
        """The k most frequent items; the history is not looked at."""
        return self.order[:k]
