"""Define the weights of items under a prior, which the search fuses with the model.

Deals with catalog rows, not with tokens. Any object with a method ``weights(history)`` can be used as
a prior. This module contains the simplest ones: popularity and its opposite, novelty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.data.events import SPLITS, History
from genrec.data.interactions import Interactions
from genrec.errors import RequestError
from genrec.types import FloatArray, IntArray

LEAST_WEIGHT = 1e-30  # minimum weight, relative to the largest one
CANCELLATION = 1e-6  # a difference of sums is inexact if it is below this fraction of the sums


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Finite positive weights of catalog rows; only their ratios matter.

    Attributes:
        values: (N,) the weights of rows 0 to N - 1, or (S,) the weights of ``rows``.
        rows: (S,) the rows with individual weights; None for the first N rows.
        rest: the weight of every other row; not used if there is a ``base``.
        base: weights of all rows, to which the weights of ``rows`` are added. If many histories
            share a base, it is ordered by trie position only once.
        sources: the names of the sources that contributed, for display.
    """

    values: FloatArray
    rows: IntArray | None = None
    rest: float = 1.0
    base: Weights | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Convert lists to arrays, and check the values."""
        try:
            values = np.asarray(self.values, dtype=np.float64)
            rows = None if self.rows is None else np.asarray(self.rows, dtype=np.int64)
            flat = values.ndim == 1 and (rows is None or rows.ndim == 1)
        except (TypeError, ValueError, OverflowError):
            flat = False
        if not flat:
            msg = (
                f"Got prior weights {self.values!r:.80} for rows {self.rows!r:.80}. Expected a list "
                "of numbers above 0, and a list of rows or None."
            )
            raise RequestError(msg)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rows", rows)
        every = np.append(self.values, self.rest)
        if not (np.isfinite(every).all() and (every > 0).all()):
            bad = every[~(np.isfinite(every) & (every > 0))][0]
            msg = f"Got a prior weight of {bad}. Expected finite numbers above 0; smooth the prior."
            raise RequestError(msg)
        if self.rows is not None and (
            len(self.rows) != len(self.values) or len(np.unique(self.rows)) < len(self.rows)
        ):
            msg = (
                f"Got {len(self.values)} prior weights for {len(self.rows)} rows. Expected exactly "
                "one weight per row, and no repeated rows."
            )
            raise RequestError(msg)
        if self.base is not None and (self.rows is None or self.base.rows is not None):
            msg = (
                "The prior weights have a base but list no rows, or the base itself lists rows. "
                "Expected weights with rows, and a base without rows that covers all rows."
            )
            raise RequestError(msg)


class ItemPrior(Protocol):
    """The interface of a prior, which weights the items of the catalog for a history."""

    def weights(self, history: History) -> Weights:
        """Weight every item for a history."""
        ...


class Popularity:
    """Weights an item by its number of events plus one, or by the inverse for novelty."""

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
            novelty: whether to give rare items a higher weight.
            before: the split before which events are counted, such as ``validation`` for the train
                part only.
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
