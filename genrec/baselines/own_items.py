"""Recommend the items that a user already has, with the newest or most frequent ones first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.baselines.base import Scorer
from genrec.baselines.ranking import fill_by_popularity
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.types import FloatArray


@dataclass(frozen=True, slots=True)
class OwnItem:
    """An item in a history.

    If the item has events with the target behavior, only these are counted.

    Attributes:
        wanted: whether the item has an event with the target behavior.
        count: number of the item's events.
        latest: index of the item's latest event in the history.
    """

    wanted: bool
    count: int
    latest: int


class OwnItems(Scorer):
    """Ranks the items in a history first, followed by all other items in order of popularity.

    Items that have an event with the target behavior, such as a purchase, come before items that
    only have other events, such as views. Subclasses define the order within each of these two
    groups.
    """

    @abstractmethod
    def sort_key(self, item: OwnItem) -> tuple[int, ...]:
        """Return the key by which the items in a group are sorted, highest first.

        Args:
            item: an item in the history.
        """

    def learn(self, events: TrainingEvents) -> Arrays:
        """Count each item's events; items outside a history are ranked by this popularity."""
        return {"popularity": events.popularity()}

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score items by their position in the ranking; see ``Scorer.scores_many``."""
        scores = np.zeros((len(histories), len(self.catalog)))
        for values, history in zip(scores, histories, strict=True):
            own = self._collect(history)
            order = sorted(own, key=lambda row: (own[row].wanted, *self.sort_key(own[row])))
            values[order] = np.arange(1, len(order) + 1)
        return fill_by_popularity(scores, self.arrays["popularity"])

    def _collect(self, history: History) -> dict[int, OwnItem]:
        """Return the items in a history, keyed by catalog row."""
        own: dict[int, OwnItem] = {}
        for place, event in enumerate(history.interactions):
            if event.item_id is None:
                continue
            row, wanted = self.catalog.row(event.item_id), event.behavior == self.behavior
            known = own.get(row)
            if known is None or (wanted and not known.wanted):
                own[row] = OwnItem(wanted, 1, place)
            elif wanted == known.wanted:
                own[row] = OwnItem(wanted, known.count + 1, place)
        return own


class Recent(OwnItems):
    """Recommends the items in a history again, newest first."""

    name = "recent"

    def sort_key(self, item: OwnItem) -> tuple[int, ...]:
        """Return the position of the item's latest event; see ``OwnItems.sort_key``."""
        return (item.latest,)


class Frequent(OwnItems):
    """Recommends the items in a history again, most frequent first.

    Items with the same number of events are ordered from newest to oldest.
    """

    name = "frequent"

    def sort_key(self, item: OwnItem) -> tuple[int, ...]:
        """Return the number of the item's events and the position of the latest one.

        See ``OwnItems.sort_key``.
        """
        return (item.count, item.latest)
