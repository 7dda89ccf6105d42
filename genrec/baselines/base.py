"""Define what a baseline is, and the base class of those that score every item.

Knows item ids and scores, nothing of prompts. A baseline that derives from ``Scorer`` writes two
things: what it learns, as named arrays, and scores of histories, as a matrix.
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

_CHUNK = 4_000_000  # scores that are held at once


class Baseline(Protocol):
    """A recommender to compare with: a name, and ranked item ids for a history."""

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """Return the ids of the k best items, best first; fewer only if fewer are allowed.

        Args:
            history: anybody's history, in the data or not; may be empty.
            k: how many items, at least 1.
            exclude_seen: whether items of the history are left out (see ``History.had``).
        """
        ...


class Scorer(ABC):
    """Score every item, and rank items by their scores; ties are broken by catalog row.

    Attributes:
        name: the name that ``fit`` knows it by.
        defaults: the default of each setting.
        settings: the settings in effect.
        arrays: all that was learned.
        lead_in_behaviors: behaviors that do not mark an item as seen, see ``DatasetInfo``.
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
        """Learn from all users' events of a behavior before a split.

        Args:
            interactions: the events, with a split.
            behavior: the behavior to learn from and to recommend for, such as ``buy``.
            before: ``validation`` to learn from train only, ``test`` from train and validation.
            arrays: what an earlier fit learned; then nothing is learned again.
            work: a folder for checkpoints, from which a long fit is resumed.
            index: a folder in which ``genrec index`` may have left vectors of the titles.
            log: called with a line of text from time to time in a long fit.
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
        """Return the settings in effect, with defaults for those that are not given.

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
        """Learn all that the scores depend on, and return it as named arrays."""

    @abstractmethod
    def scores_many(self, histories: Sequence[History]) -> FloatArray:
        """Score all N catalog rows for U histories, (U, N); higher is better."""

    def scores(self, history: History) -> FloatArray:
        """Score all catalog rows for one history, (N,); higher is better."""
        scores: FloatArray = self.scores_many([history])[0]
        return scores

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> list[str]:
        """Return the ids of the k best items, see ``Baseline.rank``."""
        return self.rank_many([history], k, exclude_seen=exclude_seen)[0]

    def rank_many(
        self, histories: Sequence[History], k: int, *, exclude_seen: bool = False
    ) -> list[list[str]]:
        """Rank items for several histories, in chunks, so that memory stays bounded.

        Raises:
            RequestError: k is less than 1, or a history has an item that is not in the catalog.
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
        """Build a sparse matrix, (U, N), with 1 where a history has an item."""
        rows = [sorted(set(self.catalog.rows(h.item_ids))) for h in histories]
        return build_sparse(rows, [[1.0] * len(r) for r in rows], len(self.catalog))
