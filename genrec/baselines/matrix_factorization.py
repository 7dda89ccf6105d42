"""Score items by the dot product of a user's and an item's vector.

Deals with catalog rows and counts only. A user's vector is always computed from the given history.
New users therefore get recommendations too, and two users with the same history get the same ones.
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
from genrec.types import FloatArray

_CHUNK = 2048  # number of vectors to solve for at the same time


class MF(Scorer):
    """Factorizes the user-item matrix by alternating least squares, for implicit feedback.

    The method is from Hu, Koren and Volinsky 2008 (https://doi.org/10.1109/ICDM.2008.22). It
    minimizes the squared error over all user-item pairs, and observed pairs have weight 1 +
    ``alpha``. The factors of a history are computed in the same way as in training.

    Settings:
        factors: number of factors of users and items.
        alpha: the extra weight of observed pairs.
        penalty: the penalty on squared factors.
        rounds: number of alternating rounds.
        seed: the random seed.
    """

    name = "mf"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "alpha": 20.0, "penalty": 10.0, "rounds": 10, "seed": 0,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Solve for the (N, F) factors of the items."""
        x = events.matrix()
        rng = np.random.default_rng(self.settings["seed"])
        items = rng.normal(0.0, 0.1, (len(self.catalog), self.settings["factors"]))
        for done in range(self.settings["rounds"]):
            users = self._solve(x, items)
            items = self._solve(x.T.tocsr(), users)
            self.log(f"round {done + 1} of {self.settings['rounds']}")
        return {"items": items, "popularity": events.popularity()}

    def _solve(self, x: Any, other: FloatArray) -> FloatArray:
        """Solve for the (A, F) factors of the rows of x, given the (B, F) factors of its columns.

        Args:
            x: a sparse (A, B) matrix.
            other: (B, F) the factors of the columns.
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
        """Return scores from the factors, or the popularity for an empty history."""
        baskets = self.baskets(histories)
        scores = self._solve(baskets, self.arrays["items"]) @ self.arrays["items"].T
        return replace_unknown(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])


class BPR(Scorer):
    """Learns factors by Bayesian personalized ranking, using cornac (extra ``baselines``).

    The method is from Rendle et al. 2009 (https://arxiv.org/abs/1205.2618). cornac has factors only
    for the users in its training data. To score a new history, each item is represented by the
    mean factors of the users who have it, and the history by the mean over its items.

    Settings:
        factors: number of factors of users and items.
        epochs: cornac's max_iter.
        rate: cornac's learning_rate.
        penalty: cornac's lambda_reg.
        seed: the random seed.
    """

    name = "bpr"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "epochs": 100, "rate": 0.05, "penalty": 0.01, "seed": 0,
    }  # fmt: skip

    def learn(self, events: TrainingEvents) -> Arrays:
        """Fit the items' (N, F) factors and (N,) biases, and the mean factors of their users."""
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
        """Return scores from the factors, or the popularity if a history has no known item."""
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
    """Return cornac's values in the order of our row numbers, (n, F); missing rows are 0."""
    ordered = np.zeros((n, values.shape[1]))
    ordered[list(numbers)] = values[list(numbers.values())]
    return ordered


def _import_cornac() -> Any:
    """Import cornac, or raise an error that explains how to install it."""
    try:
        import cornac
    except ImportError as error:
        msg = (
            f"The baseline bpr needs cornac, which cannot be imported: {error}. Install it with "
            "`pip install 'genrec[baselines]'`, or use another baseline."
        )
        raise SettingsError(msg) from error
    return cornac
