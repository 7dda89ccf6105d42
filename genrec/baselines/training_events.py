"""Select the events that a baseline is fitted to.

Deals with splits and behaviors, not with scores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.interactions import Interactions
from genrec.errors import DataError, RequestError
from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class TrainingEvents:
    """The events that a baseline is fitted to.

    There are E events of U users. All events have the same behavior and come before a split.

    Attributes:
        catalog: the items.
        behavior: the behavior of all events.
        user: (E,) user numbers, starting at 0, in ascending order.
        row: (E,) catalog rows, each user's oldest event first.
        place: (E,) the events' indices in the columns of ``interactions``.
        interactions: all events, which provide the other columns.
        limit: the first split code that may not be used; only events with lower codes may be used.
    """

    catalog: Catalog
    behavior: str
    user: IntArray
    row: IntArray
    place: IntArray
    interactions: Interactions
    limit: int

    @classmethod
    def of(cls, interactions: Interactions, behavior: str, before: str) -> TrainingEvents:
        """Select the events with a given behavior before a split.

        Args:
            interactions: the events, with a split.
            behavior: the behavior, such as ``buy``.
            before: ``validation`` for the train part only, ``test`` for train and validation.

        Raises:
            RequestError: the split is unknown.
            DataError: the behavior is not in the data.
        """
        limits = {"validation": 1, "test": 2}
        if before not in limits:
            msg = f"before={before!r} is not known. Expected validation or test."
            raise RequestError(msg)
        c = interactions.columns
        if behavior not in interactions.behaviors:
            known = ", ".join(interactions.behaviors)
            msg = f"behavior={behavior!r} is not in the data. Expected one of: {known}."
            raise DataError(msg)
        use = (c.split < limits[before]) & (c.behavior == interactions.behaviors.index(behavior))
        place = np.flatnonzero(use & (c.row >= 0))
        _, user = np.unique(c.user[place], return_inverse=True)
        return cls(
            interactions.catalog, behavior, user.astype(np.int64), c.row[place], place,
            interactions, limits[before],
        )  # fmt: skip

    @property
    def n_users(self) -> int:
        """The number of users, U."""
        return int(self.user[-1]) + 1 if len(self.user) else 0

    def popularity(self) -> FloatArray:
        """Return the number of events of each item, (N,)."""
        return np.bincount(self.row, minlength=len(self.catalog)).astype(np.float64)

    def matrix(self) -> Any:
        """Return a sparse (U, N) matrix with a 1 for each item of each user."""
        from scipy import sparse

        shape = (self.n_users, len(self.catalog))
        matrix = sparse.csr_array((np.ones(len(self.row)), (self.user, self.row)), shape=shape)
        matrix.data[:] = 1.0  # repeats were summed
        return matrix

    def without_repeats(self) -> TrainingEvents:
        """Return only each user's first event with each item."""
        _, first = np.unique(self.user * len(self.catalog) + self.row, return_index=True)
        return self._only(np.sort(first))

    def of_users_with(self, least: int) -> TrainingEvents:
        """Return the events of the users who have at least ``least`` events."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return self._only(np.flatnonzero(counts[self.user] >= least))

    def _only(self, kept: IntArray) -> TrainingEvents:
        _, user = np.unique(self.user[kept], return_inverse=True)
        return TrainingEvents(
            self.catalog, self.behavior, user.astype(np.int64), self.row[kept], self.place[kept],
            self.interactions, self.limit,
        )  # fmt: skip

    def digest(self) -> str:
        """Return a hash of all events before the split (SHA-256, hex)."""
        c = self.interactions.columns
        seen = c.split < self.limit
        digest = hashlib.sha256()
        for column in (c.user, c.row, c.behavior, c.timestamp):
            digest.update(np.ascontiguousarray(column[seen]).tobytes())
        return digest.hexdigest()
