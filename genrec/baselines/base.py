"""Define the interface of baselines, and a base class for baselines that score every item.

Deals with item ids and scores, not with prompts. A subclass of ``Scorer`` implements two methods.
``learn`` returns the fitted model as named arrays. ``scores_many`` returns a matrix with the scores
of all items for each history.
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

_CHUNK = 4_000_000  # number of scores in memory at the same time


class Baseline(Protocol):
    """The interface of a baseline, which has a name and a method that ranks items for a history."""

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """Return the ids of the k best items, best first, or fewer if fewer are allowed.

        Args:
            history: any history, which may be empty and need not be in the data.
            k: number of items, at least 1.
            exclude_seen: whether to leave out items in the history (see ``History.had``).
        """
        ...


class Scorer(ABC):
    """Scores every item, and ranks items by score; ties are broken by catalog row.

    Attributes:
        name: the baseline's name, as passed to ``fit``.
        defaults: the default value of each setting.
        settings: the settings in effect.
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
        """Fit the baseline to all users' events with a given behavior before a split.

        Args:
            interactions: the events, with a split.
            behavior: the behavior to train on and to recommend for, such as ``buy``.
            before: ``validation`` to use the train part only, ``test`` to use train and validation.
            arrays: the arrays of a model that was fitted earlier. If they are given, nothing is
                fitted.
            work: a folder for checkpoints, so that long training can be resumed.
            index: a folder in which ``genrec index`` may have stored vectors of the titles.
            log: called with a line of text from time to time while a model is trained.
            **settings: see the class's ``defaults``.

        Raises:
            SettingsError: a setting is unknown.
        """
        self.catalog = interactions.catalog
        self.settings = self.settings_of(settings)
        self.work, self.index, self.log = work, index, log
        events = TrainingEvents.of(interactions, behavior, before)
        self.behavior = behavior
        self.arrays = arrays if arrays is not None else self.learn(events)

    @classmethod
    def settings_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings. A setting that is not given has its default value.

        Raises:
            SettingsError: a setting is unknown.
        """
        for name in given:
            if name not in cls.defaults:
                known = ", ".join(cls.defaults) or "none"
                msg = f"{name!r} is not a setting of the baseline {cls.name}. Expected one of: {known}."
                raise SettingsError(msg)
        return {**cls.defaults, **given}

    @abstractmethod
    def learn(self, events: TrainingEvents) -> Arrays:
        """Fit the model, and return everything that the scores depend on as named arrays."""

    @abstractmethod
    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Return (U, N) scores of all catalog rows for U histories; higher is better."""

    def scores(self, history: History) -> FloatArray:
        """Return (N,) scores of all catalog rows for one history; higher is better."""
        scores: FloatArray = self.scores_many([history])[0]
        return scores

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """Return the ids of the k best items; see ``Baseline.rank``."""
        return self.rank_many([history], k, exclude_seen=exclude_seen)[0]

    def rank_many(
        self, histories: Sequence[History], k: int, *, exclude_seen: bool = False
    ) -> list[list[str]]:
        """Rank items for several histories, in chunks to limit memory usage.

        Raises:
            RequestError: k is less than 1, or a history contains an item that is not in the
                catalog.
        """
        if k < 1:
            msg = f"k={k!r}. Expected a whole number, 1 or more."
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
        """Return a sparse (U, N) matrix with a 1 for each item in each history."""
        rows = [sorted(set(self.catalog.rows(h.item_ids))) for h in histories]
        return build_sparse(rows, [[1.0] * len(r) for r in rows], len(self.catalog))
