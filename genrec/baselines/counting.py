"""Recommend items that occur often in events, or that often follow the items in a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Scorer
from genrec.baselines.ranking import fill_by_popularity
from genrec.baselines.sparse import (
    Arrays,
    count_transitions,
    sparse_from_arrays,
    sparse_to_arrays,
    weigh_latest,
)
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.types import FloatArray


class Popular(Scorer):
    """Recommends the items with the most events. All users get the same items."""

    name = "popular"

    def learn(self, events: TrainingEvents) -> Arrays:
        """Set each item's popularity to its number of events."""
        return {"popularity": events.popularity()}

    @cached_property
    def order(self) -> list[str]:
        """Return the ids of all items, most popular first."""
        return self.rank(History(), len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Return the popularity of the items as their scores, which are the same for all histories.

        See ``Scorer.scores_many``.
        """
        return np.tile(self.arrays["popularity"], (len(histories), 1))


class Markov(Scorer):
    """Recommends the items that other users chose right after the latest items in a history.

    Whenever a user chooses item b right after item a, the weight w(a, b) increases by 1, and w(b,
    a) by ``back``. The score of an item b is the sum of ``decay``^k w(a, b) / sqrt(pop(b) +
    ``damping``) over the ``last`` most recent items a in the history. Here, pop(b) is the number of
    events with b, and k is 0 for the latest item, 1 for the one before it, and so on. Items with a
    score of 0 come last, ordered by popularity. These are first-order Markov chains as in Rendle et
    al. 2010 (https://doi.org/10.1145/1772690.1772773), but their weights are counted, not
    factorized.

    Settings:
        keep_repeats: whether to use all of a user's events with the same item, rather than only the
            first one, both when fitting and in histories.
        back: the weight of a transition in the reverse direction.
        last: maximum number of the most recent items in the history to use.
        decay: weight of each item in the history relative to the next newer one.
        damping: number added to an item's popularity, so that rare items do not get overly high
            scores.
        least: minimum number of events that a user must have to be included when fitting.
    """

    name = "markov"
    defaults: ClassVar[Mapping[str, Any]] = {
        "keep_repeats": False, "back": 0.3, "last": 5, "decay": 0.8, "damping": 5.0, "least": 3,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Count how often each item follows every other item, and scale down popular items.

        For N items, the resulting weights form a sparse (N, N) matrix. See ``Markov`` for the
        formula.
        """
        from scipy import sparse

        popularity = events.popularity()
        if not self.settings["keep_repeats"]:
            events = events.without_repeats()
            popularity = events.popularity()
        events = events.of_users_with(self.settings["least"])
        same = events.user[1:] == events.user[:-1]
        n = len(self.catalog)
        forward = count_transitions(events.row[:-1][same], events.row[1:][same], n)
        weights = forward + self.settings["back"] * forward.T
        damped = weights @ sparse.dia_array(
            (1.0 / np.sqrt(popularity + self.settings["damping"])[None], [0]), shape=(n, n)
        )
        return {**sparse_to_arrays("weights", damped), "popularity": popularity}

    @cached_property
    def _weights(self) -> Any:
        return sparse_from_arrays("weights", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items by the transitions from items in a history; see ``Scorer.scores_many``."""
        latest = weigh_latest(
            self.catalog,
            histories,
            decay=self.settings["decay"],
            last=self.settings["last"],
            keep_repeats=self.settings["keep_repeats"],
        )
        return fill_by_popularity((latest @ self._weights).toarray(), self.arrays["popularity"])
