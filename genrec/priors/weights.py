"""Weights: how likely each item is without the model, to be fused with the model in search.

Knows catalog rows, nothing of tokens. Any object with ``weights(history)`` can serve as a prior; the
simplest ones are here: popularity and its opposite, novelty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.data.events import SPLITS, History
from genrec.data.interactions import Interactions
from genrec.errors import RequestError
from genrec.types import FloatArray, IntArray

LEAST_WEIGHT = 1e-30  # relative to the greatest weight
CANCELLATION = 1e-6  # a difference of sums below this share of them is too inexact


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Finite weights above 0 by catalog row; only their ratios count.

    Attributes:
        values: (N,) the weights of rows 0 to N - 1, or (S,) those of ``rows``.
        rows: (S,) the rows with weights of their own; None for the first N.
        rest: the weight of every other row; unused with a ``base``.
        base: weights of all rows, to which those of ``rows`` are added. A base that many histories
            share is ordered by trie position only once.
        sources: the names of the sources that contributed, for people.
    """

    values: FloatArray
    rows: IntArray | None = None
    rest: float = 1.0
    base: Weights | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values; convert lists to arrays."""
        try:
            values = np.asarray(self.values, dtype=np.float64)
            rows = None if self.rows is None else np.asarray(self.rows, dtype=np.int64)
            flat = values.ndim == 1 and (rows is None or rows.ndim == 1)
        except (TypeError, ValueError, OverflowError):
            flat = False
        if not flat:
            msg = (
                f"Prior weights {self.values!r:.80} for rows {self.rows!r:.80}. Expected a list of "
                "numbers above 0, and a list of rows or None."
            )
            raise RequestError(msg)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rows", rows)
        every = np.append(self.values, self.rest)
        if not (np.isfinite(every).all() and (every > 0).all()):
            bad = every[~(np.isfinite(every) & (every > 0))][0]
            msg = f"A prior weight of {bad}. Expected finite numbers above 0; smooth the prior."
            raise RequestError(msg)
        if self.rows is not None and (
            len(self.rows) != len(self.values) or len(np.unique(self.rows)) < len(self.rows)
        ):
            msg = (
                f"{len(self.values)} prior weights for {len(self.rows)} rows. Expected one for "
                "each row, and each row once."
            )
            raise RequestError(msg)
        if self.base is not None and (self.rows is None or self.base.rows is not None):
            msg = (
                "Prior weights with a base, but without rows, or with rows in the base. Expected "
                "weights for some rows, and a base with weights for all rows."
            )
            raise RequestError(msg)


class ItemPrior(Protocol):
    """Anything that weighs the items of the catalog for a history."""

    def weights(self, history: History) -> Weights:
        """Weigh every item for a history."""
        ...


class Popularity:
    """Weighs an item by its number of events plus one, or for novelty by the inverse of that."""

    def __init__(
        self,
        interactions: Interactions,
        n_items: int,
        *,
        novelty: bool = False,
        before: str = "validation",
    ) -> None:
        """Count the events before a split.

        Args:
            interactions: the events.
            n_items: the number of items in the catalog.
            novelty: whether rare items weigh more.
            before: the split before which events count: ``validation`` for train only.
        """
        columns = interactions.columns
        rows = columns.row[(columns.split < SPLITS.index(before)) & (columns.row >= 0)]
        counts = (np.bincount(rows, minlength=n_items) + 1).astype(np.float64)
        name = "novelty" if novelty else "popularity"
        self._weights = Weights(1.0 / counts if novelty else counts, sources=(name,))

    def weights(self, history: History) -> Weights:
        """Return the same weights for every history."""
        del history
        return self._weights
