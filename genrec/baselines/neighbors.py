"""Recommend by neighbors: similar items, similar users, and EASE's linear model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Scorer
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
from genrec.types import FloatArray


class ItemKNN(Scorer):
    """Score items by how similar they are to the items of a history.

    Two items are compared by the cosine of their sets of users, summed over the history's items.
    Sarwar et al. 2001 (https://doi.org/10.1145/371920.372071), for implicit feedback: all values
    are 1, and the weights are not divided by their sum, since every item would then score the same.

    Settings:
        neighbours: how many of the most similar items count for each item; None for all.
        itself: whether an item is its own neighbor, which matters only if seen items may be
            recommended again.
    """

    name = "itemknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": None, "itself": True}

    def learn(self, events: TrainingEvents) -> Arrays:
        """Compute the cosines between items, (N, N)."""
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
        """Score all catalog rows, see ``Scorer.scores_many``."""
        scores = (self.baskets(histories) @ self._cosines).toarray()
        return fill_by_popularity(scores, self.arrays["popularity"])


class UserKNN(Scorer):
    """Recommend items of the users most similar to a history, weighted by their cosine.

    Resnick et al. 1994 (https://doi.org/10.1145/192844.192905), for implicit feedback.

    Settings:
        neighbours: how many of the most similar users count.
    """

    name = "userknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": 100}

    def learn(self, events: TrainingEvents) -> Arrays:
        """Collect the items of the users, (U, N)."""
        return {**sparse_to_arrays("users", events.matrix()), "popularity": events.popularity()}

    @cached_property
    def _users(self) -> Any:
        return sparse_from_arrays("users", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all catalog rows, see ``Scorer.scores_many``."""
        cosines = normalize_rows(self.baskets(histories)) @ normalize_rows(self._users).T
        nearest = keep_strongest(cosines.tocsr(), self.settings["neighbours"])
        return fill_by_popularity((nearest @ self._users).toarray(), self.arrays["popularity"])


class EASE(Scorer):
    """Fit the user-item matrix by a linear item-item model whose diagonal is zero.

    Steck 2019 (https://arxiv.org/abs/1905.03375).

    Settings:
        penalty: the penalty on squared weights.
    """

    name = "ease"
    defaults: ClassVar[Mapping[str, Any]] = {"penalty": 250.0}

    def learn(self, events: TrainingEvents) -> Arrays:
        """Solve for the weights between items, (N, N), float32."""
        x = events.matrix()
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += self.settings["penalty"]
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return {"weights": weights.astype(np.float32), "popularity": events.popularity()}

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score by the weights, or by popularity for an empty history."""
        baskets = self.baskets(histories)
        scores = np.asarray(baskets.astype(np.float32) @ self.arrays["weights"], dtype=np.float64)
        return replace_unknown(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])
