"""Know all items and the events of users: those of the dataset, and those that came after it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.deletions import Deletions
from genrec.data.events import History, Interaction, join_events
from genrec.data.redaction import Redactor
from genrec.errors import UnknownUserError
from genrec.service import users
from genrec.service.store import Event, Store

_HISTORIES = 4096  # histories of users in the dataset that are kept in memory


class Histories(ABC):
    """The events of all users of a dataset and of a store.

    Attributes:
        dataset: the dataset.
        store: everything that came after it.
        deleted: the events of the dataset that must not be used any more.
        default: the name of the model that answers if a request names none.
    """

    def __init__(self, dataset: Dataset, store: Store, default: str = "") -> None:
        """Read what was deleted from the store.

        Raises:
            StoreError: the store cannot be read.
        """
        self.dataset, self.store, self.default = dataset, store, default
        self.deleted: Deletions = store.deletions().resolved(dataset.interactions.user_ids)
        self._catalog = dataset.catalog

    @property
    @abstractmethod
    def models(self) -> Sequence[str]:
        """The names of the models."""

    @property
    def catalog(self) -> Catalog:
        """All items, including removed and blocked ones."""
        return self._catalog

    def check_events(self, events: Iterable[Event]) -> list[str]:
        """Return the ids of items in events that the catalog does not have."""
        catalog = self._catalog
        ids = dict.fromkeys(e.interaction.item_id for e in events)
        return [i for i in ids if i is not None and i not in catalog]

    def redact(self, events: Iterable[Interaction]) -> list[Interaction]:
        """Return events whose texts have no personal data, unless the dataset's texts are kept too."""
        if not self.dataset.info.redact:
            return list(events)
        return list(map(Redactor().event, events))

    def user_id(self, given: str) -> str:
        """Return a user's id as it is written in the dataset, or the given id of another user."""
        try:
            return self.dataset.interactions.known_id(given)
        except UnknownUserError:
            return given

    def knows(self, user_id: str) -> bool:
        """Return True if the dataset has events of a user that were not deleted."""
        try:
            return self.dataset.interactions.known_id(user_id) not in self.deleted.users
        except UnknownUserError:
            return False

    def history(self, given: str) -> History:
        """Return a user's events in the dataset and in the store; empty for an unknown user."""
        return self.numbered_history(given)[0]

    def numbered_history(self, given: str) -> tuple[History, int]:
        """Return a user's events, and the number of the last one in the store; 0 if there is none."""
        stored = self.store.events_of(user_id=self.user_id(given))
        return self._joined(given, stored), max((e.sequence for e in stored), default=0)

    def _joined(self, given: str, stored: Sequence[Event]) -> History:
        user_id = self.user_id(given)
        later = [e.interaction for e in stored]
        positions = self.dataset.info.time_unit == "position"
        return History(join_events(self.start_of(user_id), later, positions=positions), user_id)

    def numbered(self, given: str) -> list[tuple[Interaction, int | None]]:
        """Return a user's events as in ``history``, each with its number in the store.

        The number of an event of the dataset is None.
        """
        later = self.store.events_of(user_id=self.user_id(given))
        numbers = {id(e.interaction): e.sequence for e in later}
        return [(e, numbers.get(id(e))) for e in self._joined(given, later).interactions]

    def session(self, session_id: str) -> History:
        """Return the events of an anonymous session, oldest first."""
        events = [e.interaction for e in self.store.events_of(session_id=session_id)]
        return History(tuple(sorted(events, key=lambda i: i.timestamp)))

    def start_of(self, user_id: str) -> tuple[Interaction, ...]:
        """Return a user's events in the dataset that were not deleted."""
        if not self.knows(user_id):
            return ()
        return self.deleted.left(user_id, self._start_of(user_id))

    def user_ids(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return ids of users with events or labels, sorted; see ``users.stored_user_ids``."""
        gone = self.deleted.users
        known = users.sorted_ids_after(self._sorted_ids, prefix, after, limit, gone)
        stored = users.stored_user_ids(self.store, prefix, after, limit)
        return sorted({*known, *stored})[:limit]

    @functools.cached_property
    def _sorted_ids(self) -> list[str]:
        return sorted(self.dataset.interactions.user_ids)

    @functools.cached_property
    def _start_of(self) -> Callable[[str], tuple[Interaction, ...]]:
        read = self.dataset.interactions.history
        return functools.lru_cache(_HISTORIES)(lambda user_id: read(user_id).interactions)


def with_items(catalog: Catalog, items: Sequence[Item]) -> Catalog:
    """Return a catalog in which items were added or replaced."""
    return catalog.edited(
        [i for i in items if i.item_id not in catalog], [i for i in items if i.item_id in catalog]
    )
