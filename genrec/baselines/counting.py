"""Baselines that count: the most popular items, and what follows what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import (
    Arrays,
    Events,
    Scorer,
    filled,
    sparse_from_arrays,
    sparse_rows,
    sparse_to_arrays,
)
from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.types import FloatArray, IntArray


class Popular(Scorer):
    """Most events first, whoever asks; ties by catalog row."""

    name = "popular"

    def learn(self, events: Events) -> Arrays:
        """The number of events of each item."""
        return {"popularity": events.popularity()}

    @cached_property
    def order(self) -> list[str]:
        """All item ids, the most frequent first."""
        return self.rank(History(), len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """The counts; the histories are not looked at."""
        return np.tile(self.arrays["popularity"], (len(histories), 1))


class Markov(Scorer):
    """Counts of what comes next to what, the latest items of a history weighing most.

    A transition weighs 1 forward and ``back`` backward between neighbours of a user's history. An
    item's score is the sum over the last ``last`` items a of the history, at age k (0 = last), of
    ``decay``^k w(a, item) / sqrt(pop(item) + ``damping``); what no transition reaches comes after,
    by popularity. First-order Markov chains as in Rendle et al. 2010
    (https://doi.org/10.1145/1772690.1772773), counted instead of factorised.

    Settings: ``keep_repeats`` False drops a user's later events with the same item, in what is
    counted and in histories; ``least`` is how many events a user must have to be counted.
    """

    name = "markov"
    defaults: ClassVar[Mapping[str, Any]] = {
        "keep_repeats": False, "back": 0.3, "last": 5, "decay": 0.8, "damping": 5.0, "least": 3,
    }  # fmt: skip

    def learn(self, events: Events) -> Arrays:
        """The (N, N) transition weights, damped by popularity, and the popularity."""
        from scipy import sparse

        popularity = events.popularity()
        if not self.settings["keep_repeats"]:
            events = events.without_repeats()
            popularity = events.popularity()
        events = events.of_users_with(self.settings["least"])
        same = events.user[1:] == events.user[:-1]
        n = len(self.catalog)
        forward = transitions(events.row[:-1][same], events.row[1:][same], n)
        weights = forward + self.settings["back"] * forward.T
        damped = weights @ sparse.dia_array(
            (1.0 / np.sqrt(popularity + self.settings["damping"])[None], [0]), shape=(n, n)
        )
        return {**sparse_to_arrays("weights", damped), "popularity": popularity}

    @cached_property
    def _weights(self) -> Any:
        return sparse_from_arrays("weights", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        latest = sparse_latest(
            self.catalog,
            histories,
            decay=self.settings["decay"],
            last=self.settings["last"],
            keep_repeats=self.settings["keep_repeats"],
        )
        return filled((latest @ self._weights).toarray(), self.arrays["popularity"])


def transitions(before: IntArray, after: IntArray, n: int) -> Any:
    """(n, n) sparse: how often the column's item came right after the row's.

    Args:
        before: (T,) rows of items.
        after: (T,) what came after each.
        n: how many items there are.
    """
    from scipy import sparse

    return sparse.csr_array((np.ones(len(before)), (before, after)), shape=(n, n))


def sparse_latest(
    catalog: Catalog,
    histories: Sequence[History],
    *,
    decay: float,
    last: int,
    keep_repeats: bool = False,
) -> Any:
    """(U, N) sparse: the sum of decay^age over a history's last items; the last one has age 0.

    Args:
        catalog: the items.
        histories: U histories.
        decay: in 0 to 1.
        last: how many items are looked at.
        keep_repeats: whether later events with an item count; else it stands where it was first.
    """
    from scipy import sparse

    rows, weights = [], []
    for history in histories:
        found = catalog.rows(history.item_ids)
        newest = (found if keep_repeats else list(dict.fromkeys(found)))[::-1][:last]
        rows.append(newest)
        weights.append([decay**age for age in range(len(newest))])
    return sparse_rows(sparse, rows, weights, len(catalog))
