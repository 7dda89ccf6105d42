"""Find the users whose items resemble those of a user.

The similarity of two users is the cosine of their sets of items: the number of items that both have,
divided by the geometric mean of the sizes of the sets. Only events of one behavior count, each item
once. It is 1 for users with the same items, and 0 for users without a common one.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from genrec.data.interactions import Interactions
from genrec.service.store import Event
from genrec.types import FloatArray


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A user with items of another user.

    Attributes:
        user_id: the user.
        similarity: the cosine of both sets of items, above 0 and at most 1.
        shared: the ids of the items that both users have, sorted.
    """

    user_id: str
    similarity: float
    shared: tuple[str, ...]


class NeighborIndex:
    """The items of all users, from the events of a dataset and from later ones."""

    def __init__(self, interactions: Interactions, behavior: str) -> None:
        """Collect the items of the users of a dataset.

        Args:
            interactions: the events of the dataset; those without an item do not count.
            behavior: the behavior that counts.
        """
        self._lock = threading.Lock()
        self._catalog, c = interactions.catalog, interactions.columns
        self._user_ids = list(interactions.user_ids)
        self._code = {user_id: code for code, user_id in enumerate(self._user_ids)}
        counts = c.row >= 0
        if behavior in interactions.behaviors:
            counts &= c.behavior == interactions.behaviors.index(behavior)
        else:
            counts[:] = False
        shape = len(self._user_ids), len(self._catalog)
        ones = np.ones(int(counts.sum()), dtype=np.int32)
        owned = sparse.csr_matrix((ones, (c.user[counts], c.row[counts])), shape=shape)
        owned.sum_duplicates()
        self._rows, self._users = owned, owned.tocsc()
        self._sizes: list[int] = np.diff(owned.indptr).tolist()
        self._later: dict[int, set[str]] = defaultdict(set)  # by user, without those of the dataset
        self._later_users: dict[str, set[int]] = defaultdict(set)  # by item

    def add(self, events: Iterable[Event]) -> None:
        """Add events of users that came after the dataset, all of the behavior that counts."""
        with self._lock:
            for event in events:
                user_id, item_id = event.user_id, event.interaction.item_id
                if user_id is None or item_id is None:
                    continue
                code = self._code.setdefault(user_id, len(self._user_ids))
                if code == len(self._user_ids):
                    self._user_ids.append(user_id)
                    self._sizes.append(0)
                if item_id not in self._later[code] and item_id not in self._start_of(code):
                    self._later[code].add(item_id)
                    self._later_users[item_id].add(code)
                    self._sizes[code] += 1

    def find(self, user_id: str, k: int) -> list[Neighbor]:
        """Return the most similar users, best first; those with equal similarity by their ids.

        Args:
            user_id: the user.
            k: the highest number of users.
        """
        with self._lock:
            code = self._code.get(user_id)
            if code is None or not self._sizes[code]:
                return []
            own = self._items_of(code)
            shared: FloatArray = np.zeros(len(self._user_ids))
            for item_id in own:
                if item_id in self._catalog:
                    row = self._catalog.row(item_id)
                    start, end = self._users.indptr[row : row + 2]
                    shared[self._users.indices[start:end]] += 1
                for other in self._later_users.get(item_id, ()):
                    shared[other] += 1
            shared[code] = 0
            some = np.flatnonzero(shared)
            sizes = np.array([self._sizes[n] for n in some.tolist()], dtype=np.float64)
            values = shared[some] / np.sqrt(sizes * len(own))
            order = sorted(
                zip(values.tolist(), some.tolist(), strict=True),
                key=lambda pair: (-pair[0], self._user_ids[pair[1]]),
            )
            return [
                Neighbor(self._user_ids[n], value, tuple(sorted(own & self._items_of(n))))
                for value, n in order[:k]
            ]

    def _start_of(self, code: int) -> Set[str]:
        """Return the items of a user in the dataset."""
        if code >= self._rows.shape[0]:
            return set()
        start, end = self._rows.indptr[code : code + 2]
        return {self._catalog[row].item_id for row in self._rows.indices[start:end].tolist()}

    def _items_of(self, code: int) -> Set[str]:
        return self._start_of(code) | self._later.get(code, set())
