"""Count users' events, and turn the counts into the distributions of the collaborative prior.

Since counts are sums over events, adding new events gives the same result as counting everything
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from genrec.baselines.sparse import count_transitions, row_entries, weigh_latest
from genrec.baselines.training_events import TrainingEvents
from genrec.config import CONTEXT, KNOWLEDGE, VECTORS
from genrec.config import COUNTED as COUNTED
from genrec.config import LEARNED as LEARNED
from genrec.data.catalog import Catalog
from genrec.data.context import context_of
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.data.knowledge import Knowledge
from genrec.errors import RequestError
from genrec.priors.context_counts import ContextCounts
from genrec.priors.cosines import Cosines
from genrec.priors.ease_weights import solve
from genrec.priors.event_times import EventTimes
from genrec.priors.knowledge_links import KnowledgeLinks
from genrec.priors.title_neighbors import TitleNeighbors
from genrec.priors.vector_links import VectorLinks
from genrec.priors.weights import Weights
from genrec.types import FloatArray, IntArray

_BACK = 0.3  # weight of a transition in the reverse direction, as in ``baselines.Markov``
_ALL = 1 << 40  # more events than any history has
# For each source of the user's own items: the weight of each item relative to the next newer one.
OWN = {"own": 0.95, "recent": 0.8}

# Some sources multiply a history by a matrix of weights between items. For each of them: the
# attribute that holds the matrix, or the power of the cosine; and the weights of the items in the
# history. These are given by the weight of each item relative to the next newer one, and the number
# of latest events used. None means that each item counts once.
_MATRICES: dict[str, tuple[str | int, tuple[float, int] | None]] = {
    "markov": ("_both_ways", (0.8, 5)),  # as in ``baselines.Markov``
    "followed": ("_both_ways", (0.95, _ALL)),
    "itemknn": (1, None),
    "nearest": (3, None),
    "latest": (2, (0.5, 5)),
    "ease": ("ease", None),
}
# The sources that link items by what is known about them, and the same two numbers for them.
_LINKED = ("titles", KNOWLEDGE, VECTORS)
_LATEST = (0.8, 25)
# The fraction of all events that count as the latest ones, and the maximum number of these.
_NEWEST, _MAX_NEWEST = 0.1, 100_000


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of events for N items and U users.

    Attributes:
        catalog: the items.
        user_ids: (U,) ids of the users whose events were counted.
        latest: (U,) catalog row of each user's latest item.
        items: (U, N) sparse matrix with a 1 for each item that a user interacted with.
        after: (N, N) sparse matrix that counts how often the item in the column came right after
            the item in the row.
        popularity: (N,) number of events with each item.
        newest: catalog rows of the items in the latest tenth of all events, oldest first; empty if
            events of different users cannot be ordered in time.
        title_neighbors: the titles of the items, for finding items with similar titles.
        saved: matrices that were computed earlier, keyed by attribute name: ``ease``.
        times: the times of the events; empty if events of different users cannot be ordered in
            time.
        contexts: the counts by context; empty if the dataset declares no columns of the context.
        knowledge: what is known about the items, for finding items that share it; None for nothing.
        vectors: the vectors of the items, for finding items with similar ones; None for no vectors.
    """

    catalog: Catalog
    user_ids: tuple[str, ...]
    latest: IntArray
    items: Any
    after: Any
    popularity: FloatArray
    newest: IntArray
    title_neighbors: TitleNeighbors
    saved: Mapping[str, Any] = field(default_factory=dict)
    times: EventTimes = field(default_factory=EventTimes)
    contexts: ContextCounts = field(default_factory=ContextCounts)
    knowledge: KnowledgeLinks | None = None
    vectors: VectorLinks | None = None

    @classmethod
    def none(cls, catalog: Catalog) -> Counts:
        """Create counts for a catalog, with no events counted yet."""
        from scipy import sparse

        n = len(catalog)
        nobody = np.empty(0, dtype=np.int64)
        return cls(
            catalog,
            (),
            nobody,
            sparse.csr_array((0, n)),
            sparse.csr_array((n, n)),
            np.zeros(n),
            nobody,
            TitleNeighbors(catalog),
        )

    def over(self, catalog: Catalog) -> Counts:
        """Return the same counts for a catalog that has additional items at its end.

        Args:
            catalog: the new catalog.

        Raises:
            RequestError: the catalog does not begin with the items of these counts.
        """
        if catalog is self.catalog:
            return self
        n, old = len(catalog), len(self.catalog)
        known = [item.item_id for item in self.catalog]
        if n < old or [catalog[row].item_id for row in range(old)] != known:
            msg = (
                f"The catalog of {n:,} items does not begin with the {old:,} items that were "
                "counted. Expected the same items in the same order, followed by any new items."
            )
            raise RequestError(msg)
        neighbors, ease = TitleNeighbors(catalog), self.__dict__.get("ease", self.saved.get("ease"))
        same_titles = neighbors.titles == self.title_neighbors.titles
        return replace(
            self,
            catalog=catalog,
            items=_sized(self.items, len(self.user_ids), n),
            after=_sized(self.after, n, n),
            popularity=np.append(self.popularity, np.zeros(n - old)),
            title_neighbors=self.title_neighbors if same_titles else neighbors,
            contexts=self.contexts.sized(n),
            knowledge=None if self.knowledge is None else self.knowledge.over(catalog),
            vectors=None if self.vectors is None else self.vectors.over(catalog),
            saved={} if ease is None else {"ease": _sized(ease, n, n)},
        )

    def links(self, source: str, rows: IntArray) -> Any:
        """Link R items to similar ones, for one of the sources ``titles``, ``knowledge`` and ``vectors``.

        Args:
            source: name of the source.
            rows: (R,) catalog rows of the items.

        Returns:
            A sparse (R, N) matrix of weights; see ``NearestRows.links``.
        """
        from scipy import sparse

        if source == "titles":
            return self.title_neighbors.alike.links(rows)
        found = self.knowledge if source == KNOWLEDGE else self.vectors
        if found is None:
            return sparse.csr_array((len(rows), len(self.catalog)))
        return found.nearest.links(rows)

    def with_events(
        self, events: Mapping[str, Sequence[Interaction | str]], catalog: Catalog
    ) -> Counts:
        """Return counts that also include additional events of users.

        Args:
            events: each user's new events or item ids; see ``CollaborativePrior.update``.
            catalog: the catalog; see ``over``.

        Raises:
            RequestError: an item is not in the catalog, or the catalog does not begin with the items
                of these counts.
        """
        counts = self.over(catalog)
        rows = [catalog.rows(_item_ids(e)) for e in events.values()]
        names = [name for name, r in zip(events, rows, strict=True) if r]
        rows = [r for r in rows if r]
        user = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        row = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
        times = list(chain.from_iterable(map(_times, events.values())))
        when = None if None in times else np.array(times, dtype=np.float64)
        columns = self.contexts.names
        read = [_context(e, columns) for each in events.values() for e in each] if columns else []
        known = {c: [each.get(c, "") for each in read if each is not None] for c in columns}
        return counts.more(names, user, row, when, known)

    def more(
        self,
        names: Sequence[str],
        user: IntArray,
        row: IntArray,
        when: FloatArray | None = None,
        contexts: Mapping[str, Sequence[str]] | None = None,
    ) -> Counts:
        """Return counts that also include E additional events.

        Args:
            names: ids of the users who have additional events, without duplicates.
            user: (E,) index in ``names`` of each event's user, in ascending order.
            row: (E,) catalog row of each event's item; each user's oldest event comes first. All
                events must be later than those counted so far.
            when: (E,) time of each event; None if all events are in chronological order.
            contexts: for each declared column of the context, the E values of the events; empty for
                an event without a value.
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
        had.data[:] = 1.0  # repeated events were summed to more than 1
        place = sparse.csr_array(
            (np.ones(len(names)), (code, np.arange(len(names)))), shape=(size, len(names))
        )
        by_time = row if when is None else row[np.argsort(when, kind="stable")]
        return replace(
            self,
            user_ids=(*self.user_ids, *new),
            latest=latest,
            items=_clean(items + place @ (had - old)),
            after=_clean(self.after + count_transitions(before[follows], row[follows], n)),
            popularity=self.popularity + np.bincount(row, minlength=n),
            newest=self._newest_with(by_time) if self._has_order else self.newest,
            times=self._times_with(row, when),
            contexts=self.contexts.more(contexts or {}, row),
            saved={},
        )

    @property
    def _has_order(self) -> bool:
        """Return False if events were counted that cannot be ordered in time."""
        return bool(len(self.newest) or not self.popularity.sum())

    def _times_with(self, row: IntArray, when: FloatArray | None) -> EventTimes:
        """Return the new value of ``times`` after adding events.

        Times before all counted events are no dates, as new events are later than those. Events with
        such a time, and events without a time, are left out.
        """
        if when is None or not self._has_order:
            return self.times
        dated = ~(when < self.times.earliest)
        return self.times.more(row[dated], when[dated])

    def _newest_with(self, row: IntArray) -> IntArray:
        """Return the new value of ``newest`` after adding events with the given catalog rows."""
        return newest_of(np.append(self.newest, row), int(self.popularity.sum()) + len(row))

    @cached_property
    def base(self) -> Weights:
        """Return weights proportional to popularity plus 1, so that no weight is 0.

        Items that are added to the catalog later are treated as having no events.
        """
        total = float((self.popularity + 1.0).sum())
        return Weights((self.popularity + 1.0) / total, rest=1.0 / total)

    @cached_property
    def trend(self) -> FloatArray:
        """Return each item's share of the latest events, as an (N,) array.

        If the latest events are unknown, the popularity is returned instead.
        """
        if not len(self.newest):
            return self.base.values
        events = np.bincount(self.newest, minlength=len(self.catalog))
        return np.asarray(events / len(self.newest), dtype=np.float64)

    @cached_property
    def preceding(self) -> Any:
        """Return the transpose of ``after``, in CSR format."""
        return self.after.T.tocsr()

    @cached_property
    def _both_ways(self) -> Any:
        return _clean(self.after + _BACK * self.after.T)

    @cached_property
    def cosines(self) -> Cosines:
        """Return the cosine similarities between the user sets of the items."""
        return Cosines(self.items)

    @cached_property
    def ease(self) -> Any:
        """Return the highest positive weights of the EASE model between items; see ``ease_weights``.

        They are computed on first use, unless saved weights are available.

        Raises:
            SettingsError: there is not enough memory.
        """
        known = self.saved.get("ease")
        return solve(self.items) if known is None else known

    def shares(self, source: str, histories: Sequence[History]) -> Any:
        """Compute a source's distribution over N items for each of H histories.

        Args:
            source: name of the source.
            histories: the H histories.

        Returns:
            A sparse (H, N) matrix in which each row sums to 1, or a dense one for the source
            ``context``. A row without entries means that the source knows nothing about that
            history.
        """
        if source == CONTEXT:
            found = [self.contexts.share(h.context, self.base.values) for h in histories]
            nothing = np.zeros(len(self.catalog))
            return np.stack([nothing if share is None else share for share in found])
        if source in OWN:
            return _unit(self._read(histories, OWN[source], _ALL))
        if source in _LINKED:
            known = self._read(histories, *_LATEST)
            rows = np.unique(known.indices)
            return _unit(known[:, rows] @ self.links(source, rows))
        matrix, how = _MATRICES[source]
        known = self._read(histories, *(how or (1.0, _ALL)))
        if how is None:
            known.data[:] = 1.0
        if isinstance(matrix, int):
            return _unit(self.cosines.weigh(known, matrix))
        return _unit(known @ getattr(self, matrix))

    def entries(self, source: str, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """Compute a source's distribution for one history, without building sparse matrices.

        This gives the same distribution as ``shares``, and is several times faster.

        Args:
            source: name of the source.
            rows: (E,) catalog rows of the history's items, oldest first.

        Returns:
            (S,) columns, which may be repeated, and their (S,) weights, which sum to 1. Both are
            empty if the source knows nothing about the history.
        """
        decay, last = OWN.get(source, 1.0), _ALL
        matrix, power = None, 0
        if source in _LINKED:
            decay, last = _LATEST
        elif source not in OWN:
            what, how = _MATRICES[source]
            if how is None:
                rows = np.unique(rows)
            else:
                decay, last = how
            matrix, power = (None, what) if isinstance(what, int) else (getattr(self, what), 0)
        newest = rows[::-1][:last]
        weights = decay ** np.arange(len(newest), dtype=np.float64)
        if source in _LINKED:
            some, newest = np.unique(newest, return_inverse=True)
            matrix = self.links(source, some)
        if power:
            columns, values = self.cosines.entries(newest, weights, power)
        elif matrix is not None:
            columns, values = row_entries(matrix, newest, weights)
        else:
            columns, values = newest, weights
        total = float(values.sum())
        return (columns, values / total) if total > 0 else (columns[:0], values[:0])

    def _read(self, histories: Sequence[History], decay: float, last: int) -> Any:
        return weigh_latest(self.catalog, histories, decay=decay, last=last, keep_repeats=True)


def newest_of(row: IntArray, total: int) -> IntArray:
    """Return the items of the latest tenth of all events.

    Args:
        row: catalog rows of the items of the latest events, oldest first.
        total: the number of all events.
    """
    return row[-min(max(int(total * _NEWEST), 1), _MAX_NEWEST) :]


def count(
    dataset: Dataset, behavior: str, before: str, title_neighbors: TitleNeighbors | None = None
) -> Counts:
    """Count a dataset's events that have a given behavior.

    Args:
        dataset: a dataset whose events are split into train, validation and test parts.
        behavior: the behavior to count, such as ``buy``.
        before: ``validation`` to count events of the train part only, ``test`` to count those of
            the train and validation parts, ``end`` to count all events.
        title_neighbors: the title neighbors of other counts for the same catalog, which are reused;
            None if there are none.
    """
    events = TrainingEvents.of(dataset.interactions, behavior, before)
    user = dataset.interactions.columns.user[events.place]
    codes = user[np.append(True, user[1:] != user[:-1])] if len(user) else user
    names = [dataset.interactions.user_ids[code] for code in codes.tolist()]
    when = dataset.interactions.columns.timestamp[events.place]
    columns = dataset.interactions.context
    empty = replace(
        Counts.none(dataset.catalog),
        contexts=ContextCounts.none([c.name for c in columns], len(dataset.catalog)),
    )
    known = {c.name: c.texts(events.place) for c in columns}
    counts = empty.more(names, events.user, events.row, when, known)
    # Positions in the users' histories do not tell which user's event was earlier.
    if dataset.info.time_unit == "position":
        counts = replace(counts, newest=counts.newest[:0], times=EventTimes())
    if title_neighbors is not None:
        counts = replace(counts, title_neighbors=title_neighbors)
    return with_known_items(counts, dataset)


def with_known_items(counts: Counts, dataset: Dataset) -> Counts:
    """Return counts that link items by what a dataset knows about them and by their vectors."""
    names = tuple(dataset.info.knowledge)
    known = KnowledgeLinks(counts.catalog, Knowledge(names, dataset.triples)) if names else None
    given = dataset.item_vectors
    vectors = None if given is None else VectorLinks(counts.catalog, given)
    return replace(counts, knowledge=known, vectors=vectors)


def _context(event: Interaction | str, columns: Sequence[str]) -> Mapping[str, str] | None:
    """Return the context of an event; None if it has no item, so that it is not counted."""
    if isinstance(event, str):
        return {}
    if event.item_id is None:
        return None
    return event.context or context_of(event.attributes, event.timestamp, columns)


def _item_ids(events: Sequence[Interaction | str]) -> list[str]:
    ids = [e.item_id if isinstance(e, Interaction) else e for e in events]
    return [item for item in ids if item is not None]


def _times(events: Sequence[Interaction | str]) -> list[float | None]:
    """Return the times of the events that have an item; None for an event without a time."""
    times: list[float | None] = []
    for event in events:
        if isinstance(event, str):
            times.append(None)
        elif event.item_id is not None:
            when: float | None = event.timestamp  # may be None from callers without a type checker
            times.append(None if when is None or not np.isfinite(when) else when)
    return times


def _unit(matrix: Any) -> Any:
    """Scale each row of a sparse matrix so that it sums to 1, leaving empty rows unchanged."""
    rows = matrix.tocsr()
    total = np.asarray(rows.sum(axis=1)).ravel()
    rows.data = rows.data / np.repeat(np.where(total > 0, total, 1.0), np.diff(rows.indptr))
    return rows


def _clean(matrix: Any) -> Any:
    """Convert a sparse matrix to CSR format with sorted columns and without stored zeros."""
    rows = matrix.tocsr()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _sized(matrix: Any, rows: int, columns: int) -> Any:
    """Return a copy of a sparse matrix that is enlarged by empty rows and columns at the end."""
    larger = matrix.copy()
    larger.resize((rows, columns))
    return larger
