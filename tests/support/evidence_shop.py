"""A small shop for evidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.priors.weights import Weights
from support import tiny


class Neighbours:
    """A prior that favors neighbors of the history's items, later ones more."""

    def __init__(self, n: int) -> None:
        self._n = n

    def weights(self, history: History) -> Weights:
        """See ``ItemPrior``."""
        values = np.ones(self._n)
        for age, item_id in enumerate(reversed(history.item_ids), start=1):
            values[(int(item_id[1:]) + 1) % self._n] += 5.0 / age
        return Weights(values)


def shop(n: int = 8, **settings: Any) -> Recommender:
    words = ["red", "blue", "doll", "mug", "bag", "box", "tin", "cup", "pen", "hat"]
    catalog = Catalog(Item(f"i{i}", f"{words[i % 10]} {words[i // 3 % 10]} {i}") for i in range(n))
    return Recommender(catalog, tiny.language_model(), encoder="none", **settings)


def past(*places: int) -> History:
    return History(tuple(Interaction(f"i{i}", "buy") for i in places))
