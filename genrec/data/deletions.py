"""Say which events of a dataset must not be used any more, although its files still have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.data.dataset import Dataset
from genrec.data.events import Interaction
from genrec.data.interactions import Interactions
from genrec.data.pseudonyms import pseudonym
from genrec.types import BoolArray

Triple = tuple[str, str, str]  # a user, an item and a behavior


@dataclass(frozen=True, slots=True)
class Deletions:
    """What was deleted from a dataset while a service ran.

    Attributes:
        users: users all of whose events were deleted: their ids, or pseudonyms of these.
        events: deleted events of other users, by user, item and behavior.
        salt: the key of the pseudonyms; empty if there are none.
    """

    users: frozenset[str] = frozenset()
    events: frozenset[Triple] = field(default_factory=frozenset)
    salt: str = ""

    def __bool__(self) -> bool:
        """Return True if anything was deleted."""
        return bool(self.users or self.events)

    def has(self, user_id: str) -> bool:
        """Return True if all events of a user were deleted."""
        if user_id in self.users:
            return True
        return bool(self.salt and self.users) and pseudonym(user_id, self.salt) in self.users

    def resolved(self, known: Iterable[str]) -> Deletions:
        """Return the same with the ids of those users that a dataset has, and without pseudonyms."""
        users = frozenset(u for u in known if self.has(u)) if self.users else self.users
        return replace(self, users=users, salt="")

    def with_user(self, user_id: str) -> Deletions:
        """Return the same with another user."""
        return replace(self, users=self.users | {user_id})

    def with_events(self, events: Sequence[Triple]) -> Deletions:
        """Return the same with other events."""
        return replace(self, events=self.events | frozenset(events))

    def left(self, user_id: str, events: Sequence[Interaction]) -> tuple[Interaction, ...]:
        """Return those of a user's events that were not deleted."""
        if self.has(user_id):
            return ()
        if not self.events:
            return tuple(events)
        return tuple(e for e in events if (user_id, e.item_id, e.behavior) not in self.events)

    def mask(self, interactions: Interactions) -> BoolArray:
        """Return an (E,) mask of the events that were deleted."""
        gone = np.zeros(len(interactions), dtype=np.bool_)
        known = set(interactions.user_ids)
        for user_id in self.resolved(interactions.user_ids).users:
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
