"""Select the events to which a baseline is fitted.

This module deals with splits and behaviors, not with scores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import count_splits
from genrec.data.interactions import Interactions
from genrec.errors import DataError
from genrec.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class TrainingEvents:
    """The E events of U users to which a baseline is fitted.

    All of them have the same behavior. They belong to the train part of a dataset, to its train and
    validation parts, or to all parts.

    Attributes:
        catalog: the items.
        behavior: the behavior of all events.
        user: (E,) number of each event's user, in ascending order. Only users with such events are
            numbered, starting from 0.
        row: (E,) catalog row of each event's item; each user's oldest event comes first.
        place: (E,) index of each event in the columns of ``interactions``.
        interactions: all events of the dataset.
        limit: number of parts of the dataset whose events are used, starting with the train part;
            see ``count_splits``.
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
        """Select the events with a given behavior that may be used for fitting.

        Args:
            interactions: the events, which are split into train, validation and test parts.
            behavior: the behavior, such as ``buy``.
            before: ``validation`` to select events of the train part only, ``test`` to select those
                of the train and validation parts, ``end`` to select those of all parts.

        Raises:
            RequestError: ``before`` has a different value.
            DataError: the behavior is not in the data.
        """
        limit, c = count_splits(before), interactions.columns
        if behavior not in interactions.behaviors:
            known = ", ".join(interactions.behaviors)
            msg = f"behavior={behavior!r} is not in the data. Expected one of: {known}."
            raise DataError(msg)
        use = (c.split < limit) & (c.behavior == interactions.behaviors.index(behavior))
        place = np.flatnonzero(use & (c.row >= 0))
        _, user = np.unique(c.user[place], return_inverse=True)
        return cls(
            interactions.catalog, behavior, user.astype(np.int64), c.row[place], place,
            interactions, limit,
        )  # fmt: skip

    @property
    def n_users(self) -> int:
        """Return the number of users who have at least one of the events."""
        return int(self.user[-1]) + 1 if len(self.user) else 0

    def popularity(self) -> FloatArray:
        """Return the number of events with each of the N items, as an (N,) array."""
        return np.bincount(self.row, minlength=len(self.catalog)).astype(np.float64)

    def matrix(self) -> Any:
        """Return a sparse (U, N) matrix of users and items, with a 1 wherever a user has an item."""
        from scipy import sparse

        shape = (self.n_users, len(self.catalog))
        matrix = sparse.csr_array((np.ones(len(self.row)), (self.user, self.row)), shape=shape)
        matrix.data[:] = 1.0  # repeated events were summed to more than 1
        return matrix

    def without_repeats(self) -> TrainingEvents:
        """Return only the first event of each user with each item."""
        _, first = np.unique(self.user * len(self.catalog) + self.row, return_index=True)
        return self._only(np.sort(first))

    def of_users_with(self, least: int) -> TrainingEvents:
        """Return only the events of users who have at least ``least`` events."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return self._only(np.flatnonzero(counts[self.user] >= least))

    def _only(self, kept: IntArray) -> TrainingEvents:
        _, user = np.unique(self.user[kept], return_inverse=True)
        return TrainingEvents(
            self.catalog, self.behavior, user.astype(np.int64), self.row[kept], self.place[kept],
            self.interactions, self.limit,
        )  # fmt: skip

    def digest(self) -> str:
        """Return a SHA-256 hash (hex) of all events that may be used, regardless of behavior."""
        c = self.interactions.columns
        seen = c.split < self.limit
        digest = hashlib.sha256()
        for column in (c.user, c.row, c.behavior, c.timestamp):
            digest.update(np.ascontiguousarray(column[seen]).tobytes())
        return digest.hexdigest()
