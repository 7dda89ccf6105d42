"""Compute features of a history's candidate items, from which a ranking is learned.

Each feature is defined once, in ``FEATURES``. The value of an unknown feature is NaN, not 0. This
module deals with catalog rows, not with tokens or models.
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
    """The candidate items of one kind for a history.

    Attributes:
        rows: (C,) catalog rows of the candidates, in descending order of their weights.
        counts: the counts of users' events.
        history: the history.
        mixed: (C,) weight of each candidate in the mixture. These weights sum to 1.
        shares: for each source, keyed by name, the (C,) weights of the candidates, scaled so that
            the weights of all items of this kind sum to 1. A source that gives almost no weight to
            items of this kind is left out.
    """

    rows: IntArray
    counts: Counts
    history: History
    mixed: FloatArray
    shares: Mapping[str, FloatArray]

    def features(self) -> npt.NDArray[np.float32]:
        """Compute the (C, F) matrix of features, with columns in the order of ``FEATURES``."""
        table = np.empty((len(self.rows), len(FEATURES)), dtype=np.float32)
        for column, feature in enumerate(FEATURES.values()):
            table[:, column] = feature(self)
        return table

    @cached_property
    def events(self) -> tuple[IntArray, FloatArray]:
        """The catalog rows and the times of the history's events whose items are in the catalog.

        The time is NaN for an event without a time.
        """
        catalog = self.counts.catalog
        known = [e for e in self.history.interactions if e.item_id in catalog]
        rows = catalog.rows([e.item_id for e in known if e.item_id is not None])
        times = [np.nan if e.timestamp is None else e.timestamp for e in known]
        return np.array(rows, dtype=np.int64), np.array(times, dtype=np.float64)

    @cached_property
    def latest(self) -> IntArray:
        """The (C,) index in ``events`` of each candidate's latest event; -1 if it has none."""
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
    """Choose the highest-weighted items of each kind as candidates.

    Args:
        mixed: (N,) weight of each catalog item in the mixture.
        seen: the catalog rows of the items that the user has seen.

    Returns:
        The catalog rows of the candidates in descending order of weight, keyed by kind. A kind with
        fewer than two candidates is left out, since there is nothing to rank.
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
    """Return the catalog rows of the items that the user has seen; see ``History.had``."""
    ids = [i for i in history.had(lead_in_behaviors) if i in counts.catalog]
    return np.array(counts.catalog.rows(ids), dtype=np.int64)
