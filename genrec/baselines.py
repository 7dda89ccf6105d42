"""Simple recommenders to be compared with, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from genrec.dataset import Dataset
from genrec.errors import SettingsError
from genrec.interactions import History, Interactions

NAMES = ("popular",)


class Baseline(Protocol):
    """What is compared: a name, and ranked item ids for a history."""

    name: str

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """The k best item ids, best first; fewer only where fewer are allowed."""
        ...


class Popular:
    """Most events first, whoever asks; ties by catalog row."""

    name = "popular"

    def __init__(self, interactions: Interactions, behavior: str, *, before: str = "test") -> None:
        """Counts the events of a behavior that lie before a split, over all users.

        Args:
            interactions: split interactions.
            behavior: what is counted.
            before: ``validation`` to count train only, ``test`` for train and validation.
        """
        c = interactions.columns
        limit = {"validation": 1, "test": 2}[before]
        use = (c.split < limit) & (c.behavior == interactions.behaviors.index(behavior))
        counts = np.bincount(c.row[use], minlength=len(interactions.catalog))
        self.order = [
            interactions.catalog[int(row)].item_id for row in np.argsort(-counts, kind="stable")
        ]

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        """The k most frequent items; the history only says what is left out."""
        seen = set(history.item_ids) if exclude_seen else set()
        return [i for i in self.order[: k + len(seen)] if i not in seen][:k]


def fit(
    name: str,
    dataset: Dataset,
    *,
    before: str = "validation",
    folder: str | Path | None = None,
    seed: int = 0,
) -> Baseline:
    """A fitted baseline.

    Raises:
        SettingsError: there is no such baseline.
    """
    if name not in NAMES:
        msg = f"{name!r} is not a baseline. Expected one of: {', '.join(NAMES)}."
        raise SettingsError(msg)
    return Popular(dataset.interactions, dataset.info.target_behavior, before=before)
