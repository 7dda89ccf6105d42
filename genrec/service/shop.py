"""Keep recommenders and the store in step while a shop is open.

An edit of the catalog, an entry on the block list and an event are stored first, and hold for every
request that begins after the method has returned. Blocked items are removed from the recommenders,
so no list, score or explanation can offer them; the histories of users still show them. This module
knows nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from genrec.config import EXPLAIN
from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.errors import RequestError
from genrec.pipeline.predicates import Predicate
from genrec.priors.collaborative import CollaborativePrior
from genrec.recommender import Recommender
from genrec.service.histories import Histories, with_items
from genrec.service.neighbors import Neighbor, NeighborIndex
from genrec.service.store import Event, Store
from genrec.text import normalized
from genrec.types import Log

_WIDE = "\u2e80"  # scripts from here on do not put spaces between words


@dataclass(frozen=True, slots=True)
class Engine:
    """A recommender under the name of its model or run.

    Attributes:
        name: the name.
        recommender: makes the lists.
        fallback: makes lists by counting alone, without the model; None if nothing can be counted.
        drawing: for each of the two that was asked to, the recommender that draws items at random
            instead of listing the best; see ``Shop.drawing``.
    """

    name: str
    recommender: Recommender
    fallback: Recommender | None
    drawing: dict[str, Recommender] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, recommender: Recommender) -> Engine:
        """Build the recommender that counts, and prepare both for their first request."""
        fallback = None
        prior = recommender.prior
        if prior is not None and recommender.settings.decoder == "trie":
            fallback = recommender.with_settings(
                model_role=EXPLAIN, normalization="catalog", search="auto"
            )
            fallback.prior = prior
            fallback.recommend(History(), k=1)
        recommender.recommend(History(), k=1)
        return cls(name, recommender, fallback)

    @property
    def all(self) -> tuple[Recommender, ...]:
        """The recommenders to which edits of the catalog apply."""
        counting = () if self.fallback is None else (self.fallback,)
        return (self.recommender, *counting, *self.drawing.values())


class Shop(Histories):
    """The recommenders, the store, and the state that both share.

    Attributes:
        engines: the recommenders, keyed by name. The mapping is replaced, never changed.
        behavior: the target behavior of the dataset, whose events the prior counts.
        editing: the lock under which the catalog is edited.
        on_change: a function that is called after each change of the models, the deleted users or
            the items, with the items that were put; and before the change is acknowledged.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        engines: Sequence[Engine],
        *,
        log: Log = lambda message: None,
    ) -> None:
        """Apply everything in the store to the recommenders.

        Args:
            dataset: the dataset.
            store: the store.
            engines: the recommenders; the first is the default.
            log: a function that is called with a line of text before each slow step.

        Raises:
            RequestError: the block list and the removed items leave no item.
            StoreError: the store cannot be read.
        """
        super().__init__(dataset, store, engines[0].name)
        self._log = log
        self.engines: Mapping[str, Engine] = {}
        self.on_change: Callable[[Sequence[Item]], None] = lambda put: None
        self.behavior = engines[0].recommender.behavior
        self.editing = threading.RLock()
        self._counting = threading.RLock()
        self._neighbors: tuple[NeighborIndex, int] | None = None  # and the last event in it
        self._counted: dict[int, int] = {}  # the last event counted by each prior, by its identity
        self._blocks = store.blocks()
        self._removed: set[str] = set()
        stored = store.items()
        if stored:
            self._catalog = with_items(self._catalog, [item for item, _ in stored])
            self._removed = {item.item_id for item, removed in stored if removed}
        self._changed = {item.item_id for item, _ in stored}
        self._blocked = self._find_blocked(self._catalog, self._blocks)
        self._stop = threading.Event()
        self._refresher: threading.Thread | None = None
        for engine in engines:
            self.add(engine)

    # Engines

    @property
    def models(self) -> Sequence[str]:
        """The names of the models."""
        return tuple(self.engines)

    @property
    def changed_items(self) -> list[Item]:
        """The items that differ from those of the dataset."""
        return [i for i in self._catalog if i.item_id in self._changed]

    def add(self, engine: Engine) -> None:
        """Add a recommender, or replace that of the same name, after bringing it up to date."""
        with self.editing:
            gone = [*(self._removed | self._blocked)]
            for each in engine.all:
                changed = self.changed_items
                if changed or gone:
                    each.put_items(changed, gone)
            self.engines = {**self.engines, engine.name: engine}
            self.on_change(())
        self.refresh()

    def remove(self, name: str) -> None:
        """Remove a recommender that is not the default one.

        Raises:
            KeyError: there is no such recommender.
            RequestError: it is the default one.
        """
        with self.editing:
            if name not in self.engines:
                raise KeyError(name)
            if name == self.default:
                msg = f"{name!r} is the default model. Expected another one; change the default first."
                raise RequestError(msg)
            self.engines = {n: e for n, e in self.engines.items() if n != name}
            self.on_change(())

    def choose(self, name: str) -> None:
        """Make a recommender the default one.

        Raises:
            KeyError: there is no such recommender.
        """
        with self.editing:
            if name not in self.engines:
                raise KeyError(name)
            self.default = name
            self.on_change(())

    def drawing(self, engine: Engine, *, counting: bool) -> Recommender:
        """Return the recommender that draws items at random, which is made when it is first needed.

        It shares the model and the prior, so new events count in both.

        Args:
            engine: the engine.
            counting: True to draw by counting alone, False to draw as the model ranks.

        Raises:
            SettingsError: the model's settings do not allow draws.
        """
        alone = engine.fallback if counting and engine.fallback is not None else engine.recommender
        if alone.settings.search == "sample":
            return alone
        name = "counts" if counting else "model"
        with self.editing:
            if name not in engine.drawing:
                engine.drawing[name] = alone.with_settings(search="sample")
            return engine.drawing[name]

    # Users

    def delete_user(self, given: str) -> int:
        """Delete a user's events from the store, the dataset's histories and the counts.

        Returns:
            The number of events that were deleted or will not be used any more.
        """
        user_id = self.user_id(given)
        gone = len(self.start_of(user_id)) + self.store.delete_user(user_id)
        self.deleted = self.deleted.with_user(user_id)
        with self._counting:
            self._neighbors = None
        for engine in self.engines.values():
            for recommender in engine.all:
                recommender.forget_user(user_id)
        self.on_change(())
        if gone:
            self.recount()
        return gone

    def delete_events(
        self,
        item_id: str,
        behavior: str | None = None,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
    ) -> int:
        """Delete a user's or a session's events with an item, also those of the dataset.

        The next list of the user and the counts do not have them any more.

        Args:
            item_id: the item.
            behavior: only events of this behavior; None for all.
            user_id: the user; None for a session.
            session_id: the session; None for a user.

        Returns:
            The number of events that were deleted or will not be used any more.
        """
        if user_id is None:
            later = self.store.events_of(session_id=session_id)
            start: tuple[Interaction, ...] = ()
        else:
            user_id = self.user_id(user_id)
            later = self.store.events_of(user_id=user_id)
            start = self.start_of(user_id)
        fits = [
            e.behavior
            for e in (*start, *(one.interaction for one in later))
            if e.item_id == item_id and behavior in {None, e.behavior}
        ]
        named = set(fits)
        old = [e for e in start if e.item_id == item_id and e.behavior in named]
        owner = {"user_id": user_id, "session_id": session_id}
        self.store.delete_events(item_id, sorted(named), **owner, remember=bool(old))
        if user_id is not None:
            if old:
                self.deleted = self.deleted.with_events([(user_id, item_id, b) for b in named])
                self.on_change(())
            self._forget_events(user_id, named)
        return len(fits)

    def delete_event(self, sequence: int) -> Event | None:
        """Delete the event with a number in the store, and return it; None if there is none."""
        found = self.store.delete_event(sequence)
        if found is not None and found.user_id is not None:
            self._forget_events(found.user_id, {found.interaction.behavior})
        return found

    def neighbors(self, given: str, k: int) -> list[Neighbor]:
        """Return the users whose items resemble those of a user; see ``NeighborIndex.find``."""
        user_id = self.user_id(given)
        with self._counting:
            if self._neighbors is None:
                start = self._without_deleted().interactions
                self._neighbors = NeighborIndex(start, self.behavior), 0
            index, last = self._neighbors
            later = list(self.store.events_after(last, self.behavior))
            index.add(later)
            self._neighbors = index, later[-1].sequence if later else last
        return index.find(user_id, k)

    def _forget_events(self, user_id: str, behaviors: Collection[str]) -> None:
        """Drop everything that was computed from a user's deleted events."""
        with self._counting:
            self._neighbors = None
        for engine in self.engines.values():
            for recommender in engine.all:
                recommender.forget_user(user_id, for_good=False)
        if self.behavior in behaviors:
            self.recount()

    # Events

    def refresh(self) -> int:
        """Add the events that came since the last call to the counts of all priors.

        Returns:
            The number of events that were added to the first prior.
        """
        with self._counting:
            return max([self._update(p) for p in self._priors()], default=0)

    def recount(self) -> None:
        """Count the events of the dataset and of the store again, without those of deleted users."""
        with self._counting:
            events, last = self._events_after(0)
            catalog, dataset = self._catalog, self._without_deleted()
            for prior in self._priors():
                prior.recount(dataset, events, catalog, self._example)
                self._counted[id(prior)] = last

    def _priors(self) -> list[CollaborativePrior]:
        """Return the priors that count the target behavior, each of them once."""
        found = {}
        for engine in self.engines.values():
            prior = engine.recommender.prior
            if (
                isinstance(prior, CollaborativePrior)
                and engine.recommender.behavior == self.behavior
            ):
                found[id(prior)] = prior
        return list(found.values())

    def _update(self, prior: CollaborativePrior) -> int:
        if id(prior) not in self._counted and self.deleted:
            self.recount()
            return 0
        events, last = self._events_after(self._counted.get(id(prior), 0))
        if events:
            prior.update(events, self._catalog, self._example)
        self._counted[id(prior)] = last
        return sum(map(len, events.values()))

    def _events_after(self, sequence: int) -> tuple[dict[str, list[Interaction]], int]:
        """Return the target events of users after a number, by user, and the last number."""
        events: dict[str, list[Interaction]] = {}
        last, catalog = sequence, self._catalog
        for event in self.store.events_after(sequence, self.behavior):
            last = event.sequence
            if event.user_id is not None and event.interaction.item_id in catalog:
                events.setdefault(event.user_id, []).append(event.interaction)
        return events, last

    def _without_deleted(self) -> Dataset:
        info = self.dataset.info
        if info.target_behavior != self.behavior:
            info = info.with_target(self.behavior, self.dataset.interactions)
        return replace(self.deleted.withhold(self.dataset), info=info)

    @property
    def _example(self) -> History:
        """A history for which weights are prepared, so that no request waits for them."""
        return History((Interaction(self._catalog[0].item_id, self.behavior),))

    def start(
        self,
        seconds: float,
        failed: Callable[[Exception], None],
        counted: Callable[[int], None] = lambda events: None,
    ) -> None:
        """Start a thread that calls ``refresh`` every so many seconds until ``close``.

        Args:
            seconds: the time between two calls.
            failed: a function that is called with each error.
            counted: a function that is called with the number of events after each call.
        """

        def run() -> None:
            while not self._stop.wait(seconds):
                try:
                    counted(self.refresh())
                    self.store.forget_requests(time.time())
                except Exception as error:
                    failed(error)

        self._refresher = threading.Thread(target=run, name="genrec-counts", daemon=True)
        self._refresher.start()

    def close(self) -> None:
        """Stop the thread and close the store."""
        self._stop.set()
        if self._refresher is not None:
            self._refresher.join()
        self.store.close()

    # Items

    @property
    def hidden(self) -> set[str]:
        """The ids of the items that cannot be recommended."""
        return self._removed | self._blocked

    def state(self, item_id: str) -> str:
        """Return ``available``, ``removed``, ``blocked`` or, for an unknown id, an empty string."""
        if item_id not in self._catalog:
            return ""
        if item_id in self._removed:
            return "removed"
        return "blocked" if item_id in self._blocked else "available"

    def edit(self, put: Sequence[Item], remove: Sequence[str] = ()) -> None:
        """Add or replace items and remove others. Requests that begin afterwards see the result.

        Raises:
            DataError: an item is invalid.
            RequestError: an id to remove is unknown, or no item would be left.
            StoreError: nothing was changed.
        """
        with self.editing:
            catalog = with_items(self._catalog, put)
            for item_id in remove:
                catalog.row(item_id)
            removed = (self._removed - {i.item_id for i in put}) | set(remove)
            blocked = self._find_blocked(catalog, self._blocks)
            self._check_left(catalog, removed | blocked)
            gone = [i for i in put if i.item_id in removed]
            kept = [i for i in put if i.item_id not in removed]
            old = [catalog[catalog.row(i)] for i in remove if i not in {g.item_id for g in gone}]
            self.store.put_items(kept, [*gone, *old])
            changed = {i.item_id for i in put} | set(remove)
            hidden = [i for i in changed if i in removed or i in blocked]
            self._catalog, self._removed, self._blocked = catalog, removed, blocked
            self._changed |= changed
            self._edit_engines(put, hidden)
            if put:
                self.on_change(put)

    def block(self, entries: Mapping[str, Sequence[str]]) -> int:
        """Replace the block list.

        Args:
            entries: item ids, conditions and phrases of titles, keyed by ``store.KINDS``.

        Returns:
            The number of items that are blocked now.

        Raises:
            RequestError: a condition is invalid, or no item would be left.
            StoreError: nothing was changed.
        """
        with self.editing:
            blocked = self._find_blocked(self._catalog, entries)
            self._check_left(self._catalog, self._removed | blocked)
            self.store.put_blocks(entries)
            free = self._blocked - blocked - self._removed
            new = blocked - self._blocked - self._removed
            self._blocks, self._blocked = {k: list(v) for k, v in entries.items()}, blocked
            self._edit_engines([self._catalog[self._catalog.row(i)] for i in free], [*new])
            return len(blocked)

    @property
    def blocks(self) -> Mapping[str, Sequence[str]]:
        """The block list."""
        return self._blocks

    def _edit_engines(self, put: Sequence[Item], remove: Sequence[str]) -> None:
        if put or remove:
            for engine in self.engines.values():
                for each in engine.all:
                    each.put_items(put, remove)

    @staticmethod
    def _check_left(catalog: Catalog, gone: set[str]) -> None:
        if len(gone) >= len(catalog) and all(item.item_id in gone for item in catalog):
            msg = (
                "No item would be left. Expected at least one that is neither removed nor blocked."
            )
            raise RequestError(msg)

    @staticmethod
    def _find_blocked(catalog: Catalog, blocks: Mapping[str, Sequence[str]]) -> set[str]:
        """Return the ids of the items that a block list blocks."""
        blocked = {i for i in blocks.get("item_ids", ()) if i in catalog}
        for condition in blocks.get("conditions", ()):
            mask = Predicate.parse(condition).mask(catalog)
            blocked |= {catalog[row].item_id for row in np.flatnonzero(mask).tolist()}
        phrases = [p for p in map(normalized, blocks.get("phrases", ())) if p]
        if phrases:
            for item in catalog:
                title = normalized(item.title)
                if any(_contains(title, phrase) for phrase in phrases):
                    blocked.add(item.item_id)
        return blocked


def _contains(title: str, phrase: str) -> bool:
    """Check whether a normalized title contains a normalized phrase as whole words."""
    if any(c >= _WIDE for c in phrase):
        return phrase in title
    return f" {phrase} " in f" {title} "
