"""Score items by the dot product of a user's vector and an item's vector.

A user's vector is always computed from the given history. New users therefore get recommendations
as well, and users with the same history get the same recommendations. This module deals with
catalog rows and counts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Scorer
from genrec.baselines.ranking import replace_unknown
from genrec.baselines.sparse import Arrays
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.errors import SettingsError
from genrec.extras import how_to_install
from genrec.types import FloatArray

_CHUNK = 2048  # number of vectors that are computed at the same time


class MF(Scorer):
    """Factorizes the user-item matrix by alternating least squares.

    The method is from Hu, Koren and Volinsky 2008 (https://doi.org/10.1109/ICDM.2008.22). It
    minimizes the squared error over all pairs of a user and an item, in which observed pairs have
    weight 1 + ``alpha``. The vector of a history is computed in the same way as a user's vector
    during training.

    Settings:
        factors: number of dimensions of the vectors.
        alpha: the additional weight of observed pairs.
        penalty: the strength of the penalty on large vectors.
        rounds: number of rounds; each one computes the vectors of all users and then of all items.
        seed: the random seed.
    """

    name = "mf"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "alpha": 20.0, "penalty": 10.0, "rounds": 10, "seed": 0,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Compute an (N, F) array with an F-dimensional vector for each of the N items."""
        x = events.matrix()
        rng = np.random.default_rng(self.settings["seed"])
        items = rng.normal(0.0, 0.1, (len(self.catalog), self.settings["factors"]))
        for done in range(self.settings["rounds"]):
            users = self._solve(x, items)
            items = self._solve(x.T.tocsr(), users)
            self.log(f"round {done + 1} of {self.settings['rounds']}")
        return {"items": items, "popularity": events.popularity()}

    def _solve(self, x: Any, other: FloatArray) -> FloatArray:
        """Solve for the optimal vectors of a matrix's rows, given the vectors of its columns.

        Args:
            x: a sparse (A, B) matrix with a 1 for each observed pair.
            other: (B, F) vectors of the columns, with F dimensions.

        Returns:
            (A, F) vectors of the rows.
        """
        alpha = self.settings["alpha"]
        width = other.shape[1]
        base = other.T @ other + self.settings["penalty"] * np.eye(width)
        solved = np.zeros((x.shape[0], width))
        for first in range(0, x.shape[0], _CHUNK):
            last = min(first + _CHUNK, x.shape[0])
            left = np.repeat(base[None], last - first, axis=0)
            for place in range(first, last):
                near = other[x.indices[x.indptr[place] : x.indptr[place + 1]]]
                left[place - first] += alpha * (near.T @ near)
            right = (1.0 + alpha) * (x[first:last] @ other)
            solved[first:last] = np.linalg.solve(left, right[:, :, None])[:, :, 0]
        return solved

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items by the dot product of vectors, or by popularity for an empty history.

        See ``Scorer.scores_many``.
        """
        baskets = self.baskets(histories)
        scores = self._solve(baskets, self.arrays["items"]) @ self.arrays["items"].T
        return replace_unknown(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])


class BPR(Scorer):
    """Learns vectors of users and items by Bayesian personalized ranking.

    The method is from Rendle et al. 2009 (https://arxiv.org/abs/1205.2618). The model is trained by
    the cornac package, which genrec's ``baselines`` extra installs. cornac computes vectors only
    for the users in its training data. The vector of a history is therefore the mean over its
    items, where each item is represented by the mean vector of the users who have it.

    Settings:
        factors: number of dimensions of the vectors.
        epochs: number of passes over the training data (cornac's max_iter).
        rate: the learning rate (cornac's learning_rate).
        penalty: the strength of the penalty on large vectors (cornac's lambda_reg).
        seed: the random seed.
    """

    name = "bpr"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "epochs": 100, "rate": 0.05, "penalty": 0.01, "seed": 0,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Train the model on events, and return the arrays that are needed to compute scores.

        For N items and vectors of F dimensions, the arrays contain the items' (N, F) vectors, their
        (N,) biases, and the (N, F) mean vectors of the users who have each item.
        """
        cornac = _import_cornac()
        x = events.matrix()
        triples = list(
            zip(events.user.tolist(), events.row.tolist(), [1.0] * len(events.row), strict=True)
        )
        data = cornac.data.Dataset.from_uir(
            list(dict.fromkeys(triples)), seed=self.settings["seed"]
        )
        model = cornac.models.BPR(
            k=self.settings["factors"],
            max_iter=self.settings["epochs"],
            learning_rate=self.settings["rate"],
            lambda_reg=self.settings["penalty"],
            seed=self.settings["seed"],
        ).fit(data)
        users = _reorder(data.uid_map, model.u_factors, events.n_users)
        count = np.maximum(events.matrix().sum(axis=0), 1.0)
        return {
            "items": _reorder(data.iid_map, model.i_factors, len(self.catalog)),
            "biases": _reorder(data.iid_map, model.i_biases[:, None], len(self.catalog))[:, 0],
            "users_of_items": (x.T @ users) / np.asarray(count)[:, None],
            "popularity": events.popularity(),
        }

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all items by the dot product of vectors, or by popularity.

        Popularity is used if none of the history's items occur in the training data. See
        ``Scorer.scores_many``.
        """
        known = self.arrays["popularity"] > 0
        baskets = self.baskets(histories) * known[None]
        count = np.asarray(baskets.sum(axis=1))
        users = (baskets @ self.arrays["users_of_items"]) / np.maximum(count, 1.0)[:, None]
        scores = users @ self.arrays["items"].T + self.arrays["biases"]
        scores[:, ~known] = (
            scores.min(axis=1, keepdims=True) - 1.0
        )  # cornac has no factors for them
        return replace_unknown(scores, count > 0, self.arrays["popularity"])


def _reorder(numbers: Mapping[int, int], values: FloatArray, n: int) -> FloatArray:
    """Rearrange values computed by cornac in the order of genrec's row numbers.

    Args:
        numbers: cornac's number for each user or item, keyed by genrec's row number.
        values: an array with F columns, whose rows are ordered by cornac's numbers.
        n: number of rows.

    Returns:
        (n, F) values, ordered by genrec's row numbers; 0 for rows that cornac does not know.
    """
    ordered = np.zeros((n, values.shape[1]))
    ordered[list(numbers)] = values[list(numbers.values())]
    return ordered


def _import_cornac() -> Any:
    """Import cornac, or raise a SettingsError that explains how to install it."""
    try:
        import cornac
    except ImportError as error:
        msg = (
            f"The baseline 'bpr' needs the package cornac, which cannot be imported: {error}. Use "
            f"another baseline, or install cornac. {how_to_install('baselines')}"
        )
        raise SettingsError(msg) from error
    return cornac
