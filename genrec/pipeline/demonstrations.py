"""Choose the few-shot demonstrations of a prompt, which are histories of other users."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from genrec.config import Settings
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.errors import RequestError

_EVENTS = 8  # latest events of each demonstration


class Demonstrations:
    """Chooses demonstrations; see ``Recommender.demonstrations``."""

    def __init__(self, settings: Settings, dataset: Dataset | None, behavior: str) -> None:
        """Store the settings, the dataset, and the target behavior."""
        self._settings, self._dataset, self._behavior = settings, dataset, behavior

    def choose(self, user_id: str | None = None) -> tuple[History, ...]:
        """Choose the demonstrations for a user.

        Raises:
            RequestError: there are not enough other users.
        """
        wanted = self._settings.few_shot
        if not wanted or self._dataset is None:
            return ()
        chosen: list[History] = []
        for candidate in self._shuffled_users:
            if len(chosen) == wanted:
                break
            if candidate == user_id:
                continue
            history = self._dataset.interactions.history(candidate, before="validation")
            events = tuple(i for i in history.interactions if i.behavior == self._behavior)
            if len(events) >= 2:
                chosen.append(History(events, candidate).latest(_EVENTS))
        if len(chosen) < wanted:
            msg = (
                f"few_shot={wanted} needs that many other users with two or more "
                f"{self._behavior!r} events in train, but there are only {len(chosen)}. Lower few_shot."
            )
            raise RequestError(msg)
        return tuple(chosen)

    @cached_property
    def _shuffled_users(self) -> list[str]:
        assert self._dataset is not None
        users = list(self._dataset.interactions.user_ids)
        order = np.random.default_rng(self._settings.seed).permutation(len(users))
        return [users[i] for i in order]
