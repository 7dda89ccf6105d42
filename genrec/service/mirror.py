"""Let workers know what they need of the shop in the process of the model, without asking it each time.

Each change of the shop counts up a number that all processes share, before the change is acknowledged. A worker
compares this number with that of its own copy at the beginning of each request, and asks for the changes if
they differ. So every request that begins after an acknowledgement sees the change, in every worker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from genrec.data.catalog import Item
from genrec.data.dataset import Dataset
from genrec.data.deletions import Deletions
from genrec.service.experiments import Experiment, Experiments
from genrec.service.histories import Histories, with_items
from genrec.service.shared import Shared
from genrec.service.shop import Shop
from genrec.service.store import Store

_MOST = 1000  # changes that are remembered; a worker that missed more gets all items


@dataclass(frozen=True, slots=True)
class State:
    """What a worker knows of the shop.

    Attributes:
        revision: the number of changes before this state.
        items: the items that changed since the revision that was asked for.
        deleted: the events of the dataset that are not used.
        models: the names of the models.
        default: the name of the default model.
        experiments: all experiments.
    """

    revision: int
    items: Sequence[Item]
    deleted: Deletions
    models: Sequence[str]
    default: str
    experiments: Sequence[Experiment]


class Journal:
    """The changes of a shop since its process started."""

    def __init__(self, shop: Shop, experiments: Experiments, shared: Shared) -> None:
        """Count a change, since the shop may differ from that of an earlier process; and watch the shop."""
        self._shop, self._experiments, self._shared = shop, experiments, shared
        self._adding = threading.Lock()
        self._changes: deque[tuple[int, Sequence[Item]]] = deque(maxlen=_MOST)
        shop.on_change = self._add
        experiments.on_change = lambda: self._add(())
        self._all_since = shared.count_change()

    def _add(self, items: Sequence[Item]) -> None:
        with self._adding:
            if len(self._changes) == _MOST:
                self._all_since = self._changes[0][0]
            self._changes.append((self._shared.count_change(), tuple(items)))

    def since(self, revision: int) -> State:
        """Return the present state, for a worker that knows the state at a revision."""
        shop = self._shop
        with self._adding:
            now = self._shared.revision
            if revision < self._all_since:
                items = shop.changed_items
            else:
                new = [items for number, items in self._changes if number > revision]
                items = [*{i.item_id: i for items in new for i in items}.values()]
            return State(
                now, items, shop.deleted, shop.models, shop.default, self._experiments.all()
            )


class Mirror(Histories):
    """A worker's copy of what it needs of the shop.

    Attributes:
        revision: the revision of the shop that it shows; -1 before the first.
    """

    def __init__(self, dataset: Dataset, store: Store) -> None:
        """Start with the dataset and the users who were deleted; see ``apply`` for the rest."""
        super().__init__(dataset, store, "")
        self.revision = -1
        self._models: Sequence[str] = ()

    @property
    def models(self) -> Sequence[str]:
        """The names of the models."""
        return self._models

    def apply(self, state: State) -> None:
        """Take over a state."""
        if state.items:
            self._catalog = with_items(self._catalog, state.items)
        self.deleted = state.deleted
        self._models, self.default = state.models, state.default
        self.revision = state.revision
