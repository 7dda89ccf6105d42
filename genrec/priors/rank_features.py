"""Describe the candidates for a history by numbers, from which a ranking is learned.

Each feature is declared once, in ``FEATURES``. A feature that is unknown is NaN, not 0. This module
deals with catalog rows, not with tokens or models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from genrec.baselines.ranking import top_rows
from genrec.config import COUNTED
from genrec.data.events import History
from genrec.priors.counts import Counts
from genrec.types import FloatArray, IntArray

CANDIDATES = 100  # maximum number of candidates of one kind
NEW, SEEN = "new", "seen"
KINDS = (NEW, SEEN)
_LEAST = 1e-9  # shares below this are all the same to the ranking
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one kind for a history.

    Attributes:
        rows: (C,) catalog rows of the candidates, those with the largest share first.
        counts: the counts of users' events.
        history: the history.
        mixed: (C,) share of each candidate in the mixture, among the candidates of this kind.
        shares: (C,) share of each candidate under each source, among all items of this kind, keyed
            by the name of the source. A source that knows nothing about them is left out.
    """

    rows: IntArray
    counts: Counts
    history: History
    mixed: FloatArray
    shares: Mapping[str, FloatArray]

    def features(self) -> npt.NDArray[np.float32]:
        """Return the (C, F) features in the order of ``FEATURES``."""
        table = np.empty((len(self.rows), len(FEATURES)), dtype=np.float32)
        for column, feature in enumerate(FEATURES.values()):
            table[:, column] = feature(self)
        return table

    @cached_property
    def events(self) -> tuple[IntArray, FloatArray]:
        """The row and the time of each event of the history whose item is in the catalog."""
        catalog = self.counts.catalog
        known = [e for e in self.history.interactions if e.item_id in catalog]
        rows = catalog.rows([e.item_id for e in known if e.item_id is not None])
        times = [np.nan if e.timestamp is None else e.timestamp for e in known]
        return np.array(rows, dtype=np.int64), np.array(times, dtype=np.float64)

    @cached_property
    def latest(self) -> IntArray:
        """The (C,) index in ``events`` of the candidate's latest event; -1 if it has none."""
        place = dict(zip(self.events[0].tolist(), range(len(self.events[0])), strict=True))
        return np.array([place.get(row, -1) for row in self.rows.tolist()], dtype=np.int64)


def _source(name: str) -> Callable[[Candidates], FloatArray | float]:
    def feature(given: Candidates) -> FloatArray | float:
        shares = given.shares.get(name)
        return np.nan if shares is None else np.log(np.maximum(shares, _LEAST))

    return feature


def _trend(given: Candidates) -> FloatArray:
    rows = given.rows
    return np.log((given.counts.trend[rows] + _LEAST) / given.counts.base.values[rows])


def _speaking(given: Candidates) -> FloatArray | float:
    return sum((s > 0).astype(np.float64) for s in given.shares.values()) if given.shares else 0.0


def _times_had(given: Candidates) -> FloatArray:
    counts = np.bincount(given.events[0], minlength=len(given.counts.catalog))
    return counts[given.rows].astype(np.float64)


def _events_since(given: Candidates) -> FloatArray:
    since = len(given.events[0]) - 1 - given.latest
    return np.where(given.latest < 0, np.nan, since).astype(np.float64)


def _days_since(given: Candidates) -> FloatArray | float:
    times = given.events[1]
    if not len(times):
        return np.nan
    return np.where(given.latest < 0, np.nan, (times[-1] - times[given.latest]) / _DAY)


FEATURES: Mapping[str, Callable[[Candidates], FloatArray | float]] = {
    "mixture": lambda given: np.log(np.maximum(given.mixed, _LEAST)),
    "rank": lambda given: np.arange(len(given.rows), dtype=np.float64),
    **{name: _source(name) for name in COUNTED},
    "users": lambda given: np.log1p(given.counts.popularity[given.rows]),
    "trend": _trend,
    "sources speaking": _speaking,
    "events": lambda given: float(len(given.history)),
    "times had": _times_had,
    "events since": _events_since,
    "days since": _days_since,
}


def choose(mixed: FloatArray, seen: IntArray) -> dict[str, IntArray]:
    """Choose the candidates of each kind, those with the largest share first.

    Args:
        mixed: (N,) share of each item of the catalog in the mixture.
        seen: the rows of the items that the user has seen.

    Returns:
        The rows of the candidates by kind. A kind with fewer than two candidates is left out, since
        there is nothing to rank.
    """
    known = np.unique(seen)
    of_new = mixed.copy()
    of_new[known] = -np.inf
    kinds = {
        NEW: top_rows(of_new, CANDIDATES),
        SEEN: known[top_rows(mixed[known], CANDIDATES)],
    }
    return {kind: rows for kind, rows in kinds.items() if len(rows) > 1}


def seen_rows(counts: Counts, history: History, lead_in_behaviors: Collection[str]) -> IntArray:
    """Return the rows of the items that the user has seen; see ``History.had``."""
    ids = [i for i in history.had(lead_in_behaviors) if i in counts.catalog]
    return np.array(counts.catalog.rows(ids), dtype=np.int64)
