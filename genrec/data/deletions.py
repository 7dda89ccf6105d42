"""Say which events of a dataset must not be used any more, although its files still have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.events import Interaction
from genrec.data.interactions import Interactions
from genrec.types import BoolArray

Triple = tuple[str, str, str]  # a user, an item and a behavior


@dataclass(frozen=True, slots=True)
class Deletions:
    """What was deleted from a dataset while a service ran.

    Attributes:
        users: users all of whose events were deleted.
        events: deleted events of other users, by user, item and behavior.
    """

    users: frozenset[str] = frozenset()
    events: frozenset[Triple] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        """Return True if anything was deleted."""
        return bool(self.users or self.events)

    def with_user(self, user_id: str) -> Deletions:
        """Return the same with another user."""
        return replace(self, users=self.users | {user_id})

    def with_events(self, events: Sequence[Triple]) -> Deletions:
        """Return the same with other events."""
        return replace(self, events=self.events | frozenset(events))

    def left(self, user_id: str, events: Sequence[Interaction]) -> tuple[Interaction, ...]:
        """Return those of a user's events that were not deleted."""
        if user_id in self.users:
            return ()
        if not self.events:
            return tuple(events)
        return tuple(e for e in events if (user_id, e.item_id, e.behavior) not in self.events)

    def mask(self, interactions: Interactions) -> BoolArray:
        """Return an (E,) mask of the events that were deleted."""
        gone = np.zeros(len(interactions), dtype=np.bool_)
        known = set(interactions.user_ids)
        for user_id in self.users & known:
            gone[interactions.events(user_id)] = True
        catalog, behaviors, c = interactions.catalog, interactions.behaviors, interactions.columns
        for user_id, item_id, behavior in self.events:
            if user_id in known and item_id in catalog and behavior in behaviors:
                mine = interactions.events(user_id)
                same = c.row[mine] == catalog.row(item_id)
                gone[mine] |= same & (c.behavior[mine] == behaviors.index(behavior))
        return gone

    def withhold(self, dataset: Dataset) -> Dataset:
        """Return a dataset in which the deleted events have no item and no text."""
        hidden = self.mask(dataset.interactions)
        return replace(dataset, interactions=dataset.interactions.withhold(hidden))
