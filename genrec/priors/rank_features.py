"""Compute features of a history's candidate items, from which a ranking is learned.

Each feature is defined once, in ``FEATURES``. The value of an unknown feature is NaN, not 0. This
module deals with catalog rows, not with tokens or models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.baselines.ranking import top_rows
from genrec.config import COUNTED
from genrec.data.events import History, Interaction
from genrec.priors.counts import Counts
from genrec.types import BoolArray, FloatArray, IntArray

CANDIDATES = 100  # maximum number of candidates of one kind
ADDED = 50  # how many more a network may add
NEW, SEEN = "new", "seen"
KINDS = (NEW, SEEN)
_LEAST = 1e-9  # shares below this are all the same to the ranking
_DAY = 86_400.0
_LATEST = 10  # number of latest events with which each candidate is compared
_PERIODS = {"month": 30, "half year": 180, "year": 365}  # lengths in days


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
        timeless: True to treat the times of the events as unknown, except for the time of the
            request. A ranking learns from some such histories, since typed ones have no times.
        network: (M,) log-probabilities of the first M catalog items under a sequence network; None
            if there is no network, or if it knows no item in the history.
    """

    rows: IntArray
    counts: Counts
    history: History
    mixed: FloatArray
    shares: Mapping[str, FloatArray]
    timeless: bool = False
    network: FloatArray | None = None

    def features(self) -> npt.NDArray[np.float32]:
        """Compute the (C, F) matrix of features, with columns in the order of ``FEATURES``."""
        table = np.empty((len(self.rows), len(FEATURES)), dtype=np.float32)
        for column, feature in enumerate(FEATURES.values()):
            table[:, column] = feature(self)
        return table

    @cached_property
    def events(self) -> tuple[IntArray, FloatArray]:
        """The catalog rows and the times of the history's events whose items are in the catalog.

        The time is NaN for an event without a time. Times before all counted events are no dates but
        positions, as in typed histories, so they are NaN, too.
        """
        catalog = self.counts.catalog
        known = [e for e in self.history.interactions if e.item_id in catalog]
        rows = catalog.rows([e.item_id for e in known if e.item_id is not None])
        times = np.full(len(rows), np.nan) if self.timeless else self._times(known)
        return np.array(rows, dtype=np.int64), times

    def _times(self, events: Sequence[Interaction]) -> FloatArray:
        given = [np.nan if e.timestamp is None else e.timestamp for e in events]
        times = np.array(given, dtype=np.float64)
        if len(self.counts.times):
            times[times < self.counts.times.earliest] = np.nan
        return times

    @cached_property
    def recent(self) -> IntArray:
        """The catalog rows of the latest ``_LATEST`` of these events, latest first."""
        return self.events[0][::-1][:_LATEST]

    @cached_property
    def cosines(self) -> FloatArray:
        """The (E, C) cosines between the user sets of the recent items and the candidates."""
        return self.counts.cosines.between(self.recent, self.rows)

    @cached_property
    def title_cosines(self) -> FloatArray:
        """The (E, C) cosines between the titles of the recent items and the candidates."""
        return self.counts.title_neighbors.alike.cosines(self.recent, self.rows)

    @cached_property
    def same_words(self) -> BoolArray:
        """The (E, C) recent items and candidates whose titles have the same first word."""
        words = self.counts.title_neighbors.first_words
        return np.equal(words[self.recent][:, None], words[self.rows])

    @cached_property
    def now(self) -> float:
        """The time of the request, which is that of the history's latest event.

        If that is unknown, it is the time of the latest counted event; NaN if no counted event has a
        time.
        """
        if not len(self.counts.times):
            return np.nan
        times = self._times(self.history.interactions[-1:])
        return float(times[0]) if np.isfinite(times).any() else self.counts.times.latest

    @cached_property
    def network_logprobs(self) -> FloatArray | None:
        """The (C,) log-probabilities of the candidates under the network; NaN if it knows them not."""
        if self.network is None:
            return None
        values = np.full(len(self.rows), np.nan)
        known = self.rows < len(self.network)
        values[known] = self.network[self.rows[known]]
        return values

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
    # Sources that are fitted baselines are not known while the ranking is learned.
    shares = [given.shares[name] for name in COUNTED if name in given.shares]
    return sum((s > 0).astype(np.float64) for s in shares) if shares else 0.0


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


def _beside_latest(matrix: Callable[[Counts], Any]) -> Callable[[Candidates], FloatArray | float]:
    def feature(given: Candidates) -> FloatArray | float:
        if not len(given.recent):
            return np.nan
        return np.asarray(matrix(given.counts)[given.recent[:1]].toarray()[0][given.rows])

    return feature


def _recent(
    values: Callable[[Candidates], Any], summary: Callable[[Any], FloatArray], least: int = 1
) -> Callable[[Candidates], FloatArray | float]:
    def feature(given: Candidates) -> FloatArray | float:
        return np.nan if len(given.recent) < least else summary(values(given))

    return feature


def _user_cosines(given: Candidates) -> FloatArray:
    return given.cosines


def _title_cosines(given: Candidates) -> FloatArray:
    return given.title_cosines


def _same_words(given: Candidates) -> BoolArray:
    return given.same_words


def _titles_with_word(given: Candidates) -> FloatArray:
    titles = given.counts.title_neighbors
    return np.log1p(titles.first_word_counts[titles.first_words[given.rows]])


