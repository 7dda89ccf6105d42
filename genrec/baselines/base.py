"""Simple recommenders to be compared with, behind one protocol; fitted ones are kept in files.

They know item ids and counts (``content`` and ``textseq`` titles too), nothing of prompts. Those
that score every item derive from ``Scorer``: a matrix of scores is all that one of them writes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.interactions import Interactions
from genrec.errors import DataError, RequestError, SettingsError
from genrec.types import FloatArray, IntArray, Log

Arrays = Mapping[str, npt.NDArray[Any]]

VERSION = 1  # of what is fitted; another one makes kept files stale
FOLDER = "baselines"  # in a dataset folder
_CHUNK = 4_000_000  # scores that are held at once


class Baseline(Protocol):
    """What is compared: a name, and ranked item ids for a history."""

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """The k best item ids, best first; fewer only where fewer are allowed.

        Args:
            history: of anybody, in the data or not; may be empty.
            k: at least 1.
            exclude_seen: whether items of the history are left out (see ``History.had``).
        """
        ...


@dataclass(frozen=True, slots=True)
class Events:
    """What a baseline may learn from: a behavior's events before a split; E events of U users.

    Attributes:
        catalog: the items.
        behavior: whose events they are.
        user: (E,) dense number of the user, rising.
        row: (E,) catalog row, each user's oldest first.
        place: (E,) index into the columns of ``interactions``.
        interactions: all of them, for what else an event holds.
        limit: events with a split code below it may be looked at.
    """

    catalog: Catalog
    behavior: str
    user: IntArray
    row: IntArray
    place: IntArray
    interactions: Interactions
    limit: int

    @classmethod
    def of(cls, interactions: Interactions, behavior: str, before: str) -> Events:
        """The events of a behavior that lie before ``validation`` (train only) or ``test``."""
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
        """U."""
        return int(self.user[-1]) + 1 if len(self.user) else 0

    def popularity(self) -> FloatArray:
        """(N,) how many events an item has."""
        return np.bincount(self.row, minlength=len(self.catalog)).astype(np.float64)

    def matrix(self) -> Any:
        """(U, N) sparse: 1 where a user has an item."""
        from scipy import sparse

        shape = (self.n_users, len(self.catalog))
        found = sparse.csr_array((np.ones(len(self.row)), (self.user, self.row)), shape=shape)
        found.data[:] = 1.0  # repeats were summed
        return found

    def without_repeats(self) -> Events:
        """The same with each user's items where they were first."""
        _, first = np.unique(self.user * len(self.catalog) + self.row, return_index=True)
        return self._only(np.sort(first))

    def of_users_with(self, least: int) -> Events:
        """The same of users with at least so many events."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return self._only(np.flatnonzero(counts[self.user] >= least))

    def _only(self, kept: IntArray) -> Events:
        _, user = np.unique(self.user[kept], return_inverse=True)
        return Events(
            self.catalog, self.behavior, user.astype(np.int64), self.row[kept], self.place[kept],
            self.interactions, self.limit,
        )  # fmt: skip

    def digest(self) -> str:
        """SHA-256 (hex) of all that lies before the split: other events, another digest."""
        c = self.interactions.columns
        seen = c.split < self.limit
        digest = hashlib.sha256()
        for column in (c.user, c.row, c.behavior, c.timestamp):
            digest.update(np.ascontiguousarray(column[seen]).tobytes())
        return digest.hexdigest()


class Scorer(ABC):
    """A baseline that scores every item; ties go by catalog row.

    Attributes:
        name: what ``fit`` knows it by.
        settings: the defaults with what was given in their place.
        arrays: all that was learned.
        leads: behaviors of which an item does not count as seen, see ``DatasetInfo.lead_in_behaviors``.
    """

    name: str
    lead_in_behaviors: Collection[str] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        interactions: Interactions,
        behavior: str,
        *,
        before: str = "test",
        arrays: Arrays | None = None,
        work: Path | None = None,
        index: Path | None = None,
        log: Log = lambda message: None,
        **settings: Any,
    ) -> None:
        """Learns from the events of a behavior that lie before a split, over all users.

        Args:
            interactions: split interactions.
            behavior: what is learned from and recommended for, such as ``buy``.
            before: ``validation`` for train only, ``test`` for train and validation.
            arrays: what an earlier fit learned; then nothing is learned again.
            work: a folder for checkpoints, where a long fit goes on from the last one.
            index: a folder in which ``genrec index`` may have left vectors of the titles.
            log: called with a line of text now and then in a long fit.
            **settings: see the class's ``defaults``.

        Raises:
            SettingsError: an unknown setting.
        """
        self.catalog = interactions.catalog
        self.settings = self.settings_of(settings)
        self.work, self.index, self.log = work, index, log
        events = Events.of(interactions, behavior, before)
        self.behavior = behavior
        self.arrays = arrays if arrays is not None else self.learn(events)

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings in effect; an unknown one is an error."""
        for name in given:
            if name not in cls.defaults:
                known = ", ".join(cls.defaults) or "none"
                msg = f"{name!r} is not a setting of {cls.name}. Expected one of: {known}."
                raise SettingsError(msg)
        return {**cls.defaults, **given}

    @abstractmethod
    def learn(self, events: Events) -> Arrays:
        """All that the scores depend on, as named arrays."""

    @abstractmethod
    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """(U, N) scores for U histories by catalog row; higher is better."""

    def scores(self, history: History) -> FloatArray:
        """(N,) scores by catalog row; higher is better."""
        scores: FloatArray = self.scores_many([history])[0]
        return scores

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """See ``Baseline.rank``."""
        return self.rank_many([history], k, exclude_seen=exclude_seen)[0]

    def rank_many(
        self, histories: Sequence[History], k: int, *, exclude_seen: bool = False
    ) -> list[list[str]]:
        """``rank`` for several histories, in chunks, so that memory is bounded.

        Raises:
            RequestError: k < 1, or an item that is not in the catalog.
        """
        if k < 1:
            msg = f"k={k!r}. Expected a whole number, 1 or more."
            raise RequestError(msg)
        ranked = []
        size = max(1, _CHUNK // len(self.catalog))
        for first in range(0, len(histories), size):
            chunk = histories[first : first + size]
            for history in chunk:
                self.catalog.rows(history.item_ids)  # all are known
            scores = self.scores_many(chunk)
            for history, values in zip(chunk, scores, strict=True):
                allowed = values
                if exclude_seen:
                    allowed = without_seen(self.catalog, history, values, self.lead_in_behaviors)
                ranked.append([self.catalog[row].item_id for row in best(allowed, k).tolist()])
        return ranked

    def baskets(self, histories: Sequence[History]) -> Any:
        """(U, N) sparse: 1 where a history holds an item."""
        from scipy import sparse

        rows = [sorted(set(self.catalog.rows(h.item_ids))) for h in histories]
        return sparse_rows(sparse, rows, [[1.0] * len(r) for r in rows], len(self.catalog))


def without_seen(
    catalog: Catalog, history: History, scores: FloatArray, lead_in_behaviors: Collection[str]
) -> FloatArray:
    """(N,) scores with -inf for the items that were seen (``History.had``)."""
    allowed = scores.copy()
    allowed[catalog.rows(history.had(lead_in_behaviors))] = -np.inf
    return allowed


def best(scores: FloatArray, k: int) -> IntArray:
    """(k,) rows of the highest scores, ties by row; -inf is never taken.

    >>> best(np.array([1.0, 3.0, -np.inf, 3.0]), k=5)
    array([1, 3, 0])
    """
    n = min(k, int((scores > -np.inf).sum()))
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:n]


