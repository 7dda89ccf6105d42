"""Choose the few-shot demonstrations, which are the histories of other users."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from genrec.config import Settings
from genrec.data.dataset import Dataset
from genrec.data.events import SPLITS, History
from genrec.errors import RequestError
from genrec.types import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

RANDOM, NEAR = "random", "near"
WAYS = (RANDOM, NEAR)
_EVENTS = 8  # the number of events that a demonstration shows at most
_LEAST = 2  # the number of target events in train that a user needs


class Demonstrations:
    """Chooses demonstrations for histories."""

    def __init__(self, settings: Settings, dataset: Dataset | None, behavior: str) -> None:
        """Store the settings ``few_shot``, ``demonstrations`` and ``seed``, the dataset and the target behavior."""
        self._settings, self._dataset, self._behavior = settings, dataset, behavior

    def choose(self, history: History) -> tuple[History, ...]:
        """Choose the demonstrations for a history.

        Args:
            history: the history. Its own user is never chosen.

        Raises:
            RequestError: too few users have enough target events in train.
        """
        wanted = self._settings.few_shot
        if not wanted or self._dataset is None:
            return ()
        users = self._users
        if self._settings.demonstrations == NEAR:
            likeness = self._likeness(history)[users]
            users = users[np.argsort(-likeness, kind="stable")]
        names = self._dataset.interactions.user_ids
        chosen = [n for n in users[: wanted + 1].tolist() if names[n] != history.user_id][:wanted]
        if len(chosen) < wanted:
            msg = (
                f"few_shot={wanted} needs that many other users with two or more "
                f"{self._behavior!r} events in train, but there are only {len(chosen)}. Lower few_shot."
            )
            raise RequestError(msg)
        return tuple(self._shown(names[n]) for n in chosen)

    def _shown(self, user_id: str) -> History:
        """Return the latest target events of a user in train, oldest first."""
        assert self._dataset is not None
        history = self._dataset.interactions.history(user_id, before="validation")
        wanted = tuple(i for i in history.interactions if i.behavior == self._behavior)
        return History(wanted, user_id).latest(_EVENTS)

    @cached_property
    def _users(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The users with enough target events in train, by number, in an order drawn with the seed."""
        assert self._dataset is not None
        data = self._dataset.interactions
        order = np.random.default_rng(self._settings.seed).permutation(len(data.user_ids))
        counts = np.bincount(data.columns.user[self._target], minlength=len(data.user_ids))
        return order[counts[order] >= _LEAST].astype(np.int64)

    @cached_property
    def _target(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """A mask of the target events in train."""
        assert self._dataset is not None
        data = self._dataset.interactions
        c = data.columns
        code = data.behaviors.index(self._behavior) if self._behavior in data.behaviors else -1
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
            (c.behavior == code) & (c.split == SPLITS.index("train")) & (c.row >= 0)
        )
        return found

    @cached_property
    def _vectors(self) -> tuple[sparse.csr_array, FloatArray]:
        """The (U, N) unit vectors of all users, and the (N,) weights of items.

        A user's vector has the inverse document frequency of each item that the user had in train.
        """
        assert self._dataset is not None
        data, items = self._dataset.interactions, len(self._dataset.catalog)
        c = data.columns
        pairs = np.unique(np.stack([c.user[self._target], c.row[self._target]]), axis=1)
        frequency = np.bincount(pairs[1], minlength=items)
        weights = np.log((1 + len(data.user_ids)) / (1 + frequency))
        values = weights[pairs[1]]
        lengths = np.sqrt(np.bincount(pairs[0], values**2, minlength=len(data.user_ids)))
        values = values / np.maximum(lengths[pairs[0]], 1e-12)
        shape = (len(data.user_ids), items)
        from scipy import sparse

        return sparse.csr_array((values, (pairs[0], pairs[1])), shape=shape), weights

    def _likeness(self, history: History) -> FloatArray:
        """Return the (U,) cosine of each user's items with those of a history.

        All are 0 for a history without known items.
        """
        assert self._dataset is not None
        vectors, weights = self._vectors
        catalog = self._dataset.catalog
        rows = sorted({catalog.row(i) for i in history.item_ids if i in catalog})
        own = np.zeros(len(catalog))
        own[rows] = weights[rows]
        length = float(np.linalg.norm(own))
        found: FloatArray = np.asarray(vectors @ own) / max(length, 1e-12)
        return found
