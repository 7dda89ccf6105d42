"""Recommend items by their similarity to a history's items, by similar users, or with EASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Scorer
from genrec.baselines.inverse import invert
from genrec.baselines.ranking import fill_by_popularity, replace_unknown
from genrec.baselines.sparse import (
    Arrays,
    keep_strongest,
    normalize_rows,
    sparse_from_arrays,
    sparse_to_arrays,
)
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.errors import SettingsError
from genrec.types import FloatArray

_ROWS = 512  # rows of a matrix of items by items that are computed at a time
_SAMPLED = 200  # the number of items whose neighbors are counted to estimate the memory
_BYTES_PER_PAIR = 48  # of a cosine with its indices, in the matrix and in its transpose


class ItemKNN(Scorer):
    """Scores items by their similarity to the items in a history.

    The similarity of two items is the cosine between their sets of users. An item's score is the
    sum of its similarities to the items in the history. The method is from Sarwar et al. 2001
    (https://doi.org/10.1145/371920.372071), where items have ratings. Here, all ratings are 1, so
    the similarities are summed and not averaged. An average would be 1 for every item.

    Settings:
        neighbours: number of most similar items that each item keeps; None to keep all.
        itself: whether an item is its own neighbor, which matters only if seen items may be
            recommended.
    """

    name = "itemknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": None, "itself": True}

    @classmethod
    def memory(cls, events: TrainingEvents, settings: Mapping[str, Any]) -> int:
        """Estimate the memory for the cosines from those of some items; see ``Scorer.memory``."""
        items = events.matrix().T.tocsr()
        some = np.random.default_rng(0).permutation(items.shape[0])[:_SAMPLED]
        pairs = (items[np.sort(some)] @ items.T).nnz / max(len(some), 1) * items.shape[0]
        return int(pairs * _BYTES_PER_PAIR)

    def learn(self, events: TrainingEvents) -> Arrays:
        """Compute a sparse matrix of the cosines between the user sets of all pairs of items."""
        unit = normalize_rows(events.matrix().T.tocsr())
        cosines = (unit @ unit.T).tocsr()
        if not self.settings["itself"]:
            cosines.setdiag(0.0)
            cosines.eliminate_zeros()
        if self.settings["neighbours"] is not None:
            cosines = keep_strongest(cosines, self.settings["neighbours"])
        return {**sparse_to_arrays("cosines", cosines.T.tocsr()), "popularity": events.popularity()}

    @cached_property
    def _cosines(self) -> Any:
        return sparse_from_arrays("cosines", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items by their similarity to each history; see ``Scorer.scores_many``."""
        scores = (self.baskets(histories) @ self._cosines).toarray()
        return fill_by_popularity(scores, self.arrays["popularity"])


class UserKNN(Scorer):
    """Recommends the items of the users whose items are most similar to those in a history.

    A user's similarity is the cosine between the user's set of items and the set of items in the
    history. An item's score is the sum of the similarities of its users. The method is from Resnick
    et al. 1994 (https://doi.org/10.1145/192844.192905), where items have ratings. Here, all ratings
    are 1.

    Settings:
        neighbours: number of most similar users whose items are considered.
    """

    name = "userknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": 100}

    def learn(self, events: TrainingEvents) -> Arrays:
        """Store a sparse matrix of which users interacted with which items."""
        return {**sparse_to_arrays("users", events.matrix()), "popularity": events.popularity()}

    @cached_property
    def _users(self) -> Any:
        return sparse_from_arrays("users", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score each item by how similar its users are to a history; see ``Scorer.scores_many``."""
        cosines = normalize_rows(self.baskets(histories)) @ normalize_rows(self._users).T
        nearest = keep_strongest(cosines.tocsr(), self.settings["neighbours"])
        return fill_by_popularity((nearest @ self._users).toarray(), self.arrays["popularity"])


class EASE(Scorer):
    """Scores items with a linear model that predicts each of a user's items from the others.

    The model has a weight from each item to every other item. The weights are chosen to reconstruct
    the user-item matrix as closely as possible. The method is from Steck 2019
    (https://arxiv.org/abs/1905.03375).

    Settings:
        penalty: the strength of the penalty on squared weights.
    """

    name = "ease"
    defaults: ClassVar[Mapping[str, Any]] = {"penalty": 250.0}

    @classmethod
    def memory(cls, events: TrainingEvents, settings: Mapping[str, Any]) -> int:
        """Return the size of an (N, N) matrix of float64 and one of float32; see ``Scorer.memory``."""
        return (8 + 4) * len(events.catalog) ** 2

    def learn(self, events: TrainingEvents) -> Arrays:
        """Compute the (N, N) float32 weights between all pairs of N items."""
        penalty = self.settings["penalty"]
        if not penalty > 0:
            msg = f"penalty={penalty!r} is not valid. Expected a number above 0."
            raise SettingsError(msg)
        x, n = events.matrix(), len(events.catalog)
        items, gram = x.T.tocsr(), np.empty((n, n))
        for first in range(0, n, _ROWS):  # avoids a second matrix of all pairs
            gram[first : first + _ROWS] = (items[first : first + _ROWS] @ x).toarray()
        gram[np.diag_indices_from(gram)] += penalty
        inverse = invert(gram)
        scale = -np.diag(inverse)
        weights = np.empty(inverse.shape, dtype=np.float32)
        for first in range(0, n, _ROWS):
            rows = slice(first, first + _ROWS)
            weights[rows] = inverse[rows] / scale
        np.fill_diagonal(weights, 0.0)
        return {"weights": weights, "popularity": events.popularity()}

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items with the weights between items, or by popularity for an empty history.

        See ``Scorer.scores_many``.
        """
        baskets = self.baskets(histories)
        scores = np.asarray(baskets.astype(np.float32) @ self.arrays["weights"], dtype=np.float64)
        return replace_unknown(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])
