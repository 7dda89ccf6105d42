"""Baselines over neighbours: similar items, similar users, and EASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import (
    Arrays,
    Events,
    Scorer,
    filled,
    or_popular,
    sparse_from_arrays,
    sparse_to_arrays,
)
from genrec.data.events import History
from genrec.types import FloatArray


class ItemKNN(Scorer):
    """Cosine between items as sets of users, summed over the items of a history.

    Sarwar et al. 2001 (https://doi.org/10.1145/371920.372071), for implicit feedback: all values
    are 1, and the weights are not divided by their sum, or every item would score the same.

    Settings: ``neighbours`` is how many of the items most like it count for an item, None for all;
    ``itself`` whether it is one of them, which tells only where seen items may come back.
    """

    name = "itemknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": None, "itself": True}

    def learn(self, events: Events) -> Arrays:
        """The (N, N) cosines."""
        unit = unit_rows(events.matrix().T.tocsr())
        cosines = (unit @ unit.T).tocsr()
        if not self.settings["itself"]:
            cosines.setdiag(0.0)
            cosines.eliminate_zeros()
        if self.settings["neighbours"] is not None:
            cosines = _strongest(cosines, self.settings["neighbours"])
        return {**sparse_to_arrays("cosines", cosines.T.tocsr()), "popularity": events.popularity()}

    @cached_property
    def _cosines(self) -> Any:
        return sparse_from_arrays("cosines", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        scores = (self.baskets(histories) @ self._cosines).toarray()
        return filled(scores, self.arrays["popularity"])


class UserKNN(Scorer):
    """Items of the users most like a history, each user weighing by the cosine.

    Resnick et al. 1994 (https://doi.org/10.1145/192844.192905), for implicit feedback. Setting
    ``neighbours``: how many users count.
    """

    name = "userknn"
    defaults: ClassVar[Mapping[str, Any]] = {"neighbours": 100}

    def learn(self, events: Events) -> Arrays:
        """The (U, N) items of the users."""
        return {**sparse_to_arrays("users", events.matrix()), "popularity": events.popularity()}

    @cached_property
    def _users(self) -> Any:
        return sparse_from_arrays("users", self.arrays, len(self.catalog))

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``."""
        cosines = unit_rows(self.baskets(histories)) @ unit_rows(self._users).T
        nearest = _strongest(cosines.tocsr(), self.settings["neighbours"])
        return filled((nearest @ self._users).toarray(), self.arrays["popularity"])


class EASE(Scorer):
    """The linear item-item model with a zero diagonal that fits the user-item matrix best.

    Steck 2019 (https://arxiv.org/abs/1905.03375). Setting ``penalty``: on squared weights.
    """

    name = "ease"
    defaults: ClassVar[Mapping[str, Any]] = {"penalty": 250.0}

    def learn(self, events: Events) -> Arrays:
        """The (N, N) weights, float32."""
        x = events.matrix()
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += self.settings["penalty"]
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return {"weights": weights.astype(np.float32), "popularity": events.popularity()}

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``; popularity for an empty history."""
        baskets = self.baskets(histories)
        scores = np.asarray(baskets.astype(np.float32) @ self.arrays["weights"], dtype=np.float64)
        return or_popular(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])


def unit_rows(matrix: Any) -> Any:
    """A sparse matrix with rows of unit length; empty ones stay empty."""
    unit = matrix.tocsr(copy=True).astype(matrix.dtype)
    length = np.sqrt(np.asarray((unit * unit).sum(axis=1)).ravel())
    unit.data = unit.data / np.repeat(np.where(length > 0, length, 1.0), np.diff(unit.indptr))
    return unit


def _strongest(matrix: Any, n: int) -> Any:
    """A sparse matrix with the n highest values of each row; ties by column."""
    kept = np.zeros(len(matrix.data), dtype=bool)
    for first, last in pairwise(matrix.indptr.tolist()):
        if last - first <= n:
            kept[first:last] = True
            continue
        order = np.lexsort((matrix.indices[first:last], -matrix.data[first:last]))
        kept[first + order[:n]] = True
    slim = matrix.copy()
    slim.data = np.where(kept, matrix.data, 0.0)
    slim.eliminate_zeros()
    return slim