def _share_of(days: int) -> Callable[[Candidates], FloatArray | float]:
    def feature(given: Candidates) -> FloatArray | float:
        now = given.now
        if np.isnan(now):
            return np.nan
        start, times = now - days * _DAY, given.counts.times
        return np.log((times.count(given.rows, start, now) + 0.1) / (times.total(start, now) + 100))

    return feature


def _days_from_first(given: Candidates) -> FloatArray:
    return (given.now - given.counts.times.first(given.rows)) / _DAY


def _days_from_last(given: Candidates) -> FloatArray:
    return (given.now - given.counts.times.last(given.rows)) / _DAY


def _latest_gap(given: Candidates) -> float:
    times = given.events[1]
    return (times[-1] - times[-2]) / _DAY if len(times) > 1 else np.nan


def _span(given: Candidates) -> float:
    times = given.events[1]
    return (times[-1] - times[0]) / _DAY if len(times) else np.nan


def _at_once(given: Candidates) -> float:
    times = given.events[1]
    if not len(times) or np.isnan(times[-1]):
        return np.nan
    return float((times > times[-1] - _DAY).sum())


def _network(given: Candidates) -> FloatArray | float:
    values = given.network_logprobs
    return np.nan if values is None else values


def _network_share(given: Candidates) -> FloatArray | float:
    values = given.network_logprobs
    if values is None or np.isnan(values).all():
        return np.nan
    peak = np.nanmax(values)
    return np.asarray(values - peak - np.log(np.nansum(np.exp(values - peak))))


def _network_rank(given: Candidates) -> FloatArray | float:
    values = given.network_logprobs
    if values is None:
        return np.nan
    ranks = np.argsort(np.argsort(-values, kind="stable")).astype(np.float64)
    return np.where(np.isnan(values), np.nan, ranks)


def _users_of_latest(given: Candidates) -> FloatArray | float:
    return np.log1p(given.counts.popularity[given.recent[0]]) if len(given.recent) else np.nan


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
    "users of latest": _users_of_latest,
    "after latest": _beside_latest(lambda counts: counts.after),
    "before latest": _beside_latest(lambda counts: counts.preceding),
    "cosine, latest": _recent(_user_cosines, lambda each: each[0]),
    "cosine, one before": _recent(_user_cosines, lambda each: each[1], 2),
    "cosine, highest": _recent(_user_cosines, lambda each: each.max(axis=0)),
    "items shared users": _recent(_user_cosines, lambda each: (each > 0).sum(axis=0)),
    "title, latest": _recent(_title_cosines, lambda each: each[0]),
    "title, one before": _recent(_title_cosines, lambda each: each[1], 2),
    "title, highest": _recent(_title_cosines, lambda each: each.max(axis=0)),
    "title, mean": _recent(_title_cosines, lambda each: each.mean(axis=0)),
    "first word, latest": _recent(_same_words, lambda each: each[0]),
    "first word, events": _recent(_same_words, lambda each: each.sum(axis=0)),
    "first word, share": _recent(_same_words, lambda each: each.mean(axis=0)),
    "first word, titles": _titles_with_word,
    **{name: _share_of(days) for name, days in _PERIODS.items()},
    "days from first": _days_from_first,
    "days from last": _days_from_last,
    "latest gap": _latest_gap,
    "span": _span,
    "at once": _at_once,
    "network": _network,
    "network, share": _network_share,
    "network, rank": _network_rank,
}


def choose(
    mixed: FloatArray,
    seen: IntArray,
    most: int | None = None,
    *,
    network: FloatArray | None = None,
    added: int = 0,
) -> dict[str, IntArray]:
    """Choose the highest-weighted items of each kind as candidates.

    Args:
        mixed: (N,) weight of each catalog item in the mixture.
        seen: the catalog rows of the items that the user has seen.
        most: the maximum number of candidates of one kind; None for ``CANDIDATES``.
        network: (M,) scores of the first M catalog items by a network; None if there are none.
        added: the maximum number of items of one kind that become candidates because they are the
            first by the network among those that are no candidates yet.

    Returns:
        The catalog rows of the candidates in descending order of weight, keyed by kind. A kind with
        fewer than two candidates is left out, since there is nothing to rank.
    """
    known = np.unique(seen)
    of_new = mixed.copy()
    of_new[known] = -np.inf
    most = CANDIDATES if most is None else most
    kinds = {NEW: top_rows(of_new, most), SEEN: known[top_rows(mixed[known], most)]}
    if network is not None and added:
        scores = np.full(len(mixed), -np.inf)
        scores[: len(network)] = network
        of_seen = np.full_like(scores, -np.inf)
        of_seen[known], scores[known] = scores[known], -np.inf
        for kind, left in ((NEW, scores), (SEEN, of_seen)):
            left[kinds[kind]] = -np.inf
            both = np.concatenate([kinds[kind], top_rows(left, added)])
            kinds[kind] = both[np.argsort(-mixed[both], kind="stable")]
    return {kind: rows for kind, rows in kinds.items() if len(rows) > 1}


def seen_rows(counts: Counts, history: History, lead_in_behaviors: Collection[str]) -> IntArray:
    """Return the catalog rows of the items that the user has seen; see ``History.had``."""
    ids = [i for i in history.had(lead_in_behaviors) if i in counts.catalog]
    return np.array(counts.catalog.rows(ids), dtype=np.int64)
