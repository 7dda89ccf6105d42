"""Factor models: users and items as vectors whose product is the score. Know rows and counts only.

A user's vector is always made from the history at hand, so anybody can be ranked for, and the same
history gives the same list whoever has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from genrec.baselines.base import Arrays, Events, Scorer, or_popular
from genrec.data.events import History
from genrec.errors import SettingsError
from genrec.types import FloatArray

_CHUNK = 2048  # vectors that are solved for at once


class MF(Scorer):
    """Weighted matrix factorisation for implicit feedback, by alternating least squares.

    Hu, Koren and Volinsky 2008 (https://doi.org/10.1109/ICDM.2008.22): the squared error over all
    users and items, observed ones weighing 1 + ``alpha``. The factors of a history are solved for,
    as in training.

    Settings: ``factors`` is their number, ``penalty`` on squared factors, ``rounds`` of alternation.
    """

    name = "mf"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "alpha": 20.0, "penalty": 10.0, "rounds": 10, "seed": 0,
    }  # fmt: skip

    def learn(self, events: Events) -> Arrays:
        """The (N, F) factors of the items."""
        x = events.matrix()
        rng = np.random.default_rng(self.settings["seed"])
        items = rng.normal(0.0, 0.1, (len(self.catalog), self.settings["factors"]))
        for done in range(self.settings["rounds"]):
            users = self._solved(x, items)
            items = self._solved(x.T.tocsr(), users)
            self.log(f"round {done + 1} of {self.settings['rounds']}")
        return {"items": items, "popularity": events.popularity()}

    def _solved(self, x: Any, other: FloatArray) -> FloatArray:
        """(A, F) factors of the rows of x (A, B), given those of its columns (B, F)."""
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
        """See ``Scorer.scores_many``; popularity for an empty history."""
        baskets = self.baskets(histories)
        scores = self._solved(baskets, self.arrays["items"]) @ self.arrays["items"].T
        return or_popular(scores, baskets.sum(axis=1) > 0, self.arrays["popularity"])


class BPR(Scorer):
    """Bayesian personalised ranking, fitted by cornac (extra ``baselines``).

    Rendle et al. 2009 (https://arxiv.org/abs/1205.2618). cornac knows the users that it was trained
    on. A history's factors are the mean over its items of the mean factors of the users who have
    the item.

    Settings: ``factors`` is their number; ``epochs``, ``rate`` and ``penalty`` are cornac's
    max_iter, learning_rate and lambda_reg.
    """

    name = "bpr"
    defaults: ClassVar[Mapping[str, Any]] = {
        "factors": 64, "epochs": 100, "rate": 0.05, "penalty": 0.01, "seed": 0,
    }  # fmt: skip

    def learn(self, events: Events) -> Arrays:
        """The items' (N, F) factors and (N,) biases, and the mean factors of each item's users."""
        cornac = _cornac()
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
        users = _by_number(data.uid_map, model.u_factors, events.n_users)
        count = np.maximum(events.matrix().sum(axis=0), 1.0)
        return {
            "items": _by_number(data.iid_map, model.i_factors, len(self.catalog)),
            "biases": _by_number(data.iid_map, model.i_biases[:, None], len(self.catalog))[:, 0],
            "users_of_items": (x.T @ users) / np.asarray(count)[:, None],
            "popularity": events.popularity(),
        }

    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """See ``Scorer.scores_many``; popularity for an empty history, or one of new items only."""
        known = self.arrays["popularity"] > 0
        baskets = self.baskets(histories) * known[None]
        count = np.asarray(baskets.sum(axis=1))
        users = (baskets @ self.arrays["users_of_items"]) / np.maximum(count, 1.0)[:, None]
        scores = users @ self.arrays["items"].T + self.arrays["biases"]
        scores[:, ~known] = scores.min(axis=1, keepdims=True) - 1.0  # cornac has nothing on them
        return or_popular(scores, count > 0, self.arrays["popularity"])


def _by_number(numbers: Mapping[int, int], values: FloatArray, n: int) -> FloatArray:
    """(n, F) values by our numbers, from cornac's numbers; zeros for what it does not know."""
    found = np.zeros((n, values.shape[1]))
    found[list(numbers)] = values[list(numbers.values())]
    return found


def _cornac() -> Any:
    try:
        import cornac
    except ImportError as error:
        msg = (
            f"The baseline bpr is fitted by cornac, which cannot be imported: {error}. Expected "
            "`pip install 'genrec[baselines]'`, or another baseline."
        )
        raise SettingsError(msg) from error
    return cornac