def filled(scores: FloatArray, popularity: FloatArray) -> FloatArray:
    """(U, N) scores with every item that has none above 0 behind all others, by popularity."""
    return np.where(scores > 0, scores, popularity / (popularity.max() + 1.0) - 1.0)


def or_popular(
    scores: FloatArray, known: npt.NDArray[np.bool_], popularity: FloatArray
) -> FloatArray:
    """(U, N) scores, in which histories that say nothing have popularity instead.

    Args:
        scores: (U, N).
        known: (U,) whether the history says something.
        popularity: (N,).
    """
    return np.where(np.asarray(known)[:, None], scores, popularity[None])


def sparse_rows(
    sparse: Any, rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], n: int
) -> Any:
    """(U, n) sparse from the columns and weights of each row; weights of one place are summed."""
    which = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    columns = np.array([c for r in rows for c in r], dtype=np.int64)
    values = np.array([v for w in weights for v in w], dtype=np.float64)
    return sparse.csr_array((values, (which, columns)), shape=(len(rows), n))


def sparse_to_arrays(name: str, matrix: Any) -> dict[str, npt.NDArray[Any]]:
    """A sparse matrix as arrays that a file holds."""
    matrix = matrix.tocsr()
    return {
        f"{name}.data": matrix.data,
        f"{name}.columns": matrix.indices.astype(np.int64),
        f"{name}.starts": matrix.indptr.astype(np.int64),
        f"{name}.width": np.array([matrix.shape[1]], dtype=np.int64),
    }


def sparse_from_arrays(name: str, arrays: Arrays, width: int) -> Any:
    """The sparse matrix, of so many columns, that ``sparse_to_arrays`` took apart."""
    from scipy import sparse

    found = tuple(arrays[f"{name}.{part}"] for part in ("data", "columns", "starts"))
    return sparse.csr_array(found, shape=(len(found[2]) - 1, width))
