"""Define the interface of baselines, and a base class for baselines that score every item.

A subclass of ``Scorer`` implements two methods. ``learn`` returns the fitted model as named arrays.
``scores_many`` returns the scores of all items for each of several histories. This module deals
with item ids and scores, not with prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from genrec.baselines.ranking import mask_seen, top_rows
from genrec.baselines.sparse import Arrays, build_sparse
from genrec.baselines.training_events import TrainingEvents
from genrec.data.events import History
from genrec.data.interactions import Interactions
from genrec.errors import RequestError, SettingsError
from genrec.types import FloatArray, Log

FOLDER = "baselines"  # name of the subfolder of a dataset folder that keeps what was fitted
_CHUNK = 4_000_000  # maximum number of scores in memory at the same time


class Baseline(Protocol):
    """The interface of a baseline, which can rank items for a user's history.

    Attributes:
        name: the baseline's name in results.
    """

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """Return the ids of the k best items for a history, best first.

        Args:
            history: any history. It may be empty, and it need not be in the data.
            k: number of items, at least 1. Fewer are returned if not enough items are allowed.
            exclude_seen: whether to leave out items that the user has interacted with (see
                ``History.had``).
        """
        ...


class Scorer(ABC):
    """Scores every item for a history, and ranks items by score; ties are broken by catalog row.

    Attributes:
        name: the baseline's name, as passed to ``fit``.
        defaults: the default value of each setting.
        settings: the value of each setting.
        arrays: the fitted model, as named arrays.
        lead_in_behaviors: behaviors that do not mark an item as seen; see ``DatasetInfo``.
    """

    name: str
    lead_in_behaviors: Collection[str] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        interactions: Interactions,
        behavior: str,
        *,
        before: str = "test",
        arrays: Arrays | None = None,
        work: Path | None = None,
        index: Path | None = None,
        log: Log = lambda message: None,
        **settings: Any,
    ) -> None:
        """Fit the baseline to all users' events that have a given behavior and precede a split.

        Args:
            interactions: the events, which are split into train, validation and test parts.
            behavior: the behavior to train on and to predict, such as ``buy``.
            before: ``validation`` to use events of the train part only, ``test`` to use those of
                the train and validation parts, ``end`` to use all events.
            arrays: the arrays of a model that was fitted earlier, so that nothing has to be fitted;
                None to fit the model.
            work: a folder for checkpoints, from which interrupted training can be resumed, or None.
            index: the dataset folder, which may contain title vectors written by ``genrec index``,
                or None.
            log: function that is called with a line of text from time to time during training.
            **settings: values of settings, which override those in ``defaults``.

        Raises:
            SettingsError: a setting is unknown.
        """
        self.catalog = interactions.catalog
        self.settings = self.settings_of(settings)
        self.work, self.index, self.log = work, index, log
        events = TrainingEvents.of(interactions, behavior, before)
        self.behavior, self.before = behavior, before
        self.arrays = arrays if arrays is not None else self.learn(events)

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all settings, with the default for each setting that is not given.

        Args:
            given: the values of some settings, keyed by name.

        Raises:
            SettingsError: a setting is unknown.
        """
        for name in given:
            if name not in cls.defaults:
                known = ", ".join(cls.defaults)
                expected = f"Expected one of: {known}." if known else "It has no settings."
                msg = f"The baseline {cls.name!r} has no setting {name!r}. {expected}"
                raise SettingsError(msg)
        return {**cls.defaults, **given}

    @classmethod
    def memory(cls, events: TrainingEvents, settings: Mapping[str, Any]) -> int:
        """Estimate how many bytes of memory ``learn`` needs for matrices of items by items.

        Args:
            events: the events to use.
            settings: the values of all settings.

        Returns:
            The estimate; 0 if the memory grows only with the number of events, users and items.
        """
        return 0

    @abstractmethod
    def learn(self, events: TrainingEvents) -> Arrays:
        """Fit the model to events, and return the arrays that are needed to compute scores.

        Args:
            events: the events to use.

        Returns:
            The arrays, keyed by name.
        """

    @abstractmethod
    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all N items of the catalog for each of U histories.

        Args:
            histories: the U histories.

        Returns:
            (U, N) scores in the order of the catalog's rows; higher is better.
        """

    def scores(self, history: History) -> FloatArray:
        """Score all N items of the catalog for one history.

        Args:
            history: the history.

        Returns:
            (N,) scores in the order of the catalog's rows; higher is better.
        """
        scores: FloatArray = self.scores_many([history])[0]
        return scores

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """Return the ids of the k best items for a history; see ``Baseline.rank``."""
        return self.rank_many([history], k, exclude_seen=exclude_seen)[0]

    def rank_many(
        self, histories: Sequence[History], k: int, *, exclude_seen: bool = False
    ) -> list[list[str]]:
        """Return the ids of the k best items for each of several histories.

        Args:
            histories: the histories.
            k: number of items per history, at least 1. Fewer are returned if not enough items are
                allowed.
            exclude_seen: whether to leave out items that the user has interacted with (see
                ``History.had``).

        Raises:
            RequestError: k is less than 1, or a history contains an item that is not in the
                catalog.
        """
        if k < 1:
            msg = f"k={k!r} is not valid. Expected a whole number of at least 1."
            raise RequestError(msg)
        ranked = []
        size = max(1, _CHUNK // len(self.catalog))
        for first in range(0, len(histories), size):
            chunk = histories[first : first + size]
            for history in chunk:
                self.catalog.rows(history.item_ids)  # raises for unknown items
            scores = self.scores_many(chunk)
            for history, values in zip(chunk, scores, strict=True):
                allowed = values
                if exclude_seen:
                    allowed = mask_seen(self.catalog, history, values, self.lead_in_behaviors)
                ranked.append([self.catalog[row].item_id for row in top_rows(allowed, k).tolist()])
        return ranked

    def baskets(self, histories: Sequence[History]) -> Any:
        """Represent U histories over N items as a sparse (U, N) matrix of zeros and ones.

        The matrix has a 1 for each item in a history, no matter how often it occurs there.
        """
        rows = [sorted(set(self.catalog.rows(h.item_ids))) for h in histories]
        return build_sparse(rows, [[1.0] * len(r) for r in rows], len(self.catalog))
