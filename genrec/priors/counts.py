"""Count what the collaborative prior is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from genrec.baselines.base import Events
from genrec.baselines.counting import sparse_latest, transitions
from genrec.baselines.neighbors import EASE
from genrec.config import COUNTED as COUNTED
from genrec.config import LEARNED as LEARNED
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.errors import RequestError
from genrec.matching.ngrams import AlikeTitles
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray

_BACK = 0.3  # as of ``baselines.Markov``

_ALL = 1 << 40

OWN = {"own": 0.95, "recent": 0.8}  # what a step back in the user's own history counts

# Of each source: the matrix from what a history holds to what it says, and what it looks at: a step
# back counts so much, of so many of the latest events; None for each item once.
_READ: dict[str, tuple[str, tuple[float, int] | None]] = {
    "markov": ("_after", (0.8, 5)),  # as of ``baselines.Markov``
    "followed": ("_after", (0.95, _ALL)),
    "itemknn": ("_near", None),
    "nearest": ("_nearest", None),
    "latest": ("_nearer", (0.5, 5)),
    "ease": ("ease", None),
}

_ALIKE = (0.8, 25)  # likewise, of ``titles``

_NEWEST, _MOST_NEWEST = 0.1, 100_000  # of the events, and at most, are the latest

_PENALTY = EASE.defaults["penalty"]

_EASE_ITEMS, _EASE_NEAR = 5000, 50  # with the most users; weights kept of each

_CHUNK = 256  # of their rows at a time


@dataclass(frozen=True, eq=False)
class Counts:
    """What was counted from events; N items, U users.

    Attributes:
        catalog: the items.
        user_ids: (U,) whose events were counted.
        latest: (U,) the row of each user's latest event.
        items: (U, N) sparse, 1 where a user has an item.
        after: (N, N) sparse, how often the column's item came right after the row's.
        both: (N, N) sparse, how many users have both.
        popularity: (N,) events of each item.
        newest: the rows of the latest tenth of all events, oldest first; none where time is only
            each user's order.
    """

    catalog: Catalog
    user_ids: tuple[str, ...]
    latest: IntArray
    items: Any
    after: Any
    both: Any
    popularity: FloatArray
    newest: IntArray

    @classmethod
    def none(cls, catalog: Catalog) -> Counts:
        """Before anything was counted."""
        from scipy import sparse

        n = len(catalog)
        square = sparse.csr_array((n, n))
        nobody = np.empty(0, dtype=np.int64)
        return cls(
            catalog,
            (),
            nobody,
            sparse.csr_array((0, n)),
            square,
            square.copy(),
            np.zeros(n),
            nobody,
        )

    def over(self, catalog: Catalog) -> Counts:
        """The same for a catalog with further items after these.

        Raises:
            RequestError: it does not begin with these items.
        """
        if catalog is self.catalog:
            return self
        n, old = len(catalog), len(self.catalog)
        titles = [item.title for item in catalog]
        known = [item.item_id for item in self.catalog]
        if n < old or [catalog[row].item_id for row in range(old)] != known:
            msg = (
                f"A catalog of {n:,} items for counts of {old:,} others. Expected the same items "
                "in the same order, and further ones after them."
            )
            raise RequestError(msg)
        found = replace(
            self,
            catalog=catalog,
            items=_sized(self.items, len(self.user_ids), n),
            after=_sized(self.after, n, n),
            both=_sized(self.both, n, n),
            popularity=np.append(self.popularity, np.zeros(n - old)),
        )
        if "alike" in self.__dict__ and titles == [item.title for item in self.catalog]:
            found.__dict__["alike"] = self.alike
        return found

    def more(
        self,
        names: Sequence[str],
        user: IntArray,
        row: IntArray,
        when: FloatArray | None = None,
    ) -> Counts:
        """With further events.

        Args:
            names: (M,) ids of users, each once.
            user: (E,) index into names, rising.
            row: (E,) the items, each user's oldest first; all are later than what was counted.
            when: (E,) their times; None where their order is that of time.
        """
        from scipy import sparse

        if not len(row):
            return self
        n, known = len(self.catalog), {u: code for code, u in enumerate(self.user_ids)}
        new = [name for name in names if name not in known]
        known |= {name: len(self.user_ids) + number for number, name in enumerate(new)}
        code = np.array([known[name] for name in names], dtype=np.int64)
        size = len(self.user_ids) + len(new)
        latest = np.append(self.latest, np.full(len(new), -1))
        begins = np.append(True, user[1:] != user[:-1])
        before = np.where(begins, latest[code[user]], np.append(-1, row[:-1]))
        follows = before >= 0
        ends = np.append(begins[1:], True)
        latest[code[user[ends]]] = row[ends]
        items = _sized(self.items, size, n)
        old = items[code]
        had = sparse.csr_array((np.ones(len(row)), (user, row)), shape=(len(names), n)) + old
        had.data[:] = 1.0  # repeats were summed
        place = sparse.csr_array(
            (np.ones(len(names)), (code, np.arange(len(names)))), shape=(size, len(names))
        )
        found = replace(
            self,
            user_ids=(*self.user_ids, *new),
            latest=latest,
            items=_clean(items + place @ (had - old)),
            after=_clean(self.after + transitions(before[follows], row[follows], n)),
            both=_clean(self.both + had.T @ had - old.T @ old),
            popularity=self.popularity + np.bincount(row, minlength=n),
            newest=self._newest_with(row if when is None else row[np.argsort(when, kind="stable")]),
        )
        if "alike" in self.__dict__:  # of the same titles
            found.__dict__["alike"] = self.alike
        return found

    def _newest_with(self, row: IntArray) -> IntArray:
        """The latest of all events, once some were added that are later than the others."""
        total = int(self.popularity.sum()) + len(row)
        size = min(max(int(total * _NEWEST), 1), _MOST_NEWEST)
        return np.append(self.newest, row)[-size:]

    @cached_property
    def base(self) -> Weights:
        """Popularity, smoothed; an item that is not known yet is one without events."""
        total = float((self.popularity + 1.0).sum())
        return Weights((self.popularity + 1.0) / total, rest=1.0 / total)

    @cached_property
    def trend(self) -> FloatArray:
        """(N,) the shares of the latest events; popularity where there are none."""
        if not len(self.newest):
            return self.base.values
        found = np.bincount(self.newest, minlength=len(self.catalog))
        return np.asarray(found / len(self.newest), dtype=np.float64)

    @cached_property
    def _after(self) -> Any:
        return _clean(self.after + _BACK * self.after.T)

    @cached_property
    def _near(self) -> Any:
        """(N, N) sparse: the cosines of items as sets of users, without those to themselves."""
        from scipy import sparse

        users = self.both.diagonal()
        root = np.divide(1.0, np.sqrt(users), out=np.zeros(len(users)), where=users > 0)
        scale = sparse.dia_array((root[None], [0]), shape=self.both.shape)
        itself = sparse.dia_array((users[None], [0]), shape=self.both.shape)
        return _clean(scale @ _clean(self.both - itself) @ scale)

    @cached_property
    def ease(self) -> Any:
        """(N, N) sparse: EASE's strongest weights above 0, among the items with the most users.

        It takes half a second for 2,000 items, some five and 0.2 GB for 5,000.
        """
        from scipy import sparse
        from scipy.linalg import lapack

        n, users = len(self.catalog), self.both.diagonal()
        some = np.sort(
            np.argsort(-users, kind="stable")[: min(int((users > 0).sum()), _EASE_ITEMS)]
        )
        if not len(some):
            return sparse.csr_array((n, n))
        gram = self.both[some][:, some].toarray().T  # symmetric; so it is in LAPACK's order
        gram[np.diag_indices_from(gram)] += _PENALTY
        # Positive definite, too, so that Cholesky's factor will do; of its inverse the lower half
        # is filled.
        factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        assert not failed
        inverse, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
        assert not failed
        scale, parts = -np.diag(inverse), []
        for first in range(0, len(some), _CHUNK):  # so that only one such matrix is in memory
            row = np.arange(first, min(first + _CHUNK, len(some)))
            lower = np.arange(len(some)) <= row[:, None]
            weights = np.where(lower, inverse[row], inverse[:, row].T) / scale
            weights[row - first, row] = 0.0
            size = min(_EASE_NEAR, len(some))
            near = np.argpartition(-weights, size - 1, axis=1)[:, :size]
            values = np.take_along_axis(weights, near, axis=1)
            source, place = np.nonzero(values > 0)
            parts.append((values[source, place], some[row[source]], some[near[source, place]]))
        data, rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _clean(sparse.csr_array((data, (rows, columns)), shape=(n, n)))

    @cached_property
    def alike(self) -> AlikeTitles:
        """The titles of the catalog."""
        return AlikeTitles([item.title for item in self.catalog])

    @cached_property
    def _nearest(self) -> Any:
        return _powered(self._near, 3)

    @cached_property
    def _nearer(self) -> Any:
        return _powered(self._near, 2)

    def shares(self, name: str, histories: Sequence[History]) -> Any:
        """(H, N) sparse: a distribution over items for each history; empty where it has none."""
        if name in OWN:
            return _unit(self._read(histories, OWN[name], _ALL))
        if name == "titles":
            known = self._read(histories, *_ALIKE)
            rows = np.unique(known.indices)
            return _unit(known[:, rows] @ self.alike.links(rows))
        links, what = _READ[name]
        known = self._read(histories, *(what or (1.0, _ALL)))
        if what is None:
            known.data[:] = 1.0
        return _unit(known @ getattr(self, links))

    def _read(self, histories: Sequence[History], decay: float, last: int) -> Any:
        return sparse_latest(self.catalog, histories, decay=decay, last=last, keep_repeats=True)


def count(dataset: Dataset, behavior: str, before: str) -> Counts:
    """Counts a behavior's events before a split: ``validation`` for train only."""
    events = Events.of(dataset.interactions, behavior, before)
    who = dataset.interactions.columns.user[events.place]
    codes = who[np.append(True, who[1:] != who[:-1])] if len(who) else who
    names = [dataset.interactions.user_ids[code] for code in codes.tolist()]
    when = dataset.interactions.columns.timestamp[events.place]
    found = Counts.none(dataset.catalog).more(names, events.user, events.row, when)
    if dataset.info.time_unit == "position":  # which says nothing of two users' events
        found = replace(found, newest=found.newest[:0])
    return found


def _unit(matrix: Any) -> Any:
    """Sparse rows that sum to 1; empty ones stay empty."""
    found = matrix.tocsr()
    total = np.asarray(found.sum(axis=1)).ravel()
    found.data = found.data / np.repeat(np.where(total > 0, total, 1.0), np.diff(found.indptr))
    return found


def _clean(matrix: Any) -> Any:
    """A sparse matrix in rows, sorted, without zeros."""
    found = matrix.tocsr()
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _powered(matrix: Any, n: int) -> Any:
    """The entries of a sparse matrix to a power, in the same places, which are not copied."""
    from scipy import sparse

    return sparse.csr_array((matrix.data**n, matrix.indices, matrix.indptr), shape=matrix.shape)


def _sized(matrix: Any, rows: int, columns: int) -> Any:
    """A sparse matrix with empty rows and columns after its own."""
    found = matrix.copy()
    found.resize((rows, columns))
    return found
