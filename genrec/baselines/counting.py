"""Recommend items by counting how often they occur, or how often they follow other items."""

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
        """Count the events of each item."""
        return {"popularity": events.popularity()}

    @cached_property
    def order(self) -> list[str]:
        """The ids of all items, most popular first."""
        return self.rank(History(), len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Return the popularity counts for every history."""
        return np.tile(self.arrays["popularity"], (len(histories), 1))


class Markov(Scorer):
    """Recommends the items that other users took right after the latest items of a history.

    Two consecutive events in a user's history add 1 to the weight w from the earlier to the later
    item, and ``back`` to the reverse weight. An item a at age k in the history (0 is the latest)
    adds ``decay``^k w(a, item) / sqrt(pop(item) + ``damping``) to an item's score. Items that no
    transition reaches come last, ordered by popularity. These are first-order Markov chains as in
    Rendle et al. 2010 (https://doi.org/10.1145/1772690.1772773), but their weights are counted, not
    factorized.

    Settings:
        keep_repeats: whether to use a user's repeated events with the same item, both when fitting
            and in histories.
        back: the weight of a backward transition.
        last: number of latest items in the history to use.
        decay: the weight factor for each step back in the history.
        damping: value added to an item's popularity before dividing by its square root.
        least: minimum number of events that a user must have to be used in fitting.
    """

    name = "markov"
    defaults: ClassVar[Mapping[str, Any]] = {
        "keep_repeats": False, "back": 0.3, "last": 5, "decay": 0.8, "damping": 5.0, "least": 3,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Count the (N, N) transitions between items, and damp them by popularity."""
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
        """Score all catalog rows; see ``Scorer.scores_many``."""
        latest = weigh_latest(
            self.catalog,
            histories,
            decay=self.settings["decay"],
            last=self.settings["last"],
            keep_repeats=self.settings["keep_repeats"],
        )
        return fill_by_popularity((latest @ self._weights).toarray(), self.arrays["popularity"])
